"""Row conditions: which rows an expectation is about."""

from __future__ import annotations

import datetime
import json
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from gristmill.errors import SuiteError, did_you_mean
from gristmill.validators.columns import Column, Mask, View
from gristmill.validators.formats import jsonable
from gristmill.validators.membership import index_in
from gristmill.validators.temporal import comparable

MOST = 100  # conditions in one, as in Great Expectations
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
LEGACY = re.compile(
    r"""\s*col\(\s*(?P<quote>["'])(?P<column>.+?)(?P=quote)\s*\)\s*
        (?: \.\s*(?P<notnull>notnull)\(\)
        | (?P<op>==|!=|<=|>=|<|>)\s*(?: (?P<q>["'])(?P<text>.*?)(?P=q) | date\(\s*(?P<d>["'])(?P<date>.*?)(?P=d)\s*\) | (?P<number>[-+]?[\d.eE+-]+) ) )
        \s*\)?\s*""",
    re.VERBOSE,
)


class Condition(NamedTuple):
    """key: tells conditions apart. columns: what it reads, None for all. mask(view): (rows,) bool."""

    key: str
    columns: tuple[str, ...] | None
    mask: Callable[[View], Mask]


def parse_condition(given: Any, parser: str | None = None) -> Condition | None:
    """The condition of a row_condition as suites have it; None for none.

    Raises:
        SuiteError: not a condition; OR inside AND, or inside OR; more than 100.
    """
    if given is None or given == "":
        return None
    if hasattr(given, "dict") and not isinstance(given, Mapping):
        given = given.dict()
    if isinstance(given, str):
        given = (
            _legacy(given)
            if parser not in ("pandas", "spark")
            else {"type": "pass_through", "pass_through_filter": given}
        )
    leaves: list[str] = []
    mask = _parse(given, leaves, inside="")
    if len(leaves) > MOST:
        raise SuiteError(f"row_condition: {len(leaves)} conditions, {MOST} is the maximum")
    return Condition(
        json.dumps(jsonable(given), sort_keys=True), None if None in leaves else tuple(dict.fromkeys(leaves)), mask
    )


def _legacy(text: str) -> dict[str, Any]:
    found = LEGACY.fullmatch(text)
    if not found:
        raise SuiteError(
            f'row_condition {text!r}: expected col("name") and a comparison with a number, a quoted text or date("..."), or .notnull()'
        )
    column = {"name": found["column"]}
    if found["notnull"]:
        return {"type": "nullity", "column": column, "is_null": False}
    value: Any = found["text"]
    if found["date"] is not None:
        value = datetime.datetime.fromisoformat(found["date"])
    elif found["number"] is not None:
        number = float(found["number"])
        value = int(found["number"]) if re.fullmatch(r"[-+]?\d+", found["number"]) else number
    return {"type": "comparison", "column": column, "operator": found["op"], "parameter": value}


def _parse(given: Any, leaves: list[Any], inside: str) -> Callable[[View], Mask]:
    if hasattr(given, "dict") and not isinstance(given, Mapping):
        given = given.dict()
    kinds = ("comparison", "nullity", "and", "or", "pass_through")
    kind = given.get("type") if isinstance(given, Mapping) else None
    if kind not in kinds:
        raise SuiteError(f"row_condition: expected an object whose 'type' is one of {', '.join(kinds)}; got {given!r}")
    if kind in ("and", "or"):
        if kind == "or" and inside:
            raise SuiteError(
                f"row_condition: {inside.upper()} groups cannot contain OR conditions; write an OR of ANDs"
            )
        parts = [_parse(part, leaves, kind if inside != "and" else "and") for part in given["conditions"]]
        join = np.logical_and if kind == "and" else np.logical_or
        return lambda view: join.reduce([part(view) for part in parts])
    if kind == "pass_through":
        from gristmill.validators.frames import query

        leaves.append(None)
        return lambda view: query(view, given["pass_through_filter"])
    column = given["column"]
    name = column["name"] if isinstance(column, Mapping) else getattr(column, "name", column)
    leaves.append(name)
    if kind == "nullity":
        return lambda view: _nullity(view.column(name), is_null=bool(given["is_null"]))
    return _comparison(name, getattr(given["operator"], "value", given["operator"]), given["parameter"])


def _nullity(column: Column, *, is_null: bool) -> Mask:
    valid = np.ones(column.rows, bool) if column.valid is None else column.valid
    return ~valid if is_null else valid


def _comparison(name: str, sign: str, value: Any) -> Callable[[View], Mask]:
    """As pandas compares: null is unequal to anything, and neither less nor greater."""
    if sign in ("IN", "NOT_IN"):
        values = list(value)
        return lambda view: view.column(name).full(index_in(view.column(name), values) >= 0) == (sign == "IN")
    if sign not in OPERATORS:
        raise SuiteError(f"row_condition: unknown operator '{sign}'.{did_you_mean(sign, (*OPERATORS, 'IN', 'NOT_IN'))}")
    if value is None:
        raise SuiteError("row_condition: compared with null; write a condition of type nullity")

    def mask(view: View) -> Mask:
        column = view.column(name)
        if not column.nonnull:
            return np.full(column.rows, sign == "!=")
        values, other = comparable(column, value)
        found = np.asarray(OPERATORS[sign](values, other), bool)
        return column.full(found, sign == "!=")

    return mask
