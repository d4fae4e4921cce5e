"""`exchange`: rows of many files brought together by key, through files, so that a lost worker costs only what it was doing.

Neither the driver nor a worker holds all rows: results stay in files (`Part`), and a reduction goes through the rows of its keys in tables of bounded size.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from gristmill.pipelines import parts
from gristmill.pipelines.engines.base import Engine
from gristmill.pipelines.work import WorkStore, finish, key_of

DRIVER_BYTES = 8 << 20  # what is estimated to be no more is done in the driver, without files
PARTITION_BYTES = 32 << 20
CHUNK_BYTES = 16 << 20  # of a table that a reduction is given
BLOCK_BYTES = (
    64 << 10
)  # smaller ones are not asked for one by one: the file is fetched that has them, once for all partitions
BLOCK_BITS = 7  # rows whose numbers differ only in these last bits are in one partition: what is new is in few
AHEAD = 64  # inputs whose blocks are fetched while those before them are worked on


class Chunks:
    """The rows of some keys: tables of bounded size, as often as it is iterated; inputs in the order given, their rows in their own.

    They are read anew each time where they are more than PARTITION_BYTES, else held.

    note: what the reduction has to say; names that begin with `largest` are joined by their maximum, others added up.
    """

    def __init__(self, store: WorkStore | None, tables: Callable[[], Iterable[pa.Table]]) -> None:
        self.store = store
        self.notes: dict[str, int] = {}
        self._tables = tables
        self._held: list[pa.Table] | None = None

    def __iter__(self) -> Iterator[pa.Table]:
        return self._read() if self._held is None else iter(self._held)

    def _read(self) -> Iterator[pa.Table]:
        held: list[pa.Table] = []
        size = 0
        for table in coalesced(self._tables()):
            size += table.nbytes
            held = [*held, table] if size <= PARTITION_BYTES else []
            yield table
        if size <= PARTITION_BYTES:
            self._held = held

    def note(self, **facts: int) -> None:
        """Joins the facts to those noted before."""
        _join_notes(self.notes, facts)


View = Callable[[WorkStore, Any], Iterable[pa.Table]]
"""(store, input) -> the slim tables of one input, all of one schema, with a column `key` (uint64)."""

Reduce = Callable[[Chunks], Iterable[pa.Table]]
"""All rows of some keys -> the result for them, as tables of one schema. Every row of a key is in the same call."""


@dataclass(frozen=True)
class Part:
    """Rows of a result: in the files PREFIX-*.arrow of finished work, or `held` in memory where they are few.

    It can be an input of the next exchange.
    """

    rows: int
    key: str = ""
    prefix: str = "result"
    held: pa.Table | None = field(default=None, compare=False)

    @property
    def digest(self) -> str:
        """Changes with the rows."""
        return f"{self.key}:{self.rows}" if self.held is None else content_digest(self.held)

    def tables(self, store: WorkStore) -> Iterator[pa.Table]:
        """The rows in tables of bounded size, in order; none where there are no rows."""
        if self.held is not None:
            yield self.held
        elif self.rows:
            whole = parts.table(store.folder(self.key), self.prefix)
            assert whole is not None
            for batch in whole.to_batches():
                yield pa.Table.from_batches([batch])

    def cut(self, column: str, partitions: int) -> list[Part]:
        """Of what is held the rows of each partition by `block` of the column, as an exchange would gather them."""
        assert self.held is not None
        place = block(self.held[column].to_numpy()) % np.uint64(partitions)
        order = np.argsort(place, kind="stable")
        cuts = np.searchsorted(place[order], np.arange(partitions + 1, dtype=np.uint64))
        rows = (self.held.take(pa.array(order[start:stop])) for start, stop in itertools.pairwise(cuts.tolist()))
        return [replace(self, rows=each.num_rows, held=each) for each in rows]

    def __str__(self) -> str:
        return f"{self.rows} rows"


class Exchanged(NamedTuple):
    """What an exchange gave: its parts, the keys of the work files used, and what the reductions noted."""

    parts: list[Part]
    used: list[str]
    notes: dict[str, int]

    @property
    def rows(self) -> int:
        """Of all parts."""
        return sum(part.rows for part in self.parts)


def exchange(
    engine: Engine,
    store: WorkStore,
    sources: Sequence[Any],
    view: View,
    reduce: Reduce,
    *,
    size: int,
    name: str,
    partitions: int | None = None,
) -> Exchanged:
    """The results of `reduce` over all rows of all views, brought together by `key`.

    `size` estimates the bytes of all views together. Up to DRIVER_BYTES the work is done right here, and its result is held, unless it turns out
    large. Above, each source is scattered into partitions by key, and each partition gathered from all of them; both halves are work items like
    any other: found again when done, repeated when lost. partitions: how many, where the size doesn't say.

    The result as a whole doesn't depend on the number of partitions; its order does.
    """
    facts = [name, getattr(reduce, "keywords", {})]
    if size <= DRIVER_BYTES:
        tables = [table for source in sources for table in view(store, source)]
        key = functools.partial(lambda: key_of("reduced here", facts, [source.digest for source in sources]))
        return _reduced_here(store, Chunks(store, lambda: tables), reduce, key)
    partitions = power_of_two(partitions or -(-size // PARTITION_BYTES))
    scattered, used = scatter(engine, store, sources, view, partitions, name)
    keys = [key_of("gather", facts, scattered.digest, p) for p in range(partitions)]
    gather = [_Gather(store, key, reduce, scattered, p) for p, key in enumerate(keys)]
    summaries = finish(engine, _gather, gather)
    notes: dict[str, int] = {}
    for summary in summaries:
        _join_notes(notes, summary["notes"])
    found = [Part(summary["rows"], key) for key, summary in zip(keys, summaries, strict=True)]
    return Exchanged(found, [*used, *keys], notes)


@dataclass(frozen=True)
class Scattered:
    """The rows of many inputs, each cut into partitions: a list of work keys, itself in a work file."""

    digest: str
    partitions: int

    def tables(self, store: WorkStore, partition: int) -> Iterator[pa.Table]:
        """The rows of a partition, input by input."""
        for schema, blocks in self._blocks(store, partition):
            for block in blocks:
                yield pa.Table.from_batches([pa.ipc.read_record_batch(block, schema)])

    def _blocks(self, store: WorkStore, partition: int) -> Iterator[tuple[pa.Schema, list[pa.Buffer]]]:
        """Of each input that has rows their schema and the partition's blocks, memory-mapped."""
        keys = stored_list(store, self.digest)
        find = functools.partial(self._blocks_of, store, partition)
        if store.requests == 1:
            yield from filter(None, map(find, keys))
            return
        with ThreadPoolExecutor(store.requests) as threads:
            for start in range(0, len(keys), AHEAD):
                yield from filter(None, threads.map(find, keys[start : start + AHEAD]))

    def _blocks_of(self, store: WorkStore, partition: int, key: str) -> tuple[pa.Schema, list[pa.Buffer]] | None:
        for path in store.folder(key).glob("blocks.arrow"):  # there is none where the input had no rows
            table = parts.read(path)
            spans = list(zip(*(table[name].to_pylist() for name in ("start", "stop", "rows")), strict=True))
            if spans[-1][1] < BLOCK_BYTES * len(spans):
                _ = store.folder(key) / "rows.arrow"  # is fetched whole
            mine = [
                store.block(key, "rows.arrow", start, stop)
                for start, stop, rows in spans[partition :: self.partitions]
                if rows
            ]
            return pa.ipc.read_schema(pa.py_buffer(table.schema.metadata[b"rows"])), mine
        return None


def scatter(
    engine: Engine, store: WorkStore, sources: Sequence[Any], view: View, partitions: int, name: str
) -> tuple[Scattered, list[str]]:
    """(the sources' rows, those with key % partitions = p in partition p; the keys of the work files used)."""
    tag = key_of("exchange", name, partitions)
    tasks = [_Scatter(store, key_of("scatter", tag, source.digest), view, source, partitions) for source in sources]
    finish(engine, _scatter, tasks)
    keys = [task.key for task in tasks]
    listed = store_list(store, keys)
    return Scattered(listed, partitions), [*keys, listed]


def store_list(store: WorkStore, values: Sequence[Any]) -> str:
    """The work key of a list of JSON values: tasks carry the key where the list may be long."""
    key = key_of("list", values)
    if store.done(key) is None:
        with store.create(key) as (folder, summary):
            (folder / "list.json").write_text(json.dumps(values))
            summary["length"] = len(values)
    return key


@functools.lru_cache(maxsize=8)
def stored_list(store: WorkStore, key: str) -> list[Any]:
    """The inverse of `store_list`. Not to be changed: calls share it."""
    found: list[Any] = json.loads((store.folder(key) / "list.json").read_text())
    return found


def read_parts(store: WorkStore, found: Sequence[Part], schema: pa.Schema) -> pa.Table:
    """All rows of the parts in one table: where they are known to be few."""
    return pa.concat_tables([schema.empty_table(), *[table for part in found for table in part.tables(store)]])


def spread(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """A key for each id that differs where ids do and is even over any number of partitions: the first bytes of the product depend on all bits."""
    return (ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)).byteswap()


def block(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """`spread`, but the same for rows of one block."""
    return spread(ids >> BLOCK_BITS)


def power_of_two(count: int) -> int:
    """The least one that is not below: numbers of partitions, so that they seldom change when rows are added."""
    return 1 << max(0, count - 1).bit_length()


def content_digest(table: pa.Table | None) -> str:
    """A hash of the rows' content."""
    digest = xxhash.xxh3_128()
    if table is not None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        digest.update(sink.getvalue())
    return digest.hexdigest()


def coalesced(tables: Iterable[pa.Table], limit: int | None = None) -> Iterator[pa.Table]:
    """The same rows in tables that are not much smaller or larger than `limit` bytes (CHUNK_BYTES if None), each in one chunk."""
    limit = CHUNK_BYTES if limit is None else limit
    waiting: list[pa.Table] = []
    size = 0
    for table in tables:
        for piece in _pieces(table, limit):
            waiting.append(piece)
            size += piece.nbytes
            if size >= limit:
                yield pa.concat_tables(waiting).combine_chunks()
                waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _pieces(table: pa.Table, limit: int) -> Iterator[pa.Table]:
    rows = max(1, table.num_rows * limit // max(table.nbytes, 1))
    for start in range(0, table.num_rows, rows):
        yield table.slice(start, rows)


@dataclass(frozen=True)
class _Scatter:
    store: WorkStore
    key: str
    view: View
    source: Any
    partitions: int

    def __str__(self) -> str:
        return f"exchange: rows of {self.source}"


@dataclass(frozen=True)
class _Gather:
    store: WorkStore
    key: str
    reduce: Reduce
    scattered: Scattered
    partition: int

    def __str__(self) -> str:
        return f"exchange: partition {self.partition}"


def _scatter(task: _Scatter) -> dict[str, Any]:
    """Writes rows.arrow: of each table of the view a batch for every partition, in order; and blocks.arrow: where each batch is."""
    rows = 0
    blocks: list[tuple[int, int, int]] = []
    with task.store.create(task.key) as (folder, summary), contextlib.ExitStack() as stack:
        writer = None
        for table in coalesced(task.view(task.store, task.source)):
            if writer is None:
                sink = stack.enter_context(pa.OSFile(str(folder / "rows.arrow"), "wb"))
                writer = stack.enter_context(pa.ipc.new_file(sink, table.schema, options=parts.LZ4))
                schema = table.schema
                writer.write_batch(pa.RecordBatch.from_pylist([], schema))  # the file's head comes with its first batch
            place = table["key"].to_numpy() % np.uint64(task.partitions)
            small = place.astype(np.min_scalar_type(task.partitions))  # of two bytes at most it is sorted in one pass
            order = np.argsort(small, kind="stable")
            cuts = np.searchsorted(small[order], np.arange(task.partitions + 1))
            batch = table.take(pa.array(order)).combine_chunks().to_batches()[0]
            for start, stop in itertools.pairwise(cuts.tolist()):
                before = sink.tell()
                writer.write_batch(batch.slice(start, stop - start))
                blocks.append((before, sink.tell(), stop - start))
            rows += table.num_rows
        if blocks:
            found = pa.table(list(zip(*blocks, strict=True)), names=["start", "stop", "rows"])
            metadata = {"rows": schema.serialize().to_pybytes()}
            parts.write(folder / "blocks.arrow", found.replace_schema_metadata(metadata))
        summary["rows"] = rows
    return summary


def _gather(task: _Gather) -> dict[str, Any]:
    chunks = Chunks(task.store, lambda: task.scattered.tables(task.store, task.partition))
    with task.store.create(task.key) as (folder, summary):
        with parts.PartWriter(folder, "result", parts.PLAIN) as writer:
            summary["rows"] = sum(_written(writer, table) for table in task.reduce(chunks))
        summary["notes"] = chunks.notes
    return summary


def _written(writer: parts.PartWriter, table: pa.Table) -> int:
    if table.num_rows:
        writer.write(table)
    return int(table.num_rows)


def _reduced_here(store: WorkStore, chunks: Chunks, reduce: Reduce, key: Callable[[], str]) -> Exchanged:
    """The result, held while it is small and written to a work file once it isn't."""
    found: list[pa.Table] = []
    tables = iter(reduce(chunks))
    for table in tables:
        found.append(table)
        if sum(part.nbytes for part in found) > DRIVER_BYTES:
            name = key()
            done = store.done(name)
            if done is None:
                with store.create(name) as (folder, done):
                    with parts.PartWriter(folder, "result", parts.PLAIN) as writer:
                        done["rows"] = sum(_written(writer, table) for table in itertools.chain(found, tables))
                    done["notes"] = chunks.notes
            return Exchanged([Part(done["rows"], name)], [name], done["notes"])
    held = [table for table in found if table.num_rows]
    whole = [Part(sum(table.num_rows for table in held), held=pa.concat_tables(held).combine_chunks())] if held else []
    return Exchanged(whole, [], chunks.notes)


def _join_notes(notes: dict[str, int], facts: dict[str, int]) -> None:
    for name, value in facts.items():
        before = notes.get(name, 0)
        notes[name] = max(before, value) if name.startswith("largest") else before + value
