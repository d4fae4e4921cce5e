"""`gristmill erase`: rows named by id or by an expression leave a dataset, and no later run brings them back."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import UsageError, missing_column
from gristmill.pipelines.fetched import remove_copies
from gristmill.pipelines.steps import where as expressions
from gristmill.pipelines.work import SIGNS, WorkStore, open_store, scratch_of
from gristmill.storage.dataset import Dataset, open_dataset, split_version
from gristmill.storage.erasing import Erasure
from gristmill.storage.folder import THREADS, Folder, open_folder
from gristmill.storage.purge import pending, purge
from gristmill.storage.versions import newest_version


def erase(dataset: str, *, ids: Sequence[str] | None = None, where: str | None = None) -> dict[str, Any]:
    """The receipt of erasing rows by `_uid`, or those of the newest version for which the expression is true; what was dropped as a duplicate of
    them and what was made from them goes too (`followed` of the `marked`). `unseen`: how many of the uids no version or ledger has.

    A new version holds all other rows; only the shards that held these are written anew. Versions, ledgers and candidates that hold them are
    refused from now on; `gc` removes their bytes, and all work files. Every later run leaves the rows out, by keyed hashes of their uids: ids
    that no row has are marked too. Raw inputs are not touched.

    Raises:
        UsageError: not the newest version, or neither or both of ids and where.
        ColumnError, PipelineError: an expression that can't be evaluated.
        CommitConflictError: another run published meanwhile; the rows are marked all the same: erase again.
    """
    opened = open_dataset(dataset)
    newest = newest_version(opened.folder)
    if opened.version != newest:
        raise UsageError(
            f"'{dataset}' isn't the newest version ({newest}): rows are erased from the newest one, and older ones that hold them are refused"
        )
    if (ids is None) == (where is None):
        raise UsageError("say which rows: --ids FILE (a `_uid` a line), or --where EXPRESSION")
    uids = [uid for uid in dict.fromkeys(ids) if uid] if ids is not None else matching(opened, where or "")
    if not uids:
        raise UsageError(
            "no row to erase: "
            + ("the list of ids is empty" if ids is not None else f"none for which '{where}' is true in {opened.name}")
        )
    return Erasure(opened, uids).run()


def matching(dataset: Dataset, where: str) -> list[str]:
    """The `_uid` of every row for which the expression is true; one pass, a row group at a time."""
    tree = expressions.parse(where)
    needed = expressions.columns(where)
    for name in needed:
        if name not in dataset.schema.names:
            raise missing_column(name, dataset.schema.names, f"--where in {dataset.name}")
    found: list[str] = []
    for entry in dataset.files():
        with dataset.open_file(entry) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=sorted({*needed, "_uid"}))
                true = expressions.evaluate(tree, table)
                if isinstance(true, pa.Scalar) or not pa.types.is_boolean(true.type):
                    raise UsageError(f"--where '{where}': write a comparison over columns, such as \"author == 'x'\"")
                found += table["_uid"].filter(pc.fill_null(true, False)).to_pylist()
    return found


def make_physical(dataset: str, scratch: str | None = None, *, dry_run: bool = False) -> dict[str, int]:
    """How many files went (with dry_run, would go), by kind, so that no byte of erased rows is left; {} where no erasure is pending. Work files in `scratch` go too.

    Raises:
        RunError: a run is at work with those; nothing was removed.
    """
    location, _ = split_version(dataset, None)
    folder = open_folder(location)
    if not pending(folder):
        return {}
    stores = _stores(folder, scratch)
    with contextlib.ExitStack() as held:
        for store in stores if not dry_run else []:
            store.claim(held.enter_context(store.held()), "run `gristmill gc` again when it is done")
        work = sum(_purge_work(store.root, dry_run=dry_run) for store in stores)
        return purge(folder, {"_work": work} if work else {}, dry_run=dry_run)


def run_at_work(dataset: str, scratch: str | None = None) -> bool:
    """Whether a run is at work with the dataset's work files on this machine, those in `scratch` too. Runs with work files behind a URL are not seen."""
    location, _ = split_version(dataset, None)
    for store in _stores(open_folder(location), scratch):
        if os.access(Path(store.root) / SIGNS[0], os.W_OK):  # never so of a URL
            with store.held() as lock:
                if not lock.alone():
                    return True
    return False


def _stores(folder: Folder, scratch: str | None) -> list[WorkStore]:
    """The stores of work files that a run may have used."""
    roots = {scratch_of(folder.base, None, shared=True), scratch_of(folder.base, scratch)}
    return [open_store(root) for root in sorted(roots) if "://" in root or Path(root).exists()]


def _purge_work(root: str, *, dry_run: bool) -> int:
    """How many work files went, copies of this machine among them."""
    work = open_folder(root)
    found = [path for path, *_ in work.list() if not path.startswith(SIGNS)]
    if not dry_run:
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(work.delete, found))
        if not work.remote:
            for empty in Path(root).glob("*/"):
                shutil.rmtree(empty, ignore_errors=True)
    return len(found) + (remove_copies(root, dry_run=dry_run) if work.remote else 0)


def read_ids(path: str) -> list[str]:
    """The ids in a file, one a line.

    Raises:
        UsageError: it can't be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"--ids {path}: {reason}; expected a text file with a `_uid` a line") from error
