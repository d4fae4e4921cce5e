"""Short forms for tests of validation."""

from __future__ import annotations

from typing import Any

from gristmill.validators.api import validate
from gristmill.validators.verdict import Verdict


def one(kind: str, **kwargs: Any) -> dict[str, Any]:
    """An expectation by the end of its name."""
    known = {
        "between": "expect_column_values_to_be_between",
        "not_null": "expect_column_values_to_not_be_null",
        "unique": "expect_column_values_to_be_unique",
    }
    return {"type": known.get(kind, f"expect_{kind}"), "kwargs": kwargs}


def result(data: Any, kind: str, result_format: Any = "SUMMARY", **kwargs: Any) -> dict[str, Any]:
    """The only result of one expectation."""
    (found,) = validate(data, one(kind, **kwargs), result_format=result_format).results
    return found


def message(found: dict[str, Any]) -> str:
    """The text of a result's error."""
    info = found["exception_info"]
    every = [info] if "raised_exception" in info else list(info.values())
    return next(each["exception_message"] for each in every if each["raised_exception"])


def bad(verdict: Verdict) -> list[dict[str, Any]]:
    """All bad rows."""
    return [row for table in verdict.bad_rows() for row in table.to_pylist()]
