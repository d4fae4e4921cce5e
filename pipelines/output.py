"""From rows with decisions to shards: which row goes to which shard, and the work items that write them."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.errors import RunError
from gristmill.pipelines import parts
from gristmill.pipelines.sources import cast_table
from gristmill.pipelines.work import WorkStore, key_of
from gristmill.storage.folder import Folder
from gristmill.storage.parquet import ParquetSettings, ShardWriter

Assigned = tuple[str, Sequence[Mapping[str, int]]]
"""The key of an item's assignment, and its totals by split."""


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


@dataclass(frozen=True)
class Cut:
    """Find where shards begin inside one item. `before`: the bytes of each split in the items before it."""

    store: WorkStore
    key: str
    assignment: str
    before: tuple[int, ...]
    shard_bytes: int

    def __str__(self) -> str:
        return f"cuts of {self.assignment}"


def cut(task: Cut) -> dict[str, Any]:
    """For each split (shard, first row, last row) of every run of the item's rows that start in one shard."""
    assigned = parts.read(task.store.folder(task.assignment) / "assignment.arrow")
    codes, sizes = assigned["split"].to_numpy(), assigned["bytes"].to_numpy()
    found = []
    for code, before in enumerate(task.before):
        mine = np.flatnonzero(codes == code)
        shard = (before + np.cumsum(sizes[mine]) - sizes[mine]) // task.shard_bytes
        edges = parts.runs(shard.astype(np.uint64))
        runs = itertools.pairwise(edges.tolist()) if len(mine) else ()
        found.append([[int(shard[a]), int(mine[a]), int(mine[b - 1])] for a, b in runs])
    with task.store.create(task.key) as (_, summary):
        summary["runs"] = found
    return summary


def pack(
    map_: Callable[[Sequence[Cut]], list[dict[str, Any]]],
    store: WorkStore,
    rows: Sequence[str],
    assigned: Sequence[Assigned],
    shard_bytes: int,
) -> list[list[tuple[Piece, ...]]]:
    """For each split the pieces of each of its shards: kept rows in item order, cut where their Arrow bytes pass a multiple of `shard_bytes`.

    assigned: of each item the key of its assignment, and its totals. The cuts depend on the kept rows and their order alone. What is known
    of an item here is its totals; where a shard begins inside of one is found by `map_`.
    """
    splits = len(assigned[0][1]) if assigned else 0
    sums = np.zeros(splits, np.int64)
    runs: list[list[Any] | None] = []
    tasks: dict[int, Cut] = {}
    for number, (key, totals) in enumerate(assigned):
        before = tuple(sums.tolist())
        known = [_whole(total, start, shard_bytes) for total, start in zip(totals, before, strict=True)]
        if all(found is not None for found in known):
            runs.append(known)
        else:
            runs.append(None)
            tasks[number] = Cut(store, key_of("cut", key, before, shard_bytes), key, before, shard_bytes)
        sums += [total["bytes"] for total in totals]
    for number, summary in zip(tasks, map_(list(tasks.values())), strict=True):
        runs[number] = summary["runs"]
    packed = []
    for code in range(splits):
        shards: dict[int, list[Piece]] = {}
        for found, stage, (key, _) in zip(runs, rows, assigned, strict=True):
            assert found is not None
            for shard, first, last in found[code]:
                shards.setdefault(shard, []).append(Piece(stage, key, first, last + 1))
        packed.append([tuple(shards[shard]) for shard in sorted(shards)])
    return packed


def _whole(total: Mapping[str, int], before: int, shard_bytes: int) -> list[list[int]] | None:
    """The item's runs, where all its rows of the split start in one shard; else None."""
    if not total["rows"]:
        return []
    first, last = before // shard_bytes, (before + total["bytes"] - total["last_bytes"]) // shard_bytes
    return [[first, total["first"], total["last"]]] if first == last else None


def write_shard(task: Shard) -> dict[str, Any]:
    """Writes the shard into the dataset under its content's name and notes its file entry."""
    return store_shard(task, _ahead(table for piece in task.pieces for table in _rows_of(task, piece)))


def _ahead(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same tables; the next one is decompressed while one is compressed."""
    with ThreadPoolExecutor(1) as thread:
        due = thread.submit(next, tables, None)
        while (table := due.result()) is not None:
            due = thread.submit(next, tables, None)
            yield table


def store_shard(task: Any, rows: Iterable[pa.Table]) -> dict[str, Any]:
    """Writes the shard that a task is about: these rows, in order."""
    check_mounted(task.folder)
    with ShardWriter(task.folder, task.settings, task.schema, split=task.split) as writer:
        for table in rows:
            writer.write(cast_table(table, task.schema))
    with task.store.create(task.key) as (_, summary):
        summary["files"] = [entry.to_dict() for entry in writer.files]
    return summary


def check_mounted(folder: Folder) -> None:
    """Refuses a dataset's folder that this machine doesn't see: what is written there would be lost.

    Raises:
        RunError: it isn't there.
    """
    if not folder.remote and not os.path.isdir(folder.base):
        raise RunError(
            f"the output folder '{folder.base}' is not there on {socket.gethostname()}; with workers on other machines give one that all of them "
            "have mounted, or a URL such as s3://bucket/shards"
        )


def _rows_of(task: Shard, piece: Piece) -> Iterator[pa.Table]:
    """The piece's rows of the shard's split, in tables of about a row group."""
    codes = parts.read(task.store.folder(piece.assignment) / "assignment.arrow")["split"].to_numpy()
    mine = codes == task.code
    mine[: piece.start] = mine[piece.stop :] = False
    rows = parts.picked(task.store.folder(piece.rows), "rows", lambda start, stop: mine[start:stop].any())
    kept: list[pa.RecordBatch] = []
    size = 0
    for start, batch in rows:
        if kept and (size >= task.settings.row_group_bytes or batch.schema != kept[0].schema):
            yield pa.Table.from_batches(kept).combine_chunks()
            kept, size = [], 0
        kept.append(batch.filter(pa.array(mine[start : start + batch.num_rows])))
        size += kept[-1].nbytes
    if kept:
        yield pa.Table.from_batches(kept).combine_chunks()
