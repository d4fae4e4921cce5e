"""The ledger: beside each version, why every row that was read is or isn't in it. Written by item, read by uid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.kernels.hashing import hash_text, hex_digests
from gristmill.pipelines import parts
from gristmill.pipelines.output import check_mounted
from gristmill.pipelines.published import shard_paths
from gristmill.pipelines.slices import NOTED, STEPPED, noted, read_slice
from gristmill.pipelines.sources import format_positions
from gristmill.pipelines.work import WorkStore
from gristmill.storage.folder import Folder
from gristmill.storage.parquet import write_table

DECISIONS = pa.schema(
    [
        ("uid", pa.large_string()),
        ("source", pa.string()),
        ("position", pa.string()),
        ("step", pa.string()),
        ("action", pa.string()),
        ("rule", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("other_uid", pa.large_string()),
        ("similarity", pa.float64()),
        ("other_version", pa.int64()),  # where `other_uid` was published before: the version that the run appended to,
        ("other_shard", pa.string()),  # and the row's shard in it
    ]
)
ORIGINS = pa.schema([("uid", pa.large_string()), ("source", pa.string()), ("position", pa.string())])
QUARANTINE = pa.schema(
    [
        ("uid", pa.large_string()),
        ("source", pa.string()),
        ("position", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("raw", pa.large_binary()),
        ("raw_bytes", pa.int64()),
    ]
)


@dataclass(frozen=True)
class ItemLedger:
    """What became of one item's rows: the keys of everything that decided about them, in order."""

    store: WorkStore
    key: str
    folder: Folder
    base: str  # ledger folder in the dataset
    number: int
    source: str
    ingested: str
    identity: tuple[str, ...]  # slices of repeated rows and ids
    stages: tuple[str, ...]
    last: tuple[str, ...]  # slices that no stage has applied
    appended: int | None = None  # the version that the run appends to

    def __str__(self) -> str:
        return f"ledger of item {self.number}"


def write_ledger(task: ItemLedger) -> dict[str, Any]:
    """Writes origin-N.parquet, decisions-N.parquet and, where records could not be read, quarantine-N.parquet."""
    check_mounted(task.folder)
    origin = _origin(task)
    found = [
        _bad_decisions(task),
        _lost(task),
        _identity_decisions(task, origin),
        _positioned(_stage_decisions(task), origin),
    ]
    for key in task.identity:
        origin = _renamed(origin, read_slice(task.store.folder(key)))
    source = pa.repeat(pa.scalar(task.source), sum(table.num_rows for table in found))
    decided = (
        _sharded(task, pa.concat_tables(found).append_column("source", source)).select(DECISIONS.names).cast(DECISIONS)
    )
    named = (
        origin.append_column("source", pa.repeat(pa.scalar(task.source), origin.num_rows))
        .select(ORIGINS.names)
        .cast(ORIGINS)
    )
    write_table(task.folder, f"{task.base}/origin-{task.number:06d}.parquet", named)
    write_table(task.folder, f"{task.base}/decisions-{task.number:06d}.parquet", decided)
    bad = _bad(task)
    if bad.num_rows:
        write_table(task.folder, f"{task.base}/quarantine-{task.number:06d}.parquet", bad)
    with task.store.create(task.key) as (_, summary):
        summary["decisions"] = decided.num_rows
    return summary


_POSITIONED = pa.schema([*NOTED, pa.field("position", pa.string())])


def _sharded(task: ItemLedger, found: pa.Table) -> pa.Table:
    """The decisions with version and path of the shards that hold the other rows, in place of numbers."""
    numbers = found["other_shard"]
    paths, version = pa.nulls(len(numbers), pa.string()), pa.nulls(len(numbers), pa.int64())
    if task.appended is not None and numbers.null_count < len(numbers):
        paths = shard_paths(task.folder, task.appended).take(numbers)
        version = pc.if_else(pc.is_valid(numbers), pa.scalar(task.appended, pa.int64()), None)
    return (
        found.drop_columns(["other_shard"]).append_column("other_version", version).append_column("other_shard", paths)
    )


def _origin(task: ItemLedger) -> pa.Table:
    """uid, position: row for row as the item was ingested."""
    found = list(parts.batches(task.store.folder(task.ingested), "origin"))
    if not found:
        return pa.schema([("uid", pa.large_string()), ("position", pa.string())]).empty_table()
    tables = [pa.table({"uid": table["uid"], "position": format_positions(table["position"])}) for table in found]
    return pa.concat_tables(tables).combine_chunks()


def _renamed(origin: pa.Table, content: pa.Table) -> pa.Table:
    renamed = content.filter(pc.is_valid(content["new_uid"]))
    if not renamed.num_rows:
        return origin
    mask = np.zeros(origin.num_rows, bool)
    mask[renamed["row"].to_numpy()] = True
    uids = pc.replace_with_mask(origin["uid"].combine_chunks(), pa.array(mask), renamed["new_uid"].combine_chunks())
    return origin.set_column(0, "uid", uids)


def _identity_decisions(task: ItemLedger, origin: pa.Table) -> pa.Table:
    """Dropped and quarantined repeats, whose rows have positions of their own though they share a uid."""
    found = []
    for key in task.identity:
        content = read_slice(task.store.folder(key))
        leaving = content.filter(pc.is_null(content["new_uid"]))
        found.append(leaving.select(NOTED.names).append_column("position", origin["position"].take(leaving["row"])))
    return pa.concat_tables([_POSITIONED.empty_table(), *[table.cast(_POSITIONED) for table in found]])


def _stage_decisions(task: ItemLedger) -> pa.Table:
    found = [table for key in task.stages for table in parts.batches(task.store.folder(key), "decisions")]
    found += [read_slice(task.store.folder(key)) for key in task.last]
    every = pa.concat_tables([NOTED.empty_table(), *[table.select(NOTED.names).cast(NOTED) for table in found]])
    return every.filter(pc.not_equal(every["step"], "id"))


def _positioned(found: pa.Table, origin: pa.Table) -> pa.Table:
    """Rows that were made have the position of the row they were made from."""
    uids = origin["uid"].combine_chunks()
    own = pc.index_in(found["uid"], value_set=uids)
    place = pc.coalesce(own, pc.index_in(found["other_uid"], value_set=uids))
    return found.append_column("position", origin["position"].take(place))


def _lost(task: ItemLedger) -> pa.Table:
    found = []
    for table in parts.batches(task.store.folder(task.ingested), "lost"):
        text = format_positions(table["position"])
        found.append(noted(table.select(STEPPED.names)).append_column("position", text).cast(_POSITIONED))
    return pa.concat_tables([_POSITIONED.empty_table(), *found])


def _bad(task: ItemLedger) -> pa.Table:
    found = []
    for table in parts.batches(task.store.folder(task.ingested), "bad"):
        uid = hex_digests(hash_text(table["raw"]))
        source = pa.repeat(pa.scalar(task.source), table.num_rows)
        found.append(
            table.append_column("uid", uid).append_column("source", source).select(QUARANTINE.names).cast(QUARANTINE)
        )
    return pa.concat_tables([QUARANTINE.empty_table(), *found])


def _bad_decisions(task: ItemLedger) -> pa.Table:
    bad = _bad(task)
    n = bad.num_rows
    empty = {name: pa.nulls(n, STEPPED.field(name).type) for name in ("value", "threshold", "other_uid", "similarity")}
    return pa.table(
        {
            "uid": bad["uid"],
            "action": ["quarantine"] * n,
            "rule": bad["reason"],
            **empty,
            "step": ["ingest"] * n,
            "other_shard": pa.nulls(n, pa.int64()),
            "position": bad["position"],
        },
        schema=_POSITIONED,
    )
