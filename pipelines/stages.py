"""The stages that a work item goes through: ingest, then segments of row steps, each ending with the slim extracts of the wide steps after it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import BalanceError
from gristmill.kernels.digests import row_digests
from gristmill.kernels.hashing import hex_digests
from gristmill.pipelines import decisions, parts
from gristmill.pipelines.extracts import Extract
from gristmill.pipelines.identity import identify
from gristmill.pipelines.slices import NOTED, STEPPED, Pending, noted
from gristmill.pipelines.sources import Chunk, Source, WorkItem, cast_table, read_item
from gristmill.pipelines.steps.base import RowStep
from gristmill.pipelines.work import WorkStore, key_of
from gristmill.storage.sizes import row_bytes
from gristmill.storage.tombstones import Tombstones

BATCH_BYTES = 1 << 18  # of the rows that shards are made of: batches without a kept row aren't decompressed
WHOLE = (
    1 << 30
)  # of those that a later stage goes through: a table is one batch. Their stage may be the last one of another pipeline
TOGETHER = 1 << 16  # decisions that are written at once


@dataclass(frozen=True)
class Ingest:
    """Read one item of a source: rows with identity, positions, bad records."""

    store: WorkStore
    key: str
    source: Source
    item: WorkItem
    id_column: str | None
    chunk_bytes: int
    erased: Tombstones

    def __str__(self) -> str:
        return f"ingest of {self.item}"


def ingest(task: Ingest) -> dict[str, Any]:
    """Writes rows-*, identity-*, origin-*, lost-* (null ids) and bad-* (records that could not be read) of the item."""
    rows = bad = nameless = erased = 0
    reasons: dict[str, int] = {}
    with task.store.create(task.key) as (folder, summary), contextlib.ExitStack() as stack:
        out = _Writers(stack, folder, ["rows", "identity", "origin", "lost", "bad"])
        for chunk in read_item(task.source, task.item, chunk_bytes=task.chunk_bytes):
            rows += chunk.table.num_rows
            table, slim, named = identify(chunk.table, task.id_column, task.source)
            if table.num_rows < len(named):
                out.write("lost", _lost(chunk, pc.invert(named)))
                nameless += len(named) - table.num_rows
            positions = chunk.positions.filter(named)
            if task.erased:
                table, slim, positions, gone = _without_erased(task.erased, table, slim, positions)
                out.write("lost", gone)
                erased += gone.num_rows
            out.write("rows", table)
            out.write("identity", slim)
            out.write(
                "origin", pa.table({"uid": slim["uid"].cast(pa.large_string()), "position": positions})
            )  # row for row as rows-*
            out.write("bad", chunk.bad)
            bad += chunk.bad.num_rows
            for reason in chunk.bad["reason"].to_pylist():
                reasons[reason] = reasons.get(reason, 0) + 1
        left = rows - nameless - erased
        summary.update(
            rows=rows, rows_out=left, null_ids=nameless, erased=erased, bad=bad, reasons=reasons, bytes=task.item.bytes
        )
        summary["schemas"] = store_schemas(task.store, out.schemas("rows"))
    return summary


def _without_erased(
    erased: Tombstones, table: pa.Table, slim: pa.Table, positions: pa.Array
) -> tuple[pa.Table, pa.Table, pa.Array, pa.Table]:
    """The rows that were not erased, and decisions about the others, under the marks that stand for their uids."""
    hit, names = erased.find(slim["uid"])
    stays = pc.invert(hit)
    gone = with_step(decisions.decide(names.filter(hit), "drop", "erased"), "erase").append_column(
        "position", positions.filter(hit)
    )
    return table.filter(stays), slim.filter(stays), positions.filter(stays), gone


def _lost(chunk: Chunk, null: pa.Array) -> pa.Table:
    """Quarantine decisions, with positions, for rows whose id is null; they are named by their content."""
    uids = hex_digests(row_digests(chunk.table.filter(null)))
    return with_step(decisions.decide(uids, "quarantine", "null_id"), "id").append_column(
        "position", chunk.positions.filter(null)
    )


@dataclass(frozen=True)
class Segment:
    """Apply what was decided, then row steps, then take extracts."""

    store: WorkStore
    key: str
    before: str  # the key of the stage whose rows come in
    slices: tuple[str, ...]
    schema: pa.Schema | None  # what the rows are cast to first
    steps: tuple[tuple[str, RowStep], ...]  # with the name that the ledger uses
    extracts: tuple[Extract, ...]
    label: str
    last: bool  # its rows go to the shards

    def __str__(self) -> str:
        return f"steps of {self.label}"


def segment(task: Segment) -> dict[str, Any]:
    """Writes rows-*, index-*, decisions-* and extract-N-* of the item."""
    counts: dict[str, Any] = {"rows": 0, "rows_out": 0, "bytes": 0, "steps": {}, "extract_bytes": {}}
    pending = Pending(task.store, task.slices)
    with task.store.create(task.key) as (folder, summary), contextlib.ExitStack() as stack:
        names = ["rows", "index", "decisions"]
        out = _Writers(stack, folder, names, batch_bytes=BATCH_BYTES if task.last else WHOLE)
        slim = [
            stack.enter_context(parts.PartWriter(folder, f"extract-{i}", parts.PLAIN))
            for i in range(len(task.extracts))
        ]
        for table in _input(task):
            counts["rows"] += table.num_rows
            kept, found = pending.apply(table)
            out.write("decisions", found)
            kept = kept if task.schema is None else cast_table(kept, task.schema)
            kept = _apply_steps(task, kept, out, counts)
            out.write("rows", kept)
            out.write("index", index_of(kept))
            for number, (extract, writer) in enumerate(zip(task.extracts, slim, strict=True)):
                found = extract.of(kept, counts["rows_out"]).combine_chunks()
                writer.write(found)
                counts["extract_bytes"][f"extract-{number}"] = (
                    counts["extract_bytes"].get(f"extract-{number}", 0) + found.nbytes
                )
            counts["rows_out"] += kept.num_rows
            counts["bytes"] += table.nbytes
        summary.update(counts, schemas=store_schemas(task.store, out.schemas("rows")))
    return summary


def _apply_steps(task: Segment, table: pa.Table, out: _Writers, counts: dict[str, Any]) -> pa.Table:
    for name, step in task.steps:
        after, found = step.apply(table)
        dropped, quarantined, created = check_balance(name, task.label, table.num_rows, after.num_rows, found)
        out.write("decisions", noted(with_step(found, name)))
        totals = counts["steps"].setdefault(name, {"dropped": 0, "quarantined": 0, "created": 0, "rules": {}})
        totals["dropped"] += dropped
        totals["quarantined"] += quarantined
        totals["created"] += created
        count_rules(totals["rules"], found)
        table = after
    return table


def _input(task: Segment) -> Iterator[pa.Table]:
    folder = task.store.folder(task.before)
    empty = True
    for table in parts.batches(folder, "rows"):
        empty = False
        yield table
    if empty:  # extracts and rows need a schema even where there are no rows
        yield from [
            schema.empty_table()
            for schema in ([identified(task.schema)] if task.schema is not None else parts.schemas(folder, "rows")[:1])
        ]


def identified(schema: pa.Schema) -> pa.Schema:
    """The schema with `_uid` and `_source`, if it lacks them."""
    for name in ("_uid", "_source"):
        if name not in schema.names:
            schema = schema.append(pa.field(name, pa.string()))
    return schema


def check_balance(step: str, label: str, before: int, after: int, found: pa.Table) -> tuple[int, int, int]:
    """(dropped, quarantined, created) rows of a step. Nothing vanishes: rows in + created = rows out + rows with a reason to leave.

    Raises:
        BalanceError: otherwise.
    """
    if not found.num_rows and before == after:
        return 0, 0, 0
    dropped, quarantined, created = (
        found["uid"].filter(pc.equal(found["action"], action)) for action in ("drop", "quarantine", "create")
    )
    aside = pc.count_distinct(quarantined).as_py()
    left = pc.count_distinct(pa.chunked_array([*dropped.chunks, *quarantined.chunks], pa.large_string())).as_py()
    if before + len(created) != after + left:
        raise BalanceError(
            f"step {step} on {label}: {before} rows in, {len(created)} created, but {after} out and {left} with a reason to leave; "
            "a step must give a decision for every row that it takes away",
            step=step,
        )
    return left - aside, aside, len(created)


def count_rules(totals: dict[str, int], found: pa.Table) -> None:
    """Adds the number of decisions of each rule."""
    for entry in pc.value_counts(found["rule"]).to_pylist():
        totals[entry["values"]] = totals.get(entry["values"], 0) + entry["counts"]


def with_step(found: pa.Table, step: str) -> pa.Table:
    """Decisions with the name of their step (STEPPED)."""
    return found.append_column(STEPPED.field("step"), pa.repeat(pa.scalar(step), found.num_rows))


def index_of(table: pa.Table) -> pa.Table:
    """uid, bytes: of each row, its name and its size in Arrow bytes, from which shards are packed."""
    return pa.table({"uid": table["_uid"].cast(pa.large_string()), "bytes": row_bytes(table)})


class _Writers:
    """One PartWriter a name; empty tables after the first of a file are not written, and decisions, of which steps have a few for each table, together."""

    def __init__(
        self, stack: contextlib.ExitStack, folder: Path, names: Sequence[str], *, batch_bytes: int | None = None
    ) -> None:
        self._writers = {
            name: stack.enter_context(
                parts.PartWriter(folder, name, batch_bytes=batch_bytes if name == "rows" else None)
            )
            for name in names
        }
        self._begun: set[str] = set()
        self._decided: list[pa.Table] = []
        stack.callback(self._write_decided)

    def write(self, name: str, table: pa.Table) -> None:
        if name == "decisions":
            self._decided.append(table.select(NOTED.names).cast(NOTED))
            if sum(found.num_rows for found in self._decided) >= TOGETHER:
                self._write_decided()
        elif table.num_rows or (name not in self._begun and name in ("rows", "index")):
            self._writers[name].write(table)
            self._begun.add(name)

    def _write_decided(self) -> None:
        found = pa.concat_tables([NOTED.empty_table(), *self._decided]).combine_chunks()
        self._decided.clear()
        if found.num_rows:
            self._writers["decisions"].write(found)

    def schemas(self, name: str) -> list[pa.Schema]:
        """Of what was written under the name, each once."""
        return self._writers[name].schemas


def store_schemas(store: WorkStore, schemas: Sequence[pa.Schema]) -> list[str]:
    """The work keys of the schemas: summaries carry them, so that the run's process looks into no item's rows."""
    keys = []
    for schema in schemas:
        key = key_of("schema", schema.serialize().to_pybytes())
        if store.done(key) is None:
            with store.create(key) as (folder, _):
                parts.write(folder / "schema.arrow", schema.empty_table())
        keys.append(key)
    return keys


def stored_schema(store: WorkStore, key: str) -> pa.Schema:
    """The inverse of `store_schemas`, of one."""
    return parts.read(store.folder(key) / "schema.arrow").schema
