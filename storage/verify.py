"""Whether the bytes of a version are those that its manifest names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import CorruptDatasetError, InputError
from gristmill.kernels.digests import fingerprint
from gristmill.storage.folder import Folder
from gristmill.storage.manifest import FILES, FileEntry, FileList, Manifest
from gristmill.storage.parquet import open_parquet
from gristmill.storage.versions import read_part

BLOCK = 8 << 20
THREADS = 4
AHEAD = 4096  # files whose checks are under way at a time, so that a million of them stay cheap


@dataclass(frozen=True)
class Problem:
    """A file that isn't what the manifest says, and how."""

    path: str
    what: str


def verify_version(folder: Folder, manifest: Manifest, *, fast: bool = False) -> list[Problem]:
    """Every problem, in file order; empty if the version is whole.

    A part of the file list, a shard or a side-car that is missing; a shard of another size, sha256, schema or row groups, or not readable; totals,
    layout or fingerprint that the file list doesn't give; a ledger without files. Reads all bytes once, unless `fast`: then sizes only.
    """
    problems: list[Problem] = []
    tables = [FILES.empty_table()]
    for part in manifest.parts:
        try:
            tables.append(read_part(folder, part))
        except (CorruptDatasetError, InputError) as error:
            problems.append(Problem(part["path"], str(error)))
    files = FileList(pa.concat_tables(tables))
    if not problems:
        problems += _check_totals(manifest, files)
    problems += [
        Problem(name, "a ledger of the version is missing") for name in manifest.ledgers if not folder.list(name)
    ]
    with ThreadPoolExecutor(THREADS) as threads:
        for start in range(0, len(files), AHEAD):
            some = _to_check(folder, files.table.slice(start, AHEAD), fast=fast)
            for found in threads.map(lambda pair: list(_check(folder, manifest.schema, *pair, fast=fast)), some):
                problems += found
    return problems


def _to_check(folder: Folder, files: pa.Table, *, fast: bool) -> Iterator[tuple[FileEntry, int | None]]:
    """Each file with its size; if `fast` only those that need a closer look. All sizes are asked for at once."""
    sizes = pa.array(folder.sizes(files["path"].to_pylist()), pa.int64())
    if fast:
        as_said = pc.fill_null(pc.equal(sizes, files["bytes"]), False)
        closer = pc.or_(pc.invert(as_said), pc.greater(pc.list_value_length(files["side_cars"]), 0))
        files, sizes = files.filter(closer), sizes.filter(closer.combine_chunks())
    return zip(FileList(files), sizes.to_pylist(), strict=True)


def _check_totals(manifest: Manifest, files: FileList) -> Iterator[Problem]:
    expected = {
        "rows": (manifest.num_rows, files.num_rows),
        "rows by split": ({name: rows for name, rows in manifest.splits.items() if rows}, files.splits()),
        "layout": (manifest.layout, files.layout),
        "fingerprint": (manifest.fingerprint, fingerprint(manifest.schema, files.row_sum, files.num_rows)),
    }
    for name, (said, found) in expected.items():
        if said != found:
            yield Problem("manifest", f"{name}: it says {said}, its file list gives {found}")


def _check(folder: Folder, schema: pa.Schema, entry: FileEntry, size: int | None, *, fast: bool) -> Iterator[Problem]:
    for path in entry.side_cars:
        if not folder.exists(path):
            yield Problem(path, f"missing; a side-car of '{entry.path}'")
    if size != entry.bytes:
        yield Problem(entry.path, "missing" if size is None else f"{size} bytes, expected {entry.bytes}")
    elif not fast:
        try:
            yield from _check_content(folder, schema, entry)
        except FileNotFoundError:  # since its size was asked for
            yield Problem(entry.path, "missing")
        except (CorruptDatasetError, InputError) as error:
            yield Problem(entry.path, str(error))


def _check_content(folder: Folder, schema: pa.Schema, entry: FileEntry) -> Iterator[Problem]:
    digest = hashlib.sha256()
    with folder.open_input(entry.path) as source:
        while block := source.read(BLOCK):
            digest.update(block)
    if digest.hexdigest() != entry.sha256:
        yield Problem(entry.path, f"sha256 {digest.hexdigest()}, expected {entry.sha256}")
        return
    with open_parquet(folder, entry.path) as file:
        groups = tuple(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
        found = file.schema_arrow.remove_metadata()
    if groups != entry.row_group_rows or sum(groups) != entry.rows:
        yield Problem(entry.path, f"row groups of {groups} rows, expected {entry.row_group_rows}, {entry.rows} in all")
    if found != schema:
        yield Problem(entry.path, f"schema {_types(found)}, expected {_types(schema)}")


def _types(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


def read_verdicts(folder: Folder, content: str) -> list[dict[str, Any]]:
    """The verdict files on the content with this fingerprint, oldest first.

    Raises:
        CorruptDatasetError: one that is torn, or about other content or another suite than its name says. None is passed over: it might be the newest.
    """
    found = sorted(folder.list(f"verdicts/{content}"), key=lambda row: row[2])
    return [_read_verdict(folder, path, content) for path, *_ in found if path.endswith(".json")]


def _read_verdict(folder: Folder, path: str, content: str) -> dict[str, Any]:
    suite = path.rpartition("/")[2].removesuffix(".json").partition("~")[0]
    try:
        verdict = json.loads(folder.read_bytes(path))
    except ValueError:
        verdict = None
    wrong = "is torn or no JSON object"
    if isinstance(verdict, dict):
        named = {"fingerprint": content, "suite_hash": suite}
        differ = [f"{name} {verdict.get(name)!r}" for name, value in named.items() if verdict.get(name) != value]
        if not differ:
            return verdict
        wrong = f"is about another: {', '.join(differ)}"
    text = f"verdict '{folder.url(path)}' {wrong}; delete it and run gristmill validate again"
    raise CorruptDatasetError(text, path=folder.url(path))
