"""Row groups of packed sequences, as leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.errors import InputError
from gristmill.kernels.packing import copy_pieces, number_pieces
from gristmill.storage.range_cache import RangeCache
from gristmill.storage.ranged import Traffic
from gristmill.storage.stream.columns import Column, Leaf
from gristmill.storage.stream.packing import DOCUMENTS, POSITIONS, PackedLayout
from gristmill.storage.stream.permute import I64
from gristmill.storage.stream.reader import Reader


class PackedReader:
    """Reads row groups of a packed layout: the packed columns, `position_ids` and `document_ids`, each (sequences, length).

    position_ids: int32, from 0 in each piece of a document. document_ids: int32, from 0 in each sequence; -1 for padding.
    """

    def __init__(self, layout: PackedLayout, rows: Reader) -> None:
        assert layout.pack is not None
        self.layout = layout
        self._rows, self._pack = rows, layout.pack
        self._shape = (layout.pack.length,)
        self.names = list(rows.names)
        numbers = np.dtype(np.int32)
        self.columns = [
            *(Column(each.name, "number", each.dtype, self._shape) for each in rows.columns),
            Column(POSITIONS, "number", numbers, self._shape),
            Column(DOCUMENTS, "number", numbers, self._shape),
        ]

    @property
    def traffic(self) -> Traffic:
        """What was asked of stores."""
        return self._rows.traffic

    @property
    def cache(self) -> RangeCache | None:
        """What keeps remote bytes."""
        return self._rows.cache

    def read(self, group: int) -> list[Leaf]:
        """The leaves of one row group; raises as `Reader.read`.

        Raises:
            InputError: rows of another length than the plan says.
        """
        plan = self.layout.pieces(group)
        count = int(self.layout.group_rows[group])
        target = plan.pack * self._pack.length + plan.target
        leaves: list[Leaf] = []
        planned = np.zeros(int(self.layout.source.group_rows[group]), np.int64)
        np.add.at(planned, plan.row, plan.size)
        for column, leaf in zip(self._rows.columns, self._rows.read(group), strict=True):
            values, ends = _numbers(leaf, column)
            if not np.array_equal(np.diff(ends), planned):
                row = int(np.flatnonzero(np.diff(ends) != planned)[0])
                raise InputError(
                    f"{self.layout.where(group)}, row {row}, column '{column.name}': {np.diff(ends)[row]} values, but the plan has {planned[row]} tokens; "
                    "packed columns need a value for each token, and a `lengths` column must tell the truth"
                )
            out = np.full((count, self._pack.length), self._pack.pad, column.dtype)
            copy_pieces(values, ends[plan.row] + plan.start, plan.size, target, out.reshape(-1))
            leaves += [out, None]
        places = np.zeros((count, self._pack.length), np.int32)
        owners = np.full((count, self._pack.length), -1, np.int32)
        nth = np.arange(len(plan.pack)) - np.searchsorted(plan.pack, plan.pack)
        number_pieces(plan.size, target, nth, places.reshape(-1), owners.reshape(-1))
        return [*leaves, places, None, owners, None]

    def empty(self) -> list[Leaf]:
        """The leaves of no sequences."""
        found: list[Leaf] = []
        for column in self.columns:
            found += [np.zeros((0, *self._shape), column.dtype), None]
        return found


def _numbers(leaf: Any, column: Column) -> tuple[npt.NDArray[Any], I64]:
    """(all values of a list column end to end, (rows + 1,) where rows begin)."""
    assert column.dtype is not None
    if isinstance(leaf, np.ndarray):  # equally long rows
        return leaf.reshape(-1).view(column.dtype), np.arange(len(leaf) + 1) * (leaf.shape[1] // column.dtype.itemsize)
    _, places, content = leaf.buffers()
    ends = np.frombuffer(places, np.int64, len(leaf) + 1, leaf.offset * 8) // column.dtype.itemsize
    values = np.frombuffer(content, column.dtype) if content is not None and content.size else np.zeros(0, column.dtype)
    return values, ends


def cu_seqlens(document_ids: Any) -> Any:
    """(documents + 1,) int32 tensor: where the documents of a batch begin and end when its sequences are laid end to end, for variable-length attention.

    document_ids: (sequences, length), as in a batch. Padding at a sequence's end counts as a document of its own.
    """
    import torch

    flat = document_ids.reshape(-1)
    change = torch.ones(len(flat), dtype=torch.bool)
    change[1:] = flat[1:] != flat[:-1]
    change[:: document_ids.shape[1]] = True
    return torch.cat([torch.nonzero(change).reshape(-1), torch.tensor([len(flat)])]).to(torch.int32)
