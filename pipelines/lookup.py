"""Rows of the ledgers, by uid or another column; and the ledgers that a version does not name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.storage.candidates import list_candidates
from gristmill.storage.dataset import Dataset
from gristmill.storage.folder import Folder
from gristmill.storage.parquet import open_parquet
from gristmill.storage.versions import read_manifest, version_numbers


def ledger_rows(
    folder: Folder, ledgers: Sequence[str], kind: str, uids: Sequence[str], column: str = "uid"
) -> list[dict[str, Any]]:
    """The lines of the ledgers' origin, decisions or quarantine files whose column is one of the uids; the same line of several runs once."""
    found: list[dict[str, Any]] = []
    for path in ledger_files(folder, ledgers, kind):
        for table in matching_rows(folder, path, column, uids):
            found += [row for row in table.to_pylist() if row not in found]
    return found


def ledger_files(folder: Folder, ledgers: Sequence[str], kind: str) -> Iterator[str]:
    """The files of that kind, in order."""
    for base in ledgers:
        for path, *_ in folder.list(base):
            if path.rpartition("/")[2].startswith(f"{kind}-"):
                yield path


def matching_rows(folder: Folder, path: str, column: str, uids: Sequence[str]) -> list[pa.Table]:
    """The rows of a file whose column is one of the uids; whole rows are read only from row groups that hold one."""
    found = []
    with open_parquet(folder, path) as file:
        leaf = _leaf(file, column)
        for group in range(file.num_row_groups):
            statistics = file.metadata.row_group(group).column(leaf).statistics
            if statistics is not None and statistics.has_min_max:
                low, high = statistics.min, statistics.max
                if not any(low <= uid <= high for uid in uids):
                    continue
            names = file.read_row_group(group, columns=[column])[column]
            mask = pc.is_in(names, value_set=pa.array(uids, names.type))
            if pc.any(mask).as_py():
                found.append(file.read_row_group(group).filter(mask))
    return found


def _leaf(file: pq.ParquetFile, column: str) -> int:
    """The Parquet column of a flat Arrow field: nested fields before it have several."""
    return [file.schema.column(i).path for i in range(len(file.schema))].index(column)


def other_ledgers(dataset: Dataset) -> dict[str, str | None]:
    """The ledgers beside the version's, the newest first: by each the version or candidate that names it, None for a run that published nothing.

    Such a run leaves its ledger until `gc`.
    """
    folder = dataset.folder
    known = {f"{dataset.path}@{number}": read_manifest(folder, number) for number in version_numbers(folder)}
    known |= {Dataset(folder, each).name: each for each in list_candidates(folder)}
    named = {ledger: name for name, manifest in known.items() for ledger in manifest.ledgers}
    written: dict[str, float] = {}
    for path, _, changed in folder.list("ledger"):
        ledger = f"ledger/{path.split('/')[1]}"
        written[ledger] = max(changed, written.get(ledger, 0.0))
    every = sorted(written.keys() - set(dataset.manifest.ledgers), key=lambda ledger: (-written[ledger], ledger))
    return {ledger: named.get(ledger) for ledger in every}
