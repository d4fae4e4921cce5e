"""What a run that appends compares its rows with: each shard of the newest version is a work item too, read once and never changed."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import SchemaMismatchError
from gristmill.pipelines import parts
from gristmill.pipelines.duplicates import routed
from gristmill.pipelines.exchange import Chunks
from gristmill.pipelines.extracts import PUBLISHED, ExactHash, Extract, ExtractOf, Sketch, UidKey
from gristmill.pipelines.grouped import among, repeated
from gristmill.pipelines.sources.schemas import common_type
from gristmill.pipelines.steps.dedupe import DropExactDuplicates
from gristmill.pipelines.work import WorkStore, key_of
from gristmill.storage.folder import Folder
from gristmill.storage.manifest import FileList, Manifest
from gristmill.storage.parquet import open_parquet
from gristmill.storage.versions import read_files, read_manifest

EXTRACT = "extract-0"
FIRST = -1  # the rank of published rows: before those of every source


@dataclass(frozen=True)
class ReadShard:
    """One shard, of which an extract is taken. Its work is named by the shard's content, so that every later run finds it."""

    store: WorkStore
    key: str
    folder: Folder
    path: str
    extract: Extract

    def __str__(self) -> str:
        return f"published shard {self.path}"


def read_shard(task: ReadShard) -> dict[str, Any]:
    """Writes the extract of a shard's rows, a row group at a time."""
    rows = size = 0
    columns = ["_uid", *_columns(task.extract)]
    with task.store.create(task.key) as (folder, summary), open_parquet(task.folder, task.path) as file:
        with parts.PartWriter(folder, EXTRACT, parts.PLAIN) as out:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=columns)
                found = task.extract.of(table, rows)
                if "rank" in found.column_names:
                    rank = pa.repeat(pa.scalar(FIRST, pa.int32()), found.num_rows)
                    found = found.set_column(found.column_names.index("rank"), "rank", rank)
                out.write(found.combine_chunks())
                size += found.nbytes
                rows += table.num_rows
        summary.update(rows=rows, rows_out=rows, extract_bytes={EXTRACT: size})
    return summary


@dataclass(frozen=True)
class Base:
    """The version that a run appends to."""

    folder: Folder
    manifest: Manifest
    files: FileList
    by_id: bool

    @property
    def splits(self) -> list[str]:
        """The names of its splits."""
        return list(self.manifest.splits)

    @property
    def uids(self) -> UidKey:
        """The extract that tells which rows are published."""
        return UidKey(self.by_id)

    def tasks(self, store: WorkStore, extracts: Sequence[Extract]) -> list[ReadShard]:
        """What there is to be read of every shard, once."""
        found = {}
        for extract in map(bare, extracts):
            for path, key in zip(self.files.table["path"].to_pylist(), self._keys(extract), strict=True):
                found[key] = ReadShard(store, key, self.folder, path, extract)
        return list(found.values())

    def sources(self, extract: Extract) -> list[ExtractOf]:
        """The extract of every shard, as the extracts of work items are: their numbers begin at PUBLISHED."""
        keys = self._keys(bare(extract))
        return [ExtractOf(PUBLISHED + number, key, EXTRACT, ()) for number, key in enumerate(keys)]

    def account(self, counts: Mapping[str, int]) -> dict[str, Any]:
        """counts and earlier_ledgers of the version that a run with these counts makes: of all runs that its rows came from, added up."""
        before = self.manifest.counts
        total = {name: count + before.get(name, 0) for name, count in counts.items()}
        return {"counts": total, "earlier_ledgers": self.manifest.ledgers}

    def outlook(self, store: WorkStore, extracts: Sequence[Extract]) -> dict[str, Any]:
        """What a run is going to do with the version: its rows and shards stay; `read`: the shards that no run has read for these extracts."""
        tasks = self.tasks(store, [self.uids, *extracts])
        done = store.summaries([task.key for task in tasks])
        left = {task.path for task, summary in zip(tasks, done, strict=True) if summary is None}
        sizes = zip(self.files.table["path"].to_pylist(), self.files.table["bytes"].to_pylist(), strict=True)
        return {
            "version": self.manifest.version,
            "rows": self.files.num_rows,
            "shards": len(self.files),
            "read": len(left),
            "read_bytes": sum(size for path, size in sizes if path in left),
        }

    def _keys(self, extract: Extract) -> list[str]:
        return [key_of("published", digest, extract.identity()) for digest in self.files.table["sha256"].to_pylist()]


def read_base(folder: Folder, version: int, *, by_id: bool) -> Base:
    """The version, with its file list."""
    manifest = read_manifest(folder, version)
    return Base(folder, manifest, read_files(folder, manifest), by_id)


def uid_view(store: WorkStore, source: ExtractOf) -> Iterator[pa.Table]:
    """item, row, uid, name, key: of rows that stay."""
    return source.tables(store, ["row", "uid", "name", "key"])


def already_published(chunks: Chunks) -> Iterator[pa.Table]:
    """Drop decisions (ROUTED) for new rows that have the name of a published one. Holds the names of the published rows whose uids come again."""
    keys, _ = repeated(chunks)
    some = Chunks(chunks.store, lambda: (among(table, keys) for table in chunks))
    there = [table.filter(pc.greater_equal(table["item"], PUBLISHED)).select(["name", "item"]) for table in some]
    for table in some:
        published = pa.concat_tables(there)
        new = table.filter(pc.less(table["item"], PUBLISHED))
        place = pc.index_in(new["name"], value_set=published["name"].combine_chunks())
        rows = new.filter(pc.is_valid(place)).select(["item", "row", "name"]).rename_columns(["item", "row", "uid"])
        others = published.take(place.drop_null()).select(["item", "name"]).rename_columns(["item", "uid"])
        yield routed(rows, "already_published", others, None, None)


@functools.lru_cache(maxsize=2)
def shard_paths(folder: Folder, version: int) -> pa.Array:
    """The paths of a version's shards, by their number."""
    return read_files(folder, read_manifest(folder, version)).table["path"].combine_chunks()


def bare(extract: Extract) -> Extract:
    """The extract without what only orders new rows: published rows come first whatever their source and quality."""
    if isinstance(extract, ExactHash):
        return ExactHash(DropExactDuplicates(column=extract.step.column))
    if isinstance(extract, Sketch):
        return Sketch(extract.column, extract.shingle, extract.permutations)
    return extract


def _columns(extract: Extract) -> list[str]:
    if isinstance(extract, ExactHash):
        return [extract.step.column]
    return [] if isinstance(extract, UidKey) else [extract.column]


def fitted(base: Base, new: pa.Schema) -> pa.Schema:
    """The schema of the published shards, if rows with the new one can be cast to it: missing columns are null, null gives way, integers become floats.

    Where there are no shards it is the new one.

    Raises:
        SchemaMismatchError: they can't, for published shards are never written anew; names the column.
    """
    old, version = base.manifest.schema, base.manifest.version
    if not len(base.files):
        return new
    for field in new:
        if field.name not in old.names:
            what = f"is {field.type} in the new rows and isn't in version {version} (columns: {', '.join(old.names)})"
        else:
            kind = old.field(field.name).type
            if common_type(kind, field.type) == kind:
                continue
            what = f"is {kind} in version {version} and {field.type} in the new rows"
        raise SchemaMismatchError(
            f"output.mode append: column '{field.name}' {what}. Published shards are never written anew: bring the new rows to the version's columns "
            f"with select_columns, rename_columns or cast, or make the whole version anew with output.mode replace.",
            column=field.name,
        )
    return old
