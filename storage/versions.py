"""Versions of a dataset: found, read, published. The manifest's file is the commit: it is made only if no other run made it first."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from gristmill import __version__
from gristmill.errors import CommitConflictError, DatasetNotFoundError, capped
from gristmill.kernels.digests import fingerprint
from gristmill.storage.folder import Folder
from gristmill.storage.manifest import FILES, PART_FILES, FileEntry, FileList, Manifest
from gristmill.storage.parquet import read_table, table_bytes

_NAME = re.compile(r"^manifests/v(\d{8})\.json$")


@dataclass(frozen=True)
class Published:
    """manifest: of the version that holds the result. published: False where the newest version held it already."""

    manifest: Manifest
    published: bool


def version_numbers(folder: Folder) -> list[int]:
    """The versions that exist, oldest first."""
    return sorted(int(match[1]) for path, *_ in folder.list("manifests") if (match := _NAME.match(path)))


def newest_version(folder: Folder) -> int | None:
    """The newest version, or None."""
    numbers = version_numbers(folder)
    return numbers[-1] if numbers else None


def manifest_path(version: int) -> str:
    """Where a version's manifest is."""
    return f"manifests/v{version:08d}.json"


def read_manifest(folder: Folder, version: int) -> Manifest:
    """The version's manifest.

    Raises:
        DatasetNotFoundError: no such version; the error lists those that exist.
    """
    try:
        return Manifest.from_json(folder.read_bytes(manifest_path(version)), folder.url(manifest_path(version)))
    except FileNotFoundError:
        numbers = version_numbers(folder)
        known = f"versions: {capped(reversed(numbers))}" if numbers else "it has no version yet"
        raise DatasetNotFoundError(f"'{folder.base}' has no version {version}; {known}", version=version) from None


def read_files(folder: Folder, manifest: Manifest) -> FileList:
    """The version's files, in order."""
    tables = [read_table(folder, part["path"]) for part in manifest.parts]
    return FileList(pa.concat_tables(tables).cast(FILES) if tables else FILES.empty_table())


def publish(
    folder: Folder,
    files: FileList | Sequence[FileEntry],
    schema: pa.Schema,
    *,
    expected_parent: int | None,
    pipeline: Mapping[str, Any] | None = None,
    engine: str | None = None,
    counts: Mapping[str, int] | None = None,
    gate: Sequence[str] = (),
    ledger: str | None = None,
    splits: Iterable[str] = (),
) -> Published:
    """Makes the files the newest version, unless the newest version holds the same content in the same layout already.

    `expected_parent` is the newest version that the caller built on (None: there was none). `splits` names all splits, also those without rows.

    Raises:
        CommitConflictError: another run has published since; nothing of this one is visible.
    """
    entries = files if isinstance(files, FileList) else FileList.of(files)
    found = newest_version(folder)
    if found != expected_parent:
        raise _conflict(folder, found, expected_parent)
    content = fingerprint(schema, entries.row_sum, entries.num_rows)
    if found is not None:
        newest = read_manifest(folder, found)
        if (newest.fingerprint, newest.layout, list(newest.gate)) == (content, entries.layout, list(gate)) and newest.schema.equals(schema):
            return Published(newest, published=False)
    manifest = Manifest(
        version=(found or 0) + 1,
        parent=found,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        schema=schema.remove_metadata(),
        num_rows=entries.num_rows,
        splits={**dict.fromkeys(splits, 0), **entries.splits()},
        fingerprint=content,
        layout=entries.layout,
        parts=_write_parts(folder, entries),
        gate=list(gate),
        pipeline=pipeline,
        engine=engine,
        code_version=__version__,
        counts=dict(counts or {}),
        ledger=ledger,
    )
    commit(folder, manifest)
    return Published(manifest, published=True)


def commit(folder: Folder, manifest: Manifest) -> None:
    """Makes the manifest's file: the moment at which the version exists.

    Raises:
        CommitConflictError: the version exists.
    """
    try:
        folder.create(manifest_path(manifest.version), manifest.to_json())
    except FileExistsError:
        raise _conflict(folder, manifest.version, manifest.parent) from None


def republish(folder: Folder, old: Manifest, expected_parent: int) -> Manifest:
    """A new version with the file list of an old one."""
    created = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    manifest = replace(old, version=expected_parent + 1, parent=expected_parent, created=created, code_version=__version__)
    commit(folder, manifest)
    return manifest


def _conflict(folder: Folder, found: int | None, expected: int | None) -> CommitConflictError:
    winner = read_manifest(folder, found) if found is not None else None
    who = f"version {winner.version} was published at {winner.created}" if winner else "its versions are gone"
    return CommitConflictError(
        f"'{folder.base}' has changed while this run was at work: {who}, this run built on {f'version {expected}' if expected else 'an empty dataset'}. "
        "Nothing of this run is visible. Run the same command again: it reuses what is finished.",
        version=found,
    )


def _write_parts(folder: Folder, entries: FileList) -> list[dict[str, Any]]:
    parts = []
    for start in range(0, len(entries), PART_FILES):
        table = entries.table.slice(start, PART_FILES).combine_chunks()
        content = table_bytes(table)
        digest = hashlib.sha256(content).hexdigest()
        path = f"manifests/files/{digest[:20]}.parquet"
        if not folder.exists(path):
            folder.write_atomic(path, content)
        parts.append({"path": path, "sha256": digest, "files": table.num_rows})
    return parts
