"""Whether the bytes of a version are those that its manifest names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from gristmill.errors import CorruptDatasetError
from gristmill.storage.folder import Folder
from gristmill.storage.manifest import FileEntry, FileList, Manifest
from gristmill.storage.parquet import open_parquet

BLOCK = 8 << 20


@dataclass(frozen=True)
class Problem:
    """A file that isn't what the manifest says, and how."""

    path: str
    what: str


def verify_files(folder: Folder, manifest: Manifest, files: FileList, *, fast: bool = False) -> list[Problem]:
    """Every problem, in file order: missing, another size, another sha256, unreadable, other row groups. Reads all bytes unless `fast`."""
    found = [
        Problem(part["path"], "missing or changed")
        for part in manifest.parts
        if not folder.exists(part["path"]) or hashlib.sha256(folder.read_bytes(part["path"])).hexdigest() != part["sha256"]
    ]
    with ThreadPoolExecutor(4) as threads:
        for problems in threads.map(lambda entry: list(_check(folder, entry, fast=fast)), files):
            found += problems
    if files.num_rows != manifest.num_rows:
        found.append(Problem("manifest", f"says {manifest.num_rows} rows, its files have {files.num_rows}"))
    return found


def _check(folder: Folder, entry: FileEntry, *, fast: bool) -> Iterator[Problem]:
    if not folder.exists(entry.path):
        yield Problem(entry.path, "missing")
        return
    size = folder.size(entry.path)
    if size != entry.bytes:
        yield Problem(entry.path, f"{size} bytes, expected {entry.bytes}")
        return
    if fast:
        return
    digest = hashlib.sha256()
    with folder.open_input(entry.path) as source:
        while block := source.read(BLOCK):
            digest.update(block)
    if digest.hexdigest() != entry.sha256:
        yield Problem(entry.path, f"sha256 {digest.hexdigest()}, expected {entry.sha256}")
        return
    try:
        with open_parquet(folder, entry.path) as file:
            groups = tuple(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
    except CorruptDatasetError as error:
        yield Problem(entry.path, str(error))
        return
    if groups != entry.row_group_rows:
        yield Problem(entry.path, f"row groups of {groups} rows, expected {entry.row_group_rows}")


def read_verdicts(folder: Folder, fingerprint: str) -> list[dict[str, Any]]:
    """The verdict files on this content, oldest first."""
    found = sorted(folder.list(f"verdicts/{fingerprint}"), key=lambda row: row[2])
    return [json.loads(folder.read_bytes(path)) for path, *_ in found if path.endswith(".json")]
