"""A pytest plugin for Great Expectations' own tests: every batch of its pandas tests is validated by gristmill instead."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest

import gristmill

COUNTS: Counter[str] = Counter()


class Batch:
    """What the tests use of a GX batch."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def validate(self, expect: Any, *, result_format: Any = "SUMMARY", expectation_parameters: Any = None) -> Any:
        from great_expectations import ExpectationSuite
        from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult

        verdict = gristmill.validate(
            self.data, expect, result_format=result_format, expectation_parameters=expectation_parameters
        )
        for result in verdict.results:
            COUNTS[result["evaluated"]] += 1
        results = [as_gx(result, verdict) for result in verdict.results]
        if not isinstance(expect, ExpectationSuite):
            return results[0]
        return ExpectationSuiteValidationResult(
            success=verdict.success, results=results, suite_name=verdict.suite_name, statistics=verdict.statistics
        )


def as_gx(result: dict[str, Any], verdict: Any) -> Any:
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    config = result["expectation_config"]
    if result["result"].get("unexpected_rows") is not None:  # theirs is a pandas frame with the rows' labels
        import pandas as pd

        rows = result["result"]["unexpected_rows"]
        index = verdict.failing[config["id"]].first(len(rows))
        result = {
            **result,
            "result": {**result["result"], "unexpected_rows": pd.DataFrame(rows, index=index, dtype=object)},
        }
    return ExpectationValidationResult(
        success=result["success"],
        expectation_config=ExpectationConfiguration(
            type=config["type"],
            kwargs=config["kwargs"],
            meta=config["meta"],
            id=config["id"],
            severity=config["severity"],
        ),
        result=result["result"],
        meta=result["meta"],
        exception_info=result["exception_info"],
    )


def pytest_configure(config: pytest.Config) -> None:
    from tests.integration.test_utils.data_source_config.pandas_data_frame import PandasDataFrameBatchTestSetup

    PandasDataFrameBatchTestSetup.make_batch = lambda self: Batch(self.data)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(
        f"validated by gristmill: {sum(COUNTS.values())} expectations, {dict(COUNTS)} (process {os.getpid()})"
    )
