"""From rows with decisions to shards: which row goes to which shard, and the work items that write them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.pipelines import parts
from gristmill.pipelines.sources import cast_table
from gristmill.pipelines.work import WorkStore, key_of
from gristmill.storage.folder import Folder
from gristmill.storage.parquet import ParquetSettings, ShardWriter

LEAVES = -1  # in an assignment: the row is in no split


@dataclass(frozen=True)
class Piece:
    """Rows start to stop of one item, of which the shard takes those of its split."""

    rows: str  # work key of the stage that wrote the rows
    assignment: str
    start: int
    stop: int


@dataclass(frozen=True)
class Shard:
    """One shard to write."""

    store: WorkStore
    key: str
    folder: Folder
    split: str | None
    code: int
    pieces: tuple[Piece, ...]
    schema: pa.Schema
    settings: ParquetSettings

    def __str__(self) -> str:
        return f"shard of {self.split or 'all rows'}"


def store_assignment(store: WorkStore, codes: npt.NDArray[np.int8]) -> str:
    """The key of an item's assignment: for each row the number of its split, or LEAVES."""
    key = key_of("assignment", codes.tobytes())
    if store.done(key) is None:
        with store.create(key) as (folder, _):
            parts.write(folder / "assignment.arrow", pa.table({"split": codes}))
    return key


def pack(
    rows: Sequence[str],
    assignments: Sequence[str],
    codes: Sequence[npt.NDArray[np.int8]],
    sizes: Sequence[npt.NDArray[np.int64]],
    code: int,
    shard_bytes: int,
) -> Iterator[tuple[Piece, ...]]:
    """The pieces of each shard of a split, in order: kept rows in item order, cut where their Arrow bytes pass a multiple of `shard_bytes`.

    The cut depends on the kept rows and their order alone.
    """
    before = 0
    shard = 0
    pieces: list[Piece] = []
    for key, assignment, split, size in zip(rows, assignments, codes, sizes, strict=True):
        mine = np.flatnonzero(split == code)
        if not len(mine):
            continue
        ends = before + np.cumsum(size[mine])
        number = (ends - size[mine]) // shard_bytes  # of the shard in which each row starts
        before = int(ends[-1])
        edges = np.flatnonzero(np.diff(number, prepend=shard))
        cuts = [0, *edges[edges > 0].tolist(), len(mine)]
        for i, (low, high) in enumerate(itertools.pairwise(cuts)):
            if (i or number[0] != shard) and pieces:
                yield tuple(pieces)
                pieces = []
            pieces.append(Piece(key, assignment, int(mine[low]), int(mine[high - 1]) + 1))
        shard = int(number[-1])
    if pieces:
        yield tuple(pieces)


def write_shard(task: Shard) -> dict[str, Any]:
    """Writes the shard into the dataset under its content's name and notes its file entry."""
    with ShardWriter(task.folder, task.settings, task.schema, split=task.split) as writer:
        for piece in task.pieces:
            for table in _rows_of(task, piece):
                writer.write(cast_table(table, task.schema))
    with task.store.create(task.key) as (_, summary):
        summary["files"] = [entry.to_dict() for entry in writer.files]
    return summary


def _rows_of(task: Shard, piece: Piece) -> Iterator[pa.Table]:
    codes = parts.read(task.store.folder(piece.assignment) / "assignment.arrow")["split"].to_numpy()
    start = 0
    for table in parts.batches(task.store.folder(piece.rows), "rows"):
        low, high = max(start, piece.start), min(start + table.num_rows, piece.stop)
        if low < high:
            mine = codes[low:high] == task.code
            if mine.any():
                yield table.slice(low - start, high - low).filter(pa.array(mine))
        start += table.num_rows
        if start >= piece.stop:
            return
