"""What happens to single rows: decoding and the user's own function, with randomness that belongs to the row."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gristmill.errors import InputError, UsageError
from gristmill.storage.stream.buffers import Buffers
from gristmill.storage.stream.images import InPlace, Plain
from gristmill.storage.stream.prefetch import BadRows, substitutes
from gristmill.storage.stream.tensors import Ragged

Row = dict[str, Any]
Transform = Callable[[Row, np.random.Generator], Row]
Targets = Mapping[str, Sequence[Any]]  # column -> for each row the array that its decoded image is written to


class RowError(InputError):
    """A row that could not be decoded or transformed."""


def row_rng(seed: int, epoch: int, uid: str) -> np.random.Generator:
    """The random generator of one row in one epoch: the same on any rank, worker and resume."""
    digest = hashlib.blake2b(f"{seed}:{epoch}:{uid}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, np.uint64)))


@dataclass(frozen=True)
class RowWork:
    """decode: column -> `Decoder` of its bytes (of the field `bytes` of a struct); transform: runs after it. Picklable if they are."""

    decode: Mapping[str, Any]
    transform: Transform | None
    seed: int

    @property
    def in_place(self) -> dict[str, InPlace]:
        """The columns whose decoders write into the batch itself."""
        return {name: decoder for name, decoder in self.decode.items() if isinstance(decoder, InPlace)}

    def run(
        self, rows: Sequence[Row], uids: Sequence[str], epochs: Sequence[int], targets: Targets
    ) -> list[Row | RowError]:
        """Each row done, or why it can't be."""
        random = self.transform is not None or any(not isinstance(each, Plain) for each in self.decode.values())
        return [
            self._one(
                row,
                row_rng(self.seed, epoch, uid) if random else None,
                uid,
                epoch,
                {name: places[i] for name, places in targets.items()},
            )
            for i, (row, uid, epoch) in enumerate(zip(rows, uids, epochs, strict=True))
        ]

    def _one(self, row: Row, rng: Any, uid: str, epoch: int, places: Row) -> Row | RowError:
        doing = ""
        try:
            for name, decoder in self.decode.items():
                doing = f"column '{name}' can't be decoded"
                content = _content(row[name])
                if name in places:
                    assert isinstance(decoder, InPlace)
                    decoder.into(places[name], content, rng)
                    row[name] = places[name]
                else:
                    row[name] = decoder(content, rng)
            doing = "the transform failed"
            return self.transform(row, rng) if self.transform else row
        except Exception as error:  # noqa: BLE001  a user's function may raise anything; it is reported with its row
            return RowError(
                f"row '{uid}', epoch {epoch}: {doing}: {type(error).__name__}: {error}", uid=uid, epoch=epoch
            )


def _content(value: Any) -> Any:
    """The encoded bytes of an image; empty for null."""
    return (value["bytes"] if isinstance(value, dict) else value) or b""


class RowJobs:
    """Runs row work for batches in an executor, a few chunks a batch. buffers: for images that are decoded in place; None where the executor has other processes."""

    def __init__(
        self, work: RowWork, executor: Executor | None, chunks: int, bad: BadRows, buffers: Buffers | None
    ) -> None:
        self._work = work
        self._executor = executor
        self._chunks = max(1, chunks)
        self._bad = bad
        self._buffers = buffers

    def begin(
        self, batch: Mapping[str, Any], uids: Sequence[str], epochs: Sequence[int]
    ) -> Callable[[], tuple[Row, Any]]:
        """A function that waits for the rows of a batch and gives (columns, which rows are good)."""
        rows = _rows(batch, len(uids))
        whole = self._whole(rows)
        targets = {name: list(images) for name, images in whole.items()}
        size = max(1, -(-len(rows) // self._chunks))
        parts = [
            (rows[i:j], uids[i:j], epochs[i:j], {name: each[i:j] for name, each in targets.items()})
            for i, j in ((i, i + size) for i in range(0, len(rows), size))
        ]
        if self._executor is None:
            return lambda: self._join([self._work.run(*part) for part in parts], whole, targets)
        running: list[Future[list[Row | RowError]]] = [self._executor.submit(self._work.run, *part) for part in parts]
        return lambda: self._join([future.result() for future in running], whole, targets)

    def _whole(self, rows: Sequence[Row]) -> dict[str, npt.NDArray[Any]]:
        """For each image column that is decoded in place, if its images are equally large, the array (rows, height, width, channels) for them."""
        found: dict[str, npt.NDArray[Any]] = {}
        for name, decoder in self._work.in_place.items() if self._buffers else ():
            assert self._buffers is not None
            try:
                shapes = {decoder.shape(_content(row[name])) for row in rows}
            except InputError:  # told with its row where it is decoded
                continue
            shape = shapes.pop()
            if shape is not None and not shapes:
                found[name] = self._buffers.take((len(rows), *shape), np.uint8)
        return found

    def _join(self, parts: Sequence[Sequence[Row | RowError]], whole: Row, targets: Targets) -> tuple[Row, Any]:
        rows = [row for part in parts for row in part]
        errors = [row for row in rows if isinstance(row, RowError)]
        good = np.array([not isinstance(row, RowError) for row in rows], bool)
        if errors:
            if not self._bad.substitute or not good.any():
                raise errors[0]
            for error in errors:
                self._bad.tell(str(error))
            rows = [rows[i] for i in substitutes(good)]
        return _columns(rows, whole, targets), good  # type: ignore[arg-type]


def _rows(batch: Mapping[str, Any], count: int) -> list[Row]:
    """The rows of a batch as dicts: numbers as numpy values (null as None), lists as arrays, structs as dicts."""
    columns: dict[str, list[Any]] = {}
    for name, value in batch.items():
        if isinstance(value, torch.Tensor):
            columns[name] = list(value.numpy())
        elif isinstance(value, Ragged):
            ends = value.offsets.tolist()
            columns[name] = [value.values.numpy()[a:b] for a, b in itertools.pairwise(ends)]
        elif isinstance(value, dict):
            columns[name] = list(_rows(value, count))
        else:
            columns[name] = value
    for name in batch:
        valid = columns.get(f"{name}_valid") if f"{name}_valid" in batch else None
        if valid is not None:
            columns[name] = [value if ok else None for value, ok in zip(columns[name], valid, strict=True)]
    names = [name for name in columns if not (name.endswith("_valid") and name[:-6] in batch)]
    return [{name: columns[name][i] for name in names} for i in range(count)]


def _columns(rows: Sequence[Row], whole: Row, targets: Targets) -> Row:
    """Rows joined again: a tensor where all values are numbers or arrays of one shape, else a list.

    whole: arrays of which each row of a column may be a part already, as `targets` has them: then nothing is copied.

    Raises:
        UsageError: rows with different columns.
    """
    if not rows:
        return {}
    if not isinstance(rows[0], dict):
        raise UsageError(f"the transform returned {type(rows[0]).__name__}; it must return a dict")
    for row in rows:
        if row.keys() != rows[0].keys():
            raise UsageError(f"the transform returned rows with different columns: {sorted(rows[0])} and {sorted(row)}")
    out: Row = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        there = name in whole and all(value is place for value, place in zip(values, targets[name], strict=True))
        out[name] = torch.from_numpy(whole[name]) if there else _join_values(values)
    return out


def _join_values(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, dict) and all(isinstance(value, dict) for value in values):
        return _columns(values, {}, {})
    if all(isinstance(value, torch.Tensor) for value in values):
        return torch.stack(values) if all(value.shape == first.shape for value in values) else values
    if all(isinstance(value, np.ndarray | np.generic) and value.dtype != object for value in values):
        alike = all(value.shape == first.shape and value.dtype == first.dtype for value in values)
        return (
            torch.from_numpy(np.stack(values))
            if alike
            else [torch.as_tensor(np.ascontiguousarray(value)) for value in values]
        )
    if all(isinstance(value, bool | int | float) for value in values):
        return torch.tensor(values)
    return values


def end_with_parent() -> None:
    """Makes a worker process end when its parent does, also by SIGKILL: by itself it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="gristmill-parent", daemon=True).start()
