"""Removes files that no version needs."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gristmill.errors import UsageError
from gristmill.storage.candidates import candidate_path, list_candidates
from gristmill.storage.folder import THREADS, Folder, is_abandoned, is_temporary
from gristmill.storage.manifest import FileList, Manifest
from gristmill.storage.versions import (
    manifest_path,
    now,
    read_manifest,
    read_part,
    removed_path,
    version_numbers,
)

DAY = 86_400.0
STATES = "_work/validation/"  # what was learnt of each shard, in a folder of its name
TOGETHER = f"{STATES}together"  # of several shards: bounded by itself, and gone with the first shard
COLLECTED = (
    "data/",
    "manifests/files/",
    "ledger/",
    "reports/",
    STATES,
)  # everywhere else only temporary files are removed
WORK = "_work/"  # its temporary files are the pipeline's own to remove


@dataclass(frozen=True)
class Collected:
    """What went: versions, and files with their bytes. With dry_run, what would go."""

    versions: tuple[int, ...]
    files: tuple[str, ...]
    bytes: int
    dry_run: bool


def gc(folder: Folder, keep: int | None = None, *, dry_run: bool = False, older_than: float = DAY) -> Collected:
    """Removes all but the newest `keep` versions (None keeps every version), then files that no version left needs.

    Goes: shards and what validation has learnt of them, parts of file lists, ledgers and reports that no version and no candidate needs, and temporary files. Of these, files younger
    than `older_than` seconds stay unless a removed version held them and they weren't written again since, or their writer on this machine is dead: a run may be about to publish them. All else stays: verdicts, erasure
    records, other work files, the manifests of removed versions (as history, marked), and whatever isn't gristmill's.

    A run beside it is safe: what it writes is young, also where a removed version had the same file, and what it takes over from a removed
    version it checks right before it commits, and fails if that is gone.

    Raises:
        UsageError: keep is under 1.
        DatasetError: a manifest can't be read; nothing is removed.
    """
    if keep is not None and keep < 1:
        raise UsageError(f"--keep {keep}: at least the newest version stays; write 1 or more")
    numbers = version_numbers(folder)
    dead = numbers[:-keep] if keep is not None else []
    parts: dict[str, list[str]] = {}
    live = needed_files(folder, [*_manifests(folder, set(numbers) - set(dead)), *list_candidates(folder)], parts)
    doomed: dict[str, float] = {}
    for manifest in _manifests(folder, dead):
        published = dt.datetime.fromisoformat(manifest.created).timestamp() + 1  # it is cut to seconds
        doomed.update(dict.fromkeys(needed_files(folder, [manifest], parts) - live, published))
    since = time.time() - older_than
    every = folder.list()
    gone = {path: size for path, size, changed in every if _goes(path, changed, since, live, doomed)}
    if any(path.startswith(STATES) for path in gone):
        gone |= {path: size for path, size, _ in every if unit_of(path) == TOGETHER and not is_temporary(path)}
    if not dry_run:
        for number in dead:  # from here on they don't exist, and what is left of them is an orphan
            with contextlib.suppress(FileExistsError):
                folder.create(removed_path(number), json.dumps({"removed": now()}).encode())
        fresh = set(version_numbers(folder)) - set(numbers)
        spared = needed_files(folder, [*_manifests(folder, fresh), *list_candidates(folder)], parts)
        spared.remove(TOGETHER)
        gone = {path: size for path, size in gone.items() if path not in spared and unit_of(path) not in spared}
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(folder.delete, gone))
    return Collected(tuple(dead), tuple(sorted(gone)), sum(gone.values()), dry_run)


def sweep(folder: Folder) -> list[str]:
    """The temporary files that killed processes of this machine had left, now removed; those of living ones stay. For the start of a run."""
    if folder.remote:
        return []  # uploads have no temporary files
    left = [path for path, *_ in folder.list() if is_abandoned(path) and not path.startswith(WORK)]
    for path in left:
        folder.delete(path)
    return left


def _manifests(folder: Folder, numbers: Iterable[int]) -> list[Manifest]:
    return [read_manifest(folder, number) for number in sorted(numbers)]


def needed_files(folder: Folder, manifests: Iterable[Manifest], parts: dict[str, list[str]]) -> set[str]:
    """The files, and folders of ledgers, that the versions need. `parts` keeps what was read: versions share them."""
    needed = {TOGETHER}
    for manifest in manifests:
        needed.add(manifest_path(manifest.version) if manifest.version else candidate_path(manifest))
        for part in manifest.parts:
            if part["path"] not in parts:
                parts[part["path"]] = list(FileList(read_part(folder, part)).paths())
            needed.add(part["path"])
            needed.update(parts[part["path"]])
            needed.update(map(states_of, parts[part["path"]]))
        for name in (*(ledger.rpartition("/")[2] for ledger in manifest.ledgers), f"v{manifest.version:08d}"):
            needed |= {f"ledger/{name}", f"reports/{name}"}
    return needed


def _goes(path: str, changed: float, since: float, live: set[str], doomed: dict[str, float]) -> bool:
    if path in live or (unit_of(path) in live and not is_temporary(path)):
        return False
    if is_temporary(path):
        return (changed < since or is_abandoned(path)) and not path.startswith(WORK)
    if not path.startswith(COLLECTED):
        return False
    # a report is written after its version was published; all else was there before, or a run has written it again
    return changed < since or changed <= doomed.get(path, 0) or (unit_of(path) != path and unit_of(path) in doomed)


def states_of(shard: str) -> str:
    """The folder of what validation has learnt of a shard."""
    return STATES + shard.rpartition("/")[2].partition(".")[0]


def unit_of(path: str) -> str:
    """What a file belongs to: `ledger/NAME` of all files in it, `reports/NAME` of NAME.html, NAME.json and NAME/..., `_work/validation/NAME` of a shard's states."""
    if path.startswith(STATES):
        return "/".join(path.split("/")[:3])
    kind, _, rest = path.partition("/")
    name = rest.partition("/")[0]
    return f"{kind}/{name.partition('.')[0] if kind == 'reports' else name}" if kind in ("ledger", "reports") else path
