"""From gathered leaves to what a training step gets: tensors, and lists where there is no tensor form."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from gristmill.errors import UsageError
from gristmill.kernels.buffers import numbers
from gristmill.storage.stream.columns import Column, Leaf


class Ragged(NamedTuple):
    """Rows of different lengths. values: all rows end to end; offsets: (rows + 1,) int64, row i is values[offsets[i]:offsets[i + 1]]."""

    values: torch.Tensor
    offsets: torch.Tensor

    def lengths(self) -> torch.Tensor:
        """(rows,) int64."""
        return self.offsets.diff()

    def padded(self, value: float = 0, length: int | None = None) -> torch.Tensor:
        """(rows, length): each row cut or filled up with `value`; length None: that of the longest."""
        lengths = self.lengths()
        longest = int(lengths.max()) if length is None and len(lengths) else length or 0
        columns = torch.arange(longest)
        inside = columns < lengths.unsqueeze(1)
        out = torch.full((len(lengths), longest), value, dtype=self.values.dtype)
        out[inside] = self.values[(self.offsets[:-1].unsqueeze(1) + columns)[inside]]
        return out


class Batch(dict[str, Any]):
    """One rank's part of a global batch: {column: tensor, Ragged or list}.

    step: its number, from 0. position: where in the stream it begins. next_position: where the one after it begins. padding: rows at its end that
    only fill it up. replaced: rows that stand for others, which could not be read or transformed.
    """

    step: int = 0
    position: int = 0
    next_position: int = 0
    padding: int = 0
    replaced: int = 0

    def valid(self, name: str) -> torch.Tensor:
        """(rows,) bool: which rows of the column are not null."""
        found = self.get(f"{name}_valid")
        return found if found is not None else torch.ones(_rows(self[name]), dtype=torch.bool)


def _rows(value: Any) -> int:
    return len(value.offsets) - 1 if isinstance(value, Ragged) else len(value)


def emit(columns: Sequence[Column], leaves: Sequence[Leaf], views: Collection[str] = ()) -> dict[str, Any]:
    """The batch that gathered leaves make. A column with a null in these rows has `NAME_valid` beside it; its tensor holds 0 there.

    views: columns whose bytes may be memoryviews.
    """
    out: dict[str, Any] = {}
    start = 0
    for column in columns:
        here = leaves[start : start + column.width]
        start += column.width
        out[column.name] = _value(column, here, views)
        valid = _valid(column, here)
        if valid is not None:
            out[f"{column.name}_valid"] = valid
    return out


def pad_ragged(batch: dict[str, Any], values: Mapping[str, float]) -> None:
    """Replaces ragged columns by padded tensors, with `NAME_lengths` beside them."""
    for name, value in values.items():
        ragged = _as_ragged(batch.get(name), name)
        batch[name], batch[f"{name}_lengths"] = ragged.padded(value), ragged.lengths()


def _as_ragged(value: Any, name: str) -> Ragged:
    """A ragged column, also one that a transform returned row by row; None for a row is an empty one.

    Raises:
        UsageError: something else.
    """
    if isinstance(value, Ragged):
        return value
    rows = list(value) if isinstance(value, torch.Tensor | list) else [value]
    plain = all(row is None or (isinstance(row, torch.Tensor | np.ndarray) and row.ndim == 1) for row in rows)
    if value is None or not plain:
        raise UsageError(f"pad: the transform must return a one-dimensional array as '{name}'", column=name)
    arrays = [torch.as_tensor(np.ascontiguousarray(row)) for row in rows if row is not None]
    lengths = torch.tensor([0, *(0 if row is None else len(row) for row in rows)])
    return Ragged(torch.cat(arrays) if arrays else torch.zeros(0), lengths.cumsum(0))


def _value(column: Column, leaves: Sequence[Leaf], views: Collection[str]) -> Any:
    if column.kind == "struct":
        inside = [f"{column.name}.bytes"] if column.name in views else ()
        return {name.rpartition(".")[2]: value for name, value in emit(column.fields, leaves, inside).items()}
    if column.kind == "number":
        return torch.from_numpy(leaves[0])
    leaf = leaves[0]
    if isinstance(leaf, np.ndarray) and column.kind == "bytes":
        return list(leaf) if column.name in views else [None if row is None else bytes(row) for row in leaf]
    if isinstance(leaf, np.ndarray):
        return _equal_rows(column, leaf)
    assert isinstance(leaf, pa.Array)
    return _ragged(column, leaf) if column.kind == "numbers" else leaf.to_pylist()


def _valid(column: Column, leaves: Sequence[Leaf]) -> torch.Tensor | None:
    if column.kind == "number":
        valid = leaves[1]
        return None if valid is None or valid.all() else torch.from_numpy(valid)
    rows: Any = leaves[0]
    if column.kind == "numbers" and isinstance(rows, pa.Array):
        return torch.from_numpy(numbers(rows.is_valid())) if rows.null_count else None
    return None


def _equal_rows(column: Column, rows: Any) -> Ragged:
    assert column.dtype is not None
    values = torch.from_numpy(rows.reshape(-1).view(column.dtype))
    return Ragged(values, torch.arange(len(rows) + 1) * (rows.shape[1] // column.dtype.itemsize))


def _ragged(column: Column, rows: pa.Array) -> Ragged:
    assert column.dtype is not None
    _, places, content = rows.buffers()
    ends = np.frombuffer(places, np.int64, len(rows) + 1, rows.offset * 8) if len(rows) else np.zeros(1, np.int64)
    size = int(ends[-1] - ends[0])
    values = np.frombuffer(content, np.uint8, size, int(ends[0])) if size else np.zeros(0, np.uint8)
    copied = values.copy() if not values.flags.writeable else values  # torch refuses read-only memory
    return Ragged(
        torch.from_numpy(copied.view(column.dtype)), torch.from_numpy((ends - ends[0]) // column.dtype.itemsize)
    )
