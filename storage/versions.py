"""Versions of a dataset: found, read, published. The manifest's file is the commit: it is made only if no other run made it first."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
import socket
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from gristmill import __version__
from gristmill.errors import CommitConflictError, CorruptDatasetError, DatasetNotFoundError, RunError, capped
from gristmill.kernels.digests import fingerprint
from gristmill.storage.folder import THREADS, Folder
from gristmill.storage.manifest import FILES, PART_FILES, FileEntry, FileList, Manifest
from gristmill.storage.parquet import table_from_bytes, table_to_bytes

_NAME = re.compile(r"manifests/v(\d{8})\.(json|removed)")


@dataclass(frozen=True)
class Published:
    """manifest: of the version that holds the result. published: False where the newest version held it already."""

    manifest: Manifest
    published: bool


def version_numbers(folder: Folder) -> list[int]:
    """The versions that exist, oldest first. A removed version's manifest stays beside its mark, so that its number is never used again."""
    found = [match for path, *_ in folder.list("manifests", recursive=False) if (match := _NAME.fullmatch(path))]
    removed = {match[1] for match in found if match[2] == "removed"}
    return sorted(int(match[1]) for match in found if match[2] == "json" and match[1] not in removed)


def newest_version(folder: Folder) -> int | None:
    """The newest version, or None."""
    numbers = version_numbers(folder)
    return numbers[-1] if numbers else None


def manifest_path(version: int) -> str:
    """Where a version's manifest is."""
    return f"manifests/v{version:08d}.json"


def removed_path(version: int) -> str:
    """Where the mark of a removed version is."""
    return f"manifests/v{version:08d}.removed"


def read_manifest(folder: Folder, version: int) -> Manifest:
    """The version's manifest.

    Raises:
        DatasetNotFoundError: no such version; the error lists those that exist.
        DatasetError: written by a newer gristmill.
        CorruptDatasetError: not readable.
    """
    try:
        content = folder.read_bytes(manifest_path(version))
        try:
            mark = json.loads(folder.read_bytes(removed_path(version)))
        except FileNotFoundError:
            return Manifest.from_json(content, folder.url(manifest_path(version)))
        gone = f"version {version} was removed at {mark['removed']}"
    except FileNotFoundError:
        gone = f"no version {version}"
    numbers = version_numbers(folder)
    known = f"versions: {capped(reversed(numbers))}" if numbers else "it has no version yet"
    raise DatasetNotFoundError(f"'{folder.base}': {gone}; {known}", version=version) from None


def read_files(folder: Folder, manifest: Manifest) -> FileList:
    """The version's files, in order.

    Raises:
        CorruptDatasetError: a part of the list is missing or isn't what the manifest says.
    """
    if len(manifest.parts) == 1:  # which needs no threads, as most lists
        return FileList(read_part(folder, manifest.parts[0]))
    with ThreadPoolExecutor(THREADS) as threads:
        tables = list(threads.map(lambda part: read_part(folder, part), manifest.parts))
    return FileList(pa.concat_tables(tables) if tables else FILES.empty_table())


def read_part(folder: Folder, part: Mapping[str, Any]) -> pa.Table:
    """One part of a file list, checked."""
    where = folder.url(part["path"])
    try:
        content = folder.read_bytes(part["path"])
    except FileNotFoundError:
        raise CorruptDatasetError(
            f"'{where}' is missing: a part of the version's file list", file=part["path"]
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != part["sha256"]:
        raise CorruptDatasetError(f"'{where}' has sha256 {found}, expected {part['sha256']}", file=part["path"])
    return table_from_bytes(content).cast(FILES)


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
    earlier_ledgers: Sequence[str] = (),
    splits: Iterable[str] = (),
) -> Published:
    """Makes the files the newest version, unless the newest version holds the same content in the same layout already.

    `expected_parent` is the newest version that the caller built on (None: there was none). `splits` names all splits, also those without rows.

    Raises:
        CommitConflictError: another run has published since; nothing of this one is visible.
        RunError: a file is missing or has another size.
    """
    entries = files if isinstance(files, FileList) else FileList.of(files)
    manifest = describe(
        entries,
        schema,
        splits=splits,
        parent=expected_parent,
        pipeline=pipeline,
        engine=engine,
        counts=dict(counts or {}),
        gate=list(gate),
        ledger=ledger,
        earlier_ledgers=list(earlier_ledgers),
    )
    return publish_manifest(folder, manifest, entries)


def describe(entries: FileList, schema: pa.Schema, *, splits: Iterable[str], **facts: Any) -> Manifest:
    """The manifest of a version that isn't published: its version is 0 and its parts aren't written. `facts` are further fields of it."""
    return Manifest(
        version=0,
        created=now(),
        schema=schema.remove_metadata(),
        num_rows=entries.num_rows,
        splits={**dict.fromkeys(splits, 0), **entries.splits()},
        fingerprint=fingerprint(schema, entries.row_sum, entries.num_rows),
        layout=entries.layout,
        parts=(),
        publisher=_publisher(),
        code_version=__version__,
        **facts,
    )


def publish_manifest(folder: Folder, manifest: Manifest, entries: FileList) -> Published:
    """Publishes what `describe` made, on top of its parent; raises as `publish` does."""
    found = newest_version(folder)
    newest = read_manifest(folder, found) if found is not None else None
    if newest is not None and same_version(newest, manifest):
        return Published(newest, published=False)
    if found != manifest.parent:
        raise _conflict(folder, newest, manifest.parent)
    parts = write_parts(folder, entries, newest.parts if newest else ())
    manifest = replace(manifest, version=(found or 0) + 1, parts=parts)
    commit(folder, manifest)
    return Published(manifest, published=True)


def republish(folder: Folder, old: Manifest) -> Published:
    """The content of an old version as the newest; nothing is done if the newest has it."""
    newest = newest_version(folder)
    assert newest is not None
    found = read_manifest(folder, newest)
    if same_version(found, old):
        return Published(found, published=False)
    facts: dict[str, Any] = {"created": now(), "publisher": _publisher(), "code_version": __version__}
    manifest = replace(old, version=newest + 1, parent=newest, **facts)
    commit(folder, manifest)
    return Published(manifest, published=True)


def commit(folder: Folder, manifest: Manifest) -> None:
    """Makes the manifest's file: the moment at which the version exists.

    Raises:
        CommitConflictError: another run has made this version.
    """
    path, content = manifest_path(manifest.version), manifest.to_json()
    try:
        folder.create(path, content)
    except FileExistsError:
        found = folder.read_bytes(path)
        if found != content:  # the same content is our own: a client asked again after it missed the answer
            raise _conflict(folder, Manifest.from_json(found, folder.url(path)), manifest.parent) from None


def write_parts(folder: Folder, entries: FileList, known: Iterable[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """The parts of the file list, written but for those `known` to be in use; their files are checked to be there.

    A part that may be an old orphan is written again: its new date keeps `gc` away from it until the manifest names it.

    Raises:
        RunError: a file is missing or has another size.
    """
    used = {part["path"] for part in known}
    parts = []
    for start in range(0, len(entries), PART_FILES):
        table = entries.table.slice(start, PART_FILES).combine_chunks()
        content = table_to_bytes(table)
        digest = hashlib.sha256(content).hexdigest()
        path = f"manifests/files/{digest[:20]}.parquet"
        if path not in used:
            _check_present(folder, table)
            folder.write_atomic(path, content)
        parts.append({"path": path, "sha256": digest, "files": table.num_rows})
    return parts


def now() -> str:
    """The time in UTC, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def same_version(newest: Manifest, other: Manifest) -> bool:
    """Whether both hold the same content in the same layout behind the same gate."""
    facts = [(each.fingerprint, each.layout, list(each.gate), dict(each.splits)) for each in (newest, other)]
    return facts[0] == facts[1] and newest.schema.equals(other.schema)


def _publisher() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"


def _conflict(folder: Folder, winner: Manifest | None, expected: int | None) -> CommitConflictError:
    if winner is None:
        who = "its versions are gone"
    else:
        host, process, _ = winner.publisher.rsplit(":", 2)
        who = f"version {winner.version} was published at {winner.created} by process {process} on {host}"
    built = f"version {expected}" if expected else "an empty dataset"
    return CommitConflictError(
        f"'{folder.base}' has changed while this run was at work: {who}, this run built on {built}. "
        "Nothing of this run is visible. Run the same command again: it reuses what is finished.",
        version=winner.version if winner else None,
    )


def _check_present(folder: Folder, table: pa.Table) -> None:
    paths, expected = table["path"].to_pylist(), table["bytes"].to_pylist()
    bad = [
        f"'{path}' is missing" if size is None else f"'{path}' has {size} bytes, expected {want}"
        for path, size, want in zip(paths, folder.sizes(paths), expected, strict=True)
        if size != want
    ]
    if bad:
        raise RunError(
            f"'{folder.base}': files of the new version are not as they were written: {capped(bad)}. Nothing was published. "
            "Did something else clean the folder? Run the same command again: it writes them anew."
        )
