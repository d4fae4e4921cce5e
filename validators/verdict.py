"""What a validation found: success, results in Great Expectations' shape, and every bad row with the expectations that it failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.validators.formats import jsonable
from gristmill.validators.rows import RowSet

BAD_ROWS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("shard_row", pa.int64(), nullable=False),
        pa.field("expectations", pa.list_(pa.string()), nullable=False),
    ]
)
"""The columns of `bad_rows`: the row's number in the data, its shard's name, its number there (all from 0), the ids of the expectations it failed."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of one suite on one set of data.

    success: no expectation of severity critical failed, and none could not be evaluated; failures of severity warning and info are only reported.
    results: one dict an expectation, in the order of the suite, each as Great Expectations makes it ("success", "expectation_config", "result",
        "meta", "exception_info") with Python values, and beside them "evaluated": "footer", "state", "one pass", "two passes" or
        "Great Expectations".
    statistics: evaluated_expectations, successful_expectations, unsuccessful_expectations, success_percent.
    suite_name, suite_hash: the suite; the hash is over types, parameters and severities, free of ids, notes and order.
    fingerprint: that of the dataset version, None for other data.
    num_rows: rows looked at. shards: (name, rows) in order. failing: {expectation id: its failing rows}, for map expectations.
    """

    success: bool
    results: Sequence[dict[str, Any]]
    statistics: dict[str, Any]
    suite_name: str
    suite_hash: str
    data_name: str
    num_rows: int
    shards: Sequence[tuple[str, int]]
    fingerprint: str | None = None
    seconds: float = 0.0
    meta: dict[str, Any] = field(default_factory=dict)
    failing: dict[str, RowSet] = field(default_factory=dict)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The results that are no success, of every severity."""
        return [result for result in self.results if not result["success"]]

    def to_json_dict(self) -> dict[str, Any]:
        """The verdict as `ExpectationSuiteValidationResult.to_json_dict()` has it, beside "suite_hash", "fingerprint", "num_rows" and "evaluated"."""
        found = {
            "success": self.success,
            "results": list(self.results),
            "suite_name": self.suite_name,
            "suite_parameters": self.meta.get("suite_parameters", {}),
            "statistics": self.statistics,
            "meta": {key: value for key, value in self.meta.items() if key != "suite_parameters"},
            "id": None,
            "suite_hash": self.suite_hash,
            "fingerprint": self.fingerprint,
            "data": self.data_name,
            "num_rows": self.num_rows,
        }
        return jsonable(found)

    def bad_rows(self, *, failed_only: bool = False, rows_at_a_time: int = 65536) -> Iterator[pa.Table]:
        """Tables of BAD_ROWS in order of row: every row that some map expectation does not expect, once, with the ids of all of those.

        failed_only: rows that `mostly` lets pass are left out. Empty for suites without map expectations.
        """
        names = self._map_ids(failed_only=failed_only)
        starts = np.cumsum([0, *(rows for _, rows in self.shards)])
        for rows, members in _merged([self.failing[name] for name in names], rows_at_a_time):
            shard = np.searchsorted(starts, rows, side="right") - 1
            values = pa.array(np.nonzero(members)[1], pa.int32())
            ids = pa.DictionaryArray.from_arrays(values, pa.array(names, pa.string())).dictionary_decode()
            ends = np.concatenate([[0], np.cumsum(members.sum(axis=1))]).astype(np.int32)
            columns = [
                pa.array(rows),
                pa.array([name for name, _ in self.shards], pa.string()).take(pa.array(shard)),
                pa.array(rows - starts[shard]),
                pa.ListArray.from_arrays(pa.array(ends), ids),
            ]
            yield pa.Table.from_arrays(columns, schema=BAD_ROWS)

    def bad_row_numbers(self, *, failed_only: bool = False) -> RowSet:
        """The numbers of all bad rows."""
        found = RowSet()
        for name in self._map_ids(failed_only=failed_only):
            found = found.union(self.failing[name])
        return found

    def _map_ids(self, *, failed_only: bool) -> list[str]:
        failed = {result["expectation_config"]["id"] for result in self.failed}
        return [name for name in self.failing if not failed_only or name in failed]

    def __repr__(self) -> str:
        good = self.statistics["successful_expectations"]
        return f"Verdict({'passed' if self.success else 'failed'}, {self.suite_name!r} on {self.data_name!r}, {good} of {len(self.results)} expectations met)"


def exception_message(result: Mapping[str, Any]) -> str:
    """Why an expectation could not be evaluated, or "". Great Expectations nests the facts by metric."""
    info = result.get("exception_info") or {}
    if info.get("raised_exception"):
        return str(info.get("exception_message") or "an error")
    nested = [each for each in info.values() if isinstance(each, Mapping) and each.get("raised_exception")]
    return "; ".join(dict.fromkeys(str(each.get("exception_message")) for each in nested))


def _merged(sets: Sequence[RowSet], at_a_time: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(row numbers, (rows, sets) bool: which sets hold the row), in order of row."""
    every = RowSet()
    for each in sets:
        every = every.union(each)
    for rows in every.chunks(at_a_time):
        yield rows, np.stack([each.contains(rows) for each in sets], axis=1)
