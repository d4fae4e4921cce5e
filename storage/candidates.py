"""Candidates: versions that have not passed their validation. Their files are kept until each is published or rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from gristmill.errors import DatasetNotFoundError, UsageError, capped, did_you_mean
from gristmill.storage.folder import Folder
from gristmill.storage.manifest import FileEntry, FileList, Manifest
from gristmill.storage.versions import (
    Published,
    describe,
    newest_version,
    publish_manifest,
    read_files,
    read_manifest,
    same_version,
    write_parts,
)

NAME_DIGITS = 16  # of the fingerprint


def propose(
    folder: Folder,
    files: FileList | Sequence[FileEntry],
    schema: pa.Schema,
    *,
    expected_parent: int | None,
    splits: Sequence[str] = (),
    gate: Sequence[str] = (),
    **facts: Any,
) -> Manifest:
    """The candidate, written: the same as `publish` would make, but not a version. The same content again replaces it.

    facts: pipeline, engine, counts and ledger, as for `publish`.
    """
    entries = files if isinstance(files, FileList) else FileList.of(files)
    manifest = describe(entries, schema, splits=splits, parent=expected_parent, gate=list(gate), **facts)
    manifest = replace(manifest, parts=write_parts(folder, entries))
    folder.write_atomic(candidate_path(manifest), manifest.to_json())
    return manifest


def propose_version(
    folder: Folder,
    files: FileList | Sequence[FileEntry],
    schema: pa.Schema,
    *,
    expected_parent: int | None,
    **facts: Any,
) -> Published:
    """The candidate, unpublished; or the newest version where that holds the same already, and then no candidate is left."""
    manifest = propose(folder, files, schema, expected_parent=expected_parent, **facts)
    newest = newest_version(folder)
    if newest is None or not same_version(found := read_manifest(folder, newest), manifest):
        return Published(manifest, published=False)
    folder.delete(candidate_path(manifest))
    return Published(found, published=False)


def candidate_name(manifest: Manifest) -> str:
    """What a candidate is called: the first 16 digits of its fingerprint."""
    return manifest.fingerprint[:NAME_DIGITS]


def candidate_path(manifest: Manifest) -> str:
    """Where a candidate is."""
    return f"candidates/{candidate_name(manifest)}.json"


def list_candidates(folder: Folder) -> list[Manifest]:
    """All candidates, oldest first."""
    found = [path for path, *_ in folder.list("candidates", recursive=False) if path.endswith(".json")]
    every = [Manifest.from_json(folder.read_bytes(path), folder.url(path)) for path in found]
    return sorted(every, key=lambda manifest: manifest.created)


def read_candidate(folder: Folder, name: str) -> Manifest:
    """The candidate whose fingerprint begins with `name`.

    Raises:
        DatasetNotFoundError: there is none; the error lists those that exist.
        UsageError: there are several.
    """
    every = {manifest.fingerprint[:NAME_DIGITS]: manifest for manifest in list_candidates(folder)}
    found = [known for known in every if known.startswith(name[:NAME_DIGITS])]
    if len(found) > 1:
        raise UsageError(f"'{folder.base}': candidates {capped(found)} begin with '{name}'; write more digits")
    if not found or not name:
        known = did_you_mean(name, every) or " It has no candidates."
        raise DatasetNotFoundError(f"'{folder.base}' has no candidate '{name}'.{known}", candidate=name)
    return every[found[0]]


def publish_candidate(folder: Folder, name: str) -> Published:
    """Makes the candidate the newest version.

    Raises:
        CommitConflictError: another version was published since the candidate was made; run its pipeline again.
    """
    manifest = read_candidate(folder, name)
    published = publish_manifest(folder, manifest, read_files(folder, manifest))
    folder.delete(candidate_path(manifest))
    return published


def reject_candidate(folder: Folder, name: str) -> Mapping[str, Any]:
    """Forgets the candidate; its files go with a later `gc`. Says which it was."""
    manifest = read_candidate(folder, name)
    folder.delete(candidate_path(manifest))
    return {"candidate": manifest.fingerprint[:NAME_DIGITS], "created": manifest.created, "num_rows": manifest.num_rows}
