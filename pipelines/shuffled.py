"""`output.order: shuffled`: the kept rows in one random order, through `exchange`, so that each shard is a random sample of its split."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.kernels.hashing import hash_text
from gristmill.pipelines import parts
from gristmill.pipelines.engines.base import Engine
from gristmill.pipelines.exchange import Scattered, scatter
from gristmill.pipelines.output import store_shard
from gristmill.pipelines.sources import cast_table
from gristmill.pipelines.work import WorkStore, key_of
from gristmill.storage.folder import Folder
from gristmill.storage.parquet import ParquetSettings

TAKEN = 4096  # rows that are brought into order at a time


@dataclass(frozen=True)
class Kept:
    """The rows of one item with their assignment to splits: what is scattered."""

    rows: str  # work key of the stage that wrote the rows
    assignment: str

    @property
    def digest(self) -> str:
        """Changes with the rows and their splits."""
        return f"{self.rows}:{self.assignment}"

    def __str__(self) -> str:
        return f"rows of {self.rows}"


@dataclass(frozen=True)
class Form:
    """Where shards are written, and how."""

    folder: Folder
    schema: pa.Schema
    settings: ParquetSettings


@dataclass(frozen=True)
class ShuffledShard:
    """One shard to write: a range of the order of its split."""

    store: WorkStore
    key: str
    folder: Folder
    split: str | None
    scattered: Scattered
    partition: int
    schema: pa.Schema
    settings: ParquetSettings

    def __str__(self) -> str:
        return f"shard of {self.split or 'all rows'}"


def shuffled_shards(
    engine: Engine,
    store: WorkStore,
    kept: Sequence[Kept],
    splits: Sequence[tuple[str | None, int]],
    form: Form,
    *,
    seed: int,
    shard_bytes: int,
) -> tuple[list[ShuffledShard], list[str]]:
    """(a task for each shard; the keys of the work files used). `splits`: the name of each, and the Arrow bytes of its rows.

    Rows are ordered by hash(seed, uid), a shard is a range of these hashes: of each split as many as it has multiples of `shard_bytes`, all
    about equally large. Where a row goes depends on its uid and on the bytes of its split alone.
    """
    counts = tuple(-(-size // shard_bytes) for _, size in splits)
    if not sum(counts):
        return [], []
    view = functools.partial(placed, seed=seed, counts=counts, schema=form.schema)
    facts = key_of("shuffle", seed, counts, form.schema.serialize().to_pybytes())
    scattered, used = scatter(engine, store, kept, view, sum(counts), facts)
    tasks = []
    for code, (split, _) in enumerate(splits):
        for partition in range(sum(counts[:code]), sum(counts[: code + 1])):
            where = (form.folder.url(""), split, scattered.digest, partition, repr(form.settings))
            key = key_of("shuffled shard", where)
            tasks.append(
                ShuffledShard(store, key, form.folder, split, scattered, partition, form.schema, form.settings)
            )
    return tasks, used


def placed(
    store: WorkStore, kept: Kept, *, seed: int, counts: tuple[int, ...], schema: pa.Schema
) -> Iterator[pa.Table]:
    """key (the shard's number), place (in the order of the split), uid, row (all columns) of each kept row of an item."""
    codes = parts.read(store.folder(kept.assignment) / "assignment.arrow")["split"].to_numpy()
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
    number = np.array(counts, np.uint64)
    start = 0
    for whole in parts.batches(store.folder(kept.rows), "rows"):
        code = codes[start : start + whole.num_rows]
        start += whole.num_rows
        table = cast_table(whole.filter(pa.array(code >= 0)), schema)
        code = code[code >= 0]
        if table.num_rows:
            place = places(table["_uid"], seed)
            shard = first[code] + (((place >> np.uint64(32)) * number[code]) >> np.uint64(32))
            columns = [_plain(column.combine_chunks()) for column in table.columns]
            row = pa.StructArray.from_arrays(columns, names=table.column_names)
            yield pa.table({"key": shard, "place": place, "uid": table["_uid"], "row": row})


def places(uids: pa.ChunkedArray, seed: int) -> npt.NDArray[np.uint64]:
    """hash(seed, uid): where rows stand in the order."""
    marked = pc.binary_join_element_wise(
        pa.scalar(f"order:{seed}", pa.large_string()), uids.cast(pa.large_string()), pa.scalar(":", pa.large_string())
    )
    return hash_text(marked)[:, 1]


def _plain(column: pa.Array) -> pa.Array:
    """An Arrow file can hold one dictionary a column only, so that the values themselves are written."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def write_shuffled(task: ShuffledShard) -> dict[str, Any]:
    """Writes the shard in order. Holds the shard's rows twice for a moment."""
    return store_shard(task, _ordered(task))


def _ordered(task: ShuffledShard) -> Iterator[pa.Table]:
    found = list(task.scattered.tables(task.store, task.partition))
    if not found:
        return
    rows = pa.concat_tables(found).drop_columns(["key"]).combine_chunks()
    found.clear()
    order = pc.sort_indices(rows, [("place", "ascending"), ("uid", "ascending")])
    for start, stop in itertools.pairwise([*range(0, len(order), TAKEN), len(order)]):
        struct = rows["row"].take(order.slice(start, stop - start))
        yield pa.Table.from_struct_array(struct)
