"""Drift of a version against the last good one, and leakage between its splits, as one JSON object.

    python -m gristmill.airflow.data_checks drift|leakage DATASET@VERSION [PROJECT]

PROJECT is the folder of the DAGs, which says what gristmill_validate has accepted. Needs gristmill, not Airflow. Exit status 0: nothing found, 1: something found, others as of the gristmill command.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from gristmill.airflow.accepted import is_accepted
from gristmill.airflow.answers import answer
from gristmill.storage.dataset import Dataset, open_dataset

SHOWN = 20


def last_good(dataset: Dataset, project: str | None = None) -> Dataset | None:
    """The newest older version that was accepted in the project; where none was, the newest that has verdicts, all of them good."""
    passed = None
    for number in (entry["version"] for entry in dataset.history()):
        if number < dataset.version:
            older = open_dataset(dataset.folder, version=number)
            if project and is_accepted(Path(project), dataset.path, older.fingerprint):
                return older
            if passed is None and older.verdicts and all(each.get("success") is True for each in older.verdicts):
                passed = older
    return passed


def drift(data: str, project: str | None = None) -> dict[str, Any]:
    """The columns that drifted since the last good version: the change is large and no chance."""
    from gristmill.validators.drift import compare
    from gristmill.validators.history import kept_profile

    dataset = open_dataset(data)
    before = last_good(dataset, project)
    if before is None:
        return {"check": "drift", "verdict": "unverified", "against": None, "found": []}
    lines = [f"column '{name}' is gone" for name in before.schema.names if name not in dataset.schema.names]
    lines += [_drift_text(each) for each in compare(kept_profile(before), kept_profile(dataset)) if each.drifted()]
    return {
        "check": "drift",
        "verdict": "warned" if lines else "passed",
        "against": before.version,
        "found": lines[:SHOWN],
    }


def _drift_text(found: Any) -> str:
    return (
        f"column '{found.column}' ({found.of}): effect {found.effect:.2f}, PSI {found.psi:.2f}, missing {found.missing_change:+.1%}, "
        f"new values in {found.new_share:.1%} of the rows"
    )


def leakage(data: str) -> dict[str, Any]:
    """The pairs of splits that share rows, or nearly the same text in the column that the pipeline compared."""
    from gristmill.validators.inputs import open_data
    from gristmill.validators.leakage import near_duplicates, shared_rows

    dataset = open_dataset(data)
    names = [name for name, rows in dataset.splits.items() if rows]
    if len(names) < 2:
        return {"check": "leakage", "verdict": "unverified", "found": []}
    splits = {name: open_data(dataset, split=name) for name in names}
    leaks = [(leak, "the same content") for leak in shared_rows(splits)]
    column = _text_column(dataset)
    if column:
        leaks += [(leak, f"nearly the same '{column}'") for leak in near_duplicates(splits, column)]
    lines = [
        f"{leak.rows:,} of {leak.of:,} rows of {leak.split} have {what} as rows of {leak.other}"
        for leak, what in leaks
        if leak.rows
    ]
    return {"check": "leakage", "verdict": "warned" if lines else "passed", "found": lines[:SHOWN]}


def _text_column(dataset: Dataset) -> str | None:
    """The column by which the pipeline found near-duplicates or split."""
    pipeline: dict[str, Any] = dict(dataset.manifest.pipeline or {})
    named = [step.get("column") for step in pipeline.get("steps") or [] if step.get("step") == "drop_near_duplicates"]
    named.append((pipeline.get("split") or {}).get("column"))
    return next((str(name) for name in named if name and name in dataset.schema.names), None)


def main() -> None:
    """The command."""
    check, *arguments = sys.argv[1:]
    found = answer(drift, *arguments) if check == "drift" else answer(leakage, arguments[0])
    sys.exit(1 if found["found"] else 0)


if __name__ == "__main__":
    main()
