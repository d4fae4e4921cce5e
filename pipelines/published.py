"""What a run that appends compares its rows with: each shard of the newest version is a work item too, read once and never changed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.errors import SchemaMismatchError
from gristmill.kernels.hashing import hash_text
from gristmill.pipelines import parts
from gristmill.pipelines.extracts import PUBLISHED, ExactHash, Extract, ExtractOf, GroupKey, Sketch
from gristmill.pipelines.sources.schemas import common_type
from gristmill.pipelines.steps.dedupe import DropExactDuplicates
from gristmill.pipelines.work import WorkStore, key_of
from gristmill.storage.folder import Folder
from gristmill.storage.manifest import FileList, Manifest
from gristmill.storage.parquet import open_parquet
from gristmill.storage.tombstones import base_uids
from gristmill.storage.versions import read_files, read_manifest

EXTRACT = "extract-0"
FIRST = -1  # the rank of published rows: before those of every source


@dataclass(frozen=True)
class UidKey:
    """row, uid, name, key: the name of each row without and with its copy number, and what equal ones share."""

    by_id: bool

    def identity(self) -> list[object]:
        """See `ExactHash.identity`."""
        return ["uid", self.by_id]

    def of(self, table: pa.Table, start: int) -> pa.Table:
        """See `ExactHash.of`."""
        names = table["_uid"].cast(pa.large_string())
        uids = base_uids(names, by_id=self.by_id)
        rows = np.arange(start, start + len(names))
        return pa.table({"row": rows, "uid": uids, "name": names, "key": hash_text(uids)[:, 1]})


@dataclass(frozen=True)
class ReadShard:
    """One shard, of which an extract is taken. Its work is named by the shard's content, so that every later run finds it."""

    store: WorkStore
    key: str
    folder: Folder
    path: str
    extract: Extract | UidKey

    def __str__(self) -> str:
        return f"published shard {self.path}"


def read_shard(task: ReadShard) -> dict[str, Any]:
    """Writes the extract of a shard's rows, a row group at a time."""
    rows = 0
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
                rows += table.num_rows
        summary.update(rows=rows, rows_out=rows)
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

    def tasks(self, store: WorkStore, extracts: Sequence[Extract | UidKey]) -> list[ReadShard]:
        """What there is to be read of every shard, once."""
        found = {}
        for extract in map(bare, extracts):
            for path, key in zip(self.files.table["path"].to_pylist(), self._keys(extract), strict=True):
                found[key] = ReadShard(store, key, self.folder, path, extract)
        return list(found.values())

    def sources(self, extract: Extract | UidKey) -> list[ExtractOf]:
        """The extract of every shard, as the extracts of work items are: their numbers begin at PUBLISHED."""
        keys = self._keys(bare(extract))
        return [ExtractOf(PUBLISHED + number, key, EXTRACT, ()) for number, key in enumerate(keys)]

    def _keys(self, extract: Extract | UidKey) -> list[str]:
        return [key_of("published", digest, extract.identity()) for digest in self.files.table["sha256"].to_pylist()]


def read_base(folder: Folder, version: int, *, by_id: bool) -> Base:
    """The version, with its file list."""
    manifest = read_manifest(folder, version)
    return Base(folder, manifest, read_files(folder, manifest), by_id)


@functools.lru_cache(maxsize=2)
def shard_paths(folder: Folder, version: int) -> pa.Array:
    """The paths of a version's shards, by their number."""
    return read_files(folder, read_manifest(folder, version)).table["path"].combine_chunks()


def bare(extract: Extract | UidKey) -> Extract | UidKey:
    """The extract without what only orders new rows: published rows come first whatever their source and quality."""
    if isinstance(extract, ExactHash):
        return ExactHash(DropExactDuplicates(column=extract.step.column))
    if isinstance(extract, Sketch):
        return Sketch(extract.column, extract.shingle, extract.permutations)
    return extract


def _columns(extract: Extract | UidKey) -> list[str]:
    if isinstance(extract, ExactHash):
        return [extract.step.column]
    return [extract.column] if isinstance(extract, Sketch | GroupKey) else []


def fitted(manifest: Manifest, new: pa.Schema) -> pa.Schema:
    """The schema of the published shards, if rows with the new one can be cast to it: missing columns are null, null gives way, integers become floats.

    Raises:
        SchemaMismatchError: they can't, for published shards are never written anew; names the column.
    """
    old = manifest.schema
    for field in new:
        if field.name not in old.names:
            what = f"is {field.type} in the new rows and isn't in version {manifest.version} (columns: {', '.join(old.names)})"
        else:
            kind = old.field(field.name).type
            if common_type(kind, field.type) == kind:
                continue
            what = f"is {kind} in version {manifest.version} and {field.type} in the new rows"
        raise SchemaMismatchError(
            f"output.mode append: column '{field.name}' {what}. Published shards are never written anew: bring the new rows to the version's columns "
            f"with select_columns, rename_columns or cast, or make the whole version anew with output.mode replace.",
            column=field.name,
        )
    return old
