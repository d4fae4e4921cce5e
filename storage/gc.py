"""Removes files that no version needs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gristmill.errors import UsageError
from gristmill.storage.folder import TEMPORARY, Folder
from gristmill.storage.versions import manifest_path, read_files, read_manifest, version_numbers

DAY = 86_400.0
KEPT_FOLDERS = ("verdicts/", "candidates/", "erased/", "_work/")


@dataclass(frozen=True)
class Collected:
    """What went: versions, and files with their bytes. With dry_run, what would go."""

    versions: tuple[int, ...]
    files: tuple[str, ...]
    bytes: int
    dry_run: bool


def gc(folder: Folder, keep: int | None = None, *, dry_run: bool = False, older_than: float = DAY) -> Collected:
    """Removes all but the newest `keep` versions (None keeps every version), then files that no version left needs.

    Files younger than `older_than` seconds stay unless a removed version held them: a run may be about to publish them. Live files, verdicts,
    candidates, erasure records and work files are never touched.

    Raises:
        UsageError: keep is under 1.
    """
    if keep is not None and keep < 1:
        raise UsageError(f"--keep {keep}: at least the newest version stays; write 1 or more")
    numbers = version_numbers(folder)
    dead = numbers[:-keep] if keep is not None else []
    doomed = set().union(*(_files_of(folder, number) for number in dead)) if dead else set()
    live: set[str] = set().union(*(_files_of(folder, number) for number in numbers if number not in dead)) if numbers else set()
    now = time.time()
    gone, size = [], 0
    for path, count, changed in folder.list(""):
        if path in live or path.startswith(KEPT_FOLDERS) or _of_live_ledger(path, live):
            continue
        if path in doomed or _of_live_ledger(path, doomed) or now - changed > older_than:
            if path.startswith("manifests/v") and path not in doomed:
                continue
            gone.append(path)
            size += count
    if not dry_run:
        # a version's manifest goes first: what is left of it is then an orphan, never a version with holes
        for path in sorted(gone, key=lambda name: not name.startswith("manifests/v")):
            folder.delete(path)
    return Collected(tuple(dead), tuple(sorted(gone)), size, dry_run)


def _files_of(folder: Folder, version: int) -> set[str]:
    """Every file that the version needs; a ledger or report by its folder's or file's name."""
    manifest = read_manifest(folder, version)
    needed = {manifest_path(version), *(part["path"] for part in manifest.parts)}
    files = read_files(folder, manifest)
    needed.update(files.table["path"].to_pylist())
    needed.update(name for names in files.table["side_cars"].to_pylist() for name in names or ())
    if manifest.ledger:
        needed.add(manifest.ledger)
        needed.update(f"reports/{manifest.ledger.rsplit('/', 1)[-1]}{ending}" for ending in (".html", ".json"))
    return needed


def _of_live_ledger(path: str, needed: set[str]) -> bool:
    return path.rpartition("/")[0] in needed and TEMPORARY not in path
