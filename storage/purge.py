"""Makes erasures physical: every byte that may hold erased rows goes, whatever its age."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from gristmill.storage.candidates import list_candidates
from gristmill.storage.dataset import tainted_path
from gristmill.storage.erasing import RECEIPTS
from gristmill.storage.folder import THREADS, Folder
from gristmill.storage.gc import needed_files, unit_of
from gristmill.storage.versions import now, read_manifest, removed_path, version_numbers

OURS = (
    "candidates/",
    "data/",
    "ledger/",
    "reports/",
    "verdicts/",
)  # folders whose files may hold values of rows, beside work files, which whoever calls removes
DONE = ".physical.json"  # behind a receipt's name: when and what went


def pending(folder: Folder) -> list[str]:
    """The receipts of erasures whose bytes may still be there."""
    found = {path for path, *_ in folder.list(RECEIPTS)}
    return sorted(path for path in found if not path.endswith(DONE) and path.removesuffix(".json") + DONE not in found)


def purge(folder: Folder, removed: Mapping[str, int] | None = None, *, dry_run: bool = False) -> dict[str, int]:
    """How many files went (with dry_run, would go), by kind ({} where no erasure is pending): shards, ledgers, quarantine, reports and verdicts of tainted versions.

    removed: how many others the caller has removed before, by kind; they are counted too. Files of other versions, manifests, tombstones and receipts
    stay. Nothing young is spared: a run at work that needs one of the files fails, and done again it leaves the rows out. Each receipt gets a file
    beside it that says when, and how many files of each kind went.
    """
    receipts = pending(folder)
    if not receipts:
        return {}
    numbers = version_numbers(folder)
    tainted = [number for number in numbers if folder.exists(tainted_path(number))]
    clean = [read_manifest(folder, number) for number in numbers if number not in tainted]
    live = needed_files(folder, [*clean, *list_candidates(folder)], {})
    contents = {manifest.fingerprint for manifest in [*clean, *list_candidates(folder)]}
    going = [path for path, *_ in folder.list() if _goes(path, live, contents)]
    counts = dict(removed or {})
    for path in going:
        kind = path.partition("/")[0]
        counts[kind] = counts.get(kind, 0) + 1
    if dry_run:
        return counts
    for number in tainted:
        with contextlib.suppress(FileExistsError):
            folder.create(removed_path(number), json.dumps({"removed": now(), "why": "rows were erased"}).encode())
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(folder.delete, going))
    for receipt in receipts:
        said = {"at": now(), "receipt": receipt, "versions_removed": tainted, "files_removed": counts}
        with contextlib.suppress(FileExistsError):
            folder.create(receipt.removesuffix(".json") + DONE, json.dumps(said, indent=1).encode())
    return counts


def _goes(path: str, live: set[str], contents: set[str]) -> bool:
    if not path.startswith(OURS) or path in live or unit_of(path) in live:
        return False
    return not path.startswith("verdicts/") or path.split("/")[1] not in contents
