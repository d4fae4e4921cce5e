"""`validate` with `on_failure: quarantine_rows`: rows that fail an expectation leave before rows are compared with each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from gristmill.pipelines import decisions
from gristmill.pipelines.steps.base import RowStep

WHOLE = (
    frozenset(  # map expectations about a row's place among the others: only the finished dataset can be judged by them
        {
            "expect_column_values_to_be_unique",
            "expect_compound_columns_to_be_unique",
            "expect_column_values_to_be_increasing",
            "expect_column_values_to_be_decreasing",
            "expect_column_value_z_scores_to_be_less_than",
            "expect_column_values_to_not_be_outliers",
        }
    )
)


class QuarantineRows(RowStep):
    """Rows that fail a critical expectation are quarantined, with every expectation that they fail, `mostly` or not, in the ledger.

    Taken from the suite: expectations about single rows, all of whose columns are there already. All others, and those that can't be
    evaluated here, judge the finished dataset. entries: as in the suite's JSON.
    """

    step: Literal["validate"] = "validate"
    entries: list[dict[str, Any]]

    def apply(self, table: pa.Table) -> tuple[pa.Table, pa.Table]:
        from gristmill.validators.api import validate

        entries = [entry for entry in self.entries if _columns(entry["kwargs"]) <= set(table.column_names)]
        if not entries or not table.num_rows:
            return table, decisions.none()
        suite = {"name": "rows", "expectations": entries}
        verdict = validate(table, suite, result_format="BOOLEAN_ONLY", threads=1)
        leaves = np.zeros(table.num_rows, bool)
        failing = [
            (entry, verdict.failing[entry["id"]].to_numpy()) for entry in entries if entry["id"] in verdict.failing
        ]
        for entry, rows in failing:
            if entry["severity"] == "critical":
                leaves[rows] = True
        found = [
            decisions.decide(table["_uid"].take(pa.array(rows[leaves[rows]])), "quarantine", entry["rule"])
            for entry, rows in failing
            if leaves[rows].any()
        ]
        return table.filter(pa.array(~leaves)), pa.concat_tables(found) if found else decisions.none()


def quarantine_step(suite: str, parameters: Mapping[str, Any]) -> QuarantineRows:
    """The step of a suite's file. parameters: of the suite.

    Raises:
        InputNotFoundError, SuiteError: no such file, or no suite.
    """
    from gristmill.validators.expectations import EXPECTATIONS
    from gristmill.validators.expectations.base import MapExpectation
    from gristmill.validators.suites import load_suite

    chosen = []
    for entry in load_suite(suite, parameters).entries:
        kind = EXPECTATIONS.get(entry.type)
        if kind is not None and issubclass(kind, MapExpectation) and entry.type not in WHOLE:
            chosen.append(entry)
    names = [_rule(entry.type, entry.kwargs) for entry in chosen]
    entries = []
    for entry, name in zip(chosen, names, strict=True):
        rule = name if names.count(name) == 1 else f"{name} #{entry.id[:8]}"
        plain = {"type": entry.type, "kwargs": entry.kwargs, "severity": entry.severity, "id": entry.id, "rule": rule}
        entries.append(json.loads(json.dumps(plain, default=str)))
    return QuarantineRows(entries=entries)


def _rule(kind: str, kwargs: dict[str, Any]) -> str:
    """The rule's name in the ledger: values_to_be_between(age)."""
    name = kind.removeprefix("expect_").removeprefix("column_")
    return f"{name}({', '.join(sorted(_columns(kwargs)))})"


def _columns(kwargs: dict[str, Any]) -> set[str]:
    named = [kwargs[key] for key in ("column", "column_A", "column_B") if isinstance(kwargs.get(key), str)]
    return {*named, *kwargs.get("column_list", [])}
