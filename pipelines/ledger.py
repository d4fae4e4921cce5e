"""The ledger: beside each version, why every row that was read is or isn't in it. Written by item, some to a file; read by uid."""

from __future__ import annotations

import contextlib
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
from gristmill.storage.parquet import table_writer

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


ITEMS = 8  # whose ledgers share a file, each in a row group: few files, and no more memory than that of one


@dataclass(frozen=True)
class ItemLedger:
    """What became of one item's rows: the keys of everything that decided about them, in order."""

    source: str
    ingested: str
    identity: tuple[str, ...]  # slices of repeated rows and ids
    stages: tuple[str, ...]
    last: tuple[str, ...]  # slices that no stage has applied


@dataclass(frozen=True)
class Ledger:
    """The ledger of some items. `content` is the key of what is in the files, `key` that of these files here."""

    store: WorkStore
    key: str
    content: str
    folder: Folder
    base: str  # ledger folder in the dataset
    number: int  # of the first item
    items: tuple[ItemLedger, ...]
    appended: int | None = None  # the version that the run appends to

    def path(self, kind: str) -> str:
        """Where its origin, decisions or quarantine are, in the dataset."""
        return _path(self.base, kind, self.number)

    def __str__(self) -> str:
        return f"ledger of items {self.number} to {self.number + len(self.items) - 1}"


def _path(base: str, kind: str, number: int) -> str:
    return f"{base}/{kind}-{number:06d}.parquet"


def write_ledger(task: Ledger) -> dict[str, Any]:
    """Writes origin-N.parquet, decisions-N.parquet and, where records could not be read, quarantine-N.parquet.

    What an earlier run has written of the same items is linked.
    """
    check_mounted(task.folder)
    found = task.store.done(task.content)
    if found is not None and not _linked(task, found):
        task.store.forget(task.content)
        found = None
    if found is None:
        with task.store.create(task.content) as (_, written):
            written.update(base=task.base, number=task.number, kinds=_write(task))
    with task.store.create(task.key) as (_, summary):
        return summary


def _linked(task: Ledger, found: dict[str, Any]) -> bool:
    """Whether the files that were written before are still there, and now here too."""
    try:
        for kind in found["kinds"]:
            task.folder.link(_path(found["base"], kind, found["number"]), task.path(kind))
    except FileNotFoundError:
        return False
    return True


def _write(task: Ledger) -> list[str]:
    """The kinds of files that there are."""
    with contextlib.ExitStack() as stack:
        origins, decided = (
            stack.enter_context(table_writer(task.folder, task.path(kind), schema))
            for kind, schema in (("origin", ORIGINS), ("decisions", DECISIONS))
        )
        quarantined = None
        for item in task.items:
            origin, found, bad = _ledger_of(task, item)
            origins.write_table(origin)
            decided.write_table(found)
            if bad.num_rows:
                quarantined = quarantined or stack.enter_context(
                    table_writer(task.folder, task.path("quarantine"), QUARANTINE)
                )
                quarantined.write_table(bad)
    return ["origin", "decisions", *(["quarantine"] if quarantined else [])]


def _ledger_of(task: Ledger, item: ItemLedger) -> tuple[pa.Table, pa.Table, pa.Table]:
    """An item's ORIGINS, DECISIONS and QUARANTINE."""
    origin, bad = _origin(task.store, item), _bad(task.store, item)
    found = [
        _bad_decisions(bad),
        _lost(task.store, item),
        _identity_decisions(task.store, item, origin),
        _positioned(_stage_decisions(task.store, item), origin),
    ]
    for key in item.identity:
        origin = _renamed(origin, read_slice(task.store.folder(key)))
    decided = _sharded(task, pa.concat_tables(found))
    return _sourced(origin, item, ORIGINS), _sourced(decided, item, DECISIONS), bad


def _sourced(table: pa.Table, item: ItemLedger, schema: pa.Schema) -> pa.Table:
    source = pa.repeat(pa.scalar(item.source), table.num_rows)
    return table.append_column("source", source).select(schema.names).cast(schema)


_POSITIONED = pa.schema([*NOTED, pa.field("position", pa.string())])


def _sharded(task: Ledger, found: pa.Table) -> pa.Table:
    """The decisions with version and path of the shards that hold the other rows, in place of numbers."""
    numbers = found["other_shard"]
    paths, version = pa.nulls(len(numbers), pa.string()), pa.nulls(len(numbers), pa.int64())
    if task.appended is not None and numbers.null_count < len(numbers):
        paths = shard_paths(task.folder, task.appended).take(numbers)
        version = pc.if_else(pc.is_valid(numbers), pa.scalar(task.appended, pa.int64()), None)
    return (
        found.drop_columns(["other_shard"]).append_column("other_version", version).append_column("other_shard", paths)
    )


def _origin(store: WorkStore, item: ItemLedger) -> pa.Table:
    """uid, position: row for row as the item was ingested."""
    found = list(parts.batches(store.folder(item.ingested), "origin"))
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


def _identity_decisions(store: WorkStore, item: ItemLedger, origin: pa.Table) -> pa.Table:
    """Dropped and quarantined repeats, whose rows have positions of their own though they share a uid."""
    found = []
    for key in item.identity:
        content = read_slice(store.folder(key))
        leaving = content.filter(pc.is_null(content["new_uid"]))
        found.append(leaving.select(NOTED.names).append_column("position", origin["position"].take(leaving["row"])))
    return pa.concat_tables([_POSITIONED.empty_table(), *[table.cast(_POSITIONED) for table in found]])


def _stage_decisions(store: WorkStore, item: ItemLedger) -> pa.Table:
    found = [parts.read(path) for key in item.stages for path in parts.paths(store.folder(key), "decisions")]
    found += [read_slice(store.folder(key)) for key in item.last]
    every = pa.concat_tables([NOTED.empty_table(), *[table.select(NOTED.names).cast(NOTED) for table in found]])
    return every.filter(pc.not_equal(every["step"], "id"))


def _positioned(found: pa.Table, origin: pa.Table) -> pa.Table:
    """Rows that were made have the position of the row they were made from."""
    uids = origin["uid"].combine_chunks()
    own = pc.index_in(found["uid"], value_set=uids)
    place = pc.coalesce(own, pc.index_in(found["other_uid"], value_set=uids))
    return found.append_column("position", origin["position"].take(place))


def _lost(store: WorkStore, item: ItemLedger) -> pa.Table:
    found = []
    for table in parts.batches(store.folder(item.ingested), "lost"):
        text = format_positions(table["position"])
        found.append(noted(table.select(STEPPED.names)).append_column("position", text).cast(_POSITIONED))
    return pa.concat_tables([_POSITIONED.empty_table(), *found])


def _bad(store: WorkStore, item: ItemLedger) -> pa.Table:
    found = []
    for table in parts.batches(store.folder(item.ingested), "bad"):
        uid = hex_digests(hash_text(table["raw"]))
        source = pa.repeat(pa.scalar(item.source), table.num_rows)
        found.append(
            table.append_column("uid", uid).append_column("source", source).select(QUARANTINE.names).cast(QUARANTINE)
        )
    return pa.concat_tables([QUARANTINE.empty_table(), *found])


def _bad_decisions(bad: pa.Table) -> pa.Table:
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
