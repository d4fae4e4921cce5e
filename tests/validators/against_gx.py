"""Great Expectations on pandas beside gristmill: the same frame, expectation and result format, and where their results differ."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import numpy as np
import pandas as pd

from gristmill.validators.api import validate
from gristmill.validators.formats import jsonable
from gristmill.validators.frames import open_pandas
from gristmill.validators.inputs import Data, of_tables

UNORDERED = ("partial_missing_list",)


@functools.cache
def _context() -> Any:
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("p")
    return context, source.add_dataframe_asset("a").add_batch_definition_whole_dataframe("b")


def gx_batch(frame: pd.DataFrame) -> Any:
    return _context()[1].get_batch({"dataframe": frame.copy()})


def gx_result(batch: Any, kind: str, kwargs: dict[str, Any], form: Any) -> dict[str, Any]:
    """Their result, as JSON: success, result, raised."""
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = ExpectationConfiguration(type=kind, kwargs=kwargs).to_domain_obj()
        found = batch.validate(given, result_format=form).to_json_dict()
    return {"success": found["success"], "result": found["result"], "raised": raised(found["exception_info"])}


def our_result(data: Any, kind: str, kwargs: dict[str, Any], form: Any) -> dict[str, Any]:
    verdict = validate(data, {"type": kind, "kwargs": kwargs}, result_format=form)
    (found,) = verdict.to_json_dict()["results"]
    return {"success": found["success"], "result": found["result"], "raised": raised(found["exception_info"])}


def raised(info: dict[str, Any]) -> str | None:
    every = [info] if "raised_exception" in info else list(info.values())
    return next((each["exception_message"] for each in every if each["raised_exception"]), None)


def cut(frame: pd.DataFrame, places: list[int]) -> Data:
    """The frame in shards that end at these rows."""
    whole = open_pandas(frame)
    reader = whole.shards[0].reader
    table, objects = reader._table, reader._objects
    ends = [0, *sorted(places), len(frame)]
    parts = list(zip(ends, ends[1:], strict=False))
    return of_tables(
        [table.slice(a, b - a) for a, b in parts],
        "frame",
        [{name: values[a:b] for name, values in objects.items()} for a, b in parts],
        columns=whole.columns,
        dtypes=whole.dtypes,
        index=whole.index,
    )


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """What differs, apart from texts of errors."""
    found = []
    if ours["success"] != theirs["success"]:
        found.append(f"success: {ours['success']}, theirs {theirs['success']}")
    if bool(ours["raised"]) != bool(theirs["raised"]):
        found.append(f"raised: {ours['raised']!r}, theirs {theirs['raised']!r}")
    if not ours["raised"] and not theirs["raised"]:
        mine, other = dict(ours["result"]), dict(theirs["result"])
        for result in (mine, other):
            result.pop("unexpected_index_query", None)
        for key in sorted(mine.keys() | other.keys()):
            if key == "partial_unexpected_counts" and (key not in other or _has_null(mine[key])):
                continue  # theirs lack where values have no order, and count every NaN for itself
            if key not in mine or key not in other:
                found.append(f"{key}: only {'ours' if key in mine else 'theirs'}")
            elif not same(mine[key], other[key], ordered=key not in UNORDERED):
                found.append(f"{key}: {mine[key]!r}, theirs {other[key]!r}")
    return found


def _has_null(counts: list[dict[str, Any]]) -> bool:
    return any(each["value"] is None or (isinstance(each["value"], list) and None in each["value"]) for each in counts)


def same(a: Any, b: Any, *, ordered: bool = True) -> bool:
    a, b = (None if value == "NaT" else value for value in (jsonable(a), jsonable(b)))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        if not ordered:
            a, b = sorted(a, key=repr), sorted(b, key=repr)
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a == b or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    return bool(a == b) or (isinstance(a, str) and isinstance(b, str) and _time(a) is not None and _time(a) == _time(b))


def _time(text: str) -> Any:
    try:
        return np.datetime64(text, "ns")
    except ValueError:
        return None
