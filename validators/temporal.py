"""Values beside the bounds and values of a suite, brought to one type without loss."""

from __future__ import annotations

import datetime
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.kernels.digests import PER_SECOND
from gristmill.validators.columns import Column

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
SAME_TYPE = "Column values, min_value, and max_value must either be None or of the same type."


def comparable(column: Column, value: Any) -> tuple[npt.NDArray[Any], Any]:
    """(the column's (nonnull,) values, the value), such that comparing them is exact: numbers, or ticks of time and a fraction of them.

    Raises:
        TypeError: values of a type that has no order with this value's.
    """
    kind = column.kind
    if kind in ("int", "float", "bool"):
        if isinstance(value, (str, datetime.date)) or not hasattr(value, "__float__"):
            raise TypeError(f"{SAME_TYPE} Column '{column.name}' holds numbers, the value is {value!r}")
        return column.numbers, _number(column, value)
    if kind == "timestamp":
        return column.numbers, exact(ticks(column, value))
    if kind == "date" and isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return column.numbers, value.toordinal() - EPOCH.toordinal()
    if kind == "text" and not isinstance(value, str):
        raise TypeError(f"{SAME_TYPE} Column '{column.name}' holds text, the value is {value!r}")
    if kind == "date" and isinstance(value, str):
        return column.numbers, datetime.date.fromisoformat(value).toordinal() - EPOCH.toordinal()
    return column.objects, value


def _number(column: Column, value: Any) -> Any:
    if column.kind == "int" and isinstance(value, float) and np.isfinite(value):
        return exact(Fraction(value))
    return value


def exact(value: Fraction) -> Any:
    """The value as an int, or, if it lies between two, as a float half-way: it compares with integers as the value does."""
    floor = value.numerator // value.denominator
    if value == floor:
        return floor
    return _Between(floor)


class _Between:
    """What lies between an integer and the next, as one side of a comparison with integers."""

    __array_ufunc__ = None  # numpy then leaves comparisons to this class

    def __init__(self, floor: int) -> None:
        self._floor = floor

    def __lt__(self, values: Any) -> Any:
        return values > self._floor

    def __gt__(self, values: Any) -> Any:
        return values <= self._floor

    __le__, __ge__ = __lt__, __gt__

    def __eq__(self, values: object) -> Any:
        return np.zeros(np.shape(values), bool)  # type: ignore[call-overload]

    def __ne__(self, values: object) -> Any:
        return np.ones(np.shape(values), bool)  # type: ignore[call-overload]

    __hash__ = None  # type: ignore[assignment]


def ticks(column: Column, value: Any) -> Fraction:
    """The time in the unit of a timestamp column, since 1970. A date is its midnight; text is parsed.

    Raises:
        TypeError: no time; or one with a zone beside a column without, or the other way round.
    """
    zone = column.array.type.tz
    if isinstance(value, str):
        value = parse_time(value)
    if not isinstance(value, datetime.date):
        raise TypeError(f"{SAME_TYPE} Column '{column.name}' holds times, the value is {value!r}")
    if not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.UTC if zone else None)
    if (value.tzinfo is None) != (zone is None):
        has, other = ("no zone", "one") if zone is None else ("a zone", "none")
        raise TypeError(
            f"Cannot compare tz-naive and tz-aware times: column '{column.name}' has {has}, {value} has {other}"
        )
    since = (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)) - EPOCH
    micros = (since.days * 86400 + since.seconds) * 10**6 + since.microseconds
    nanos = getattr(value, "nanosecond", 0)
    return Fraction((micros * 1000 + nanos) * PER_SECOND[column.array.type.unit], 10**9)


def parse_time(text: str) -> Any:
    """The time or date that a text means: ISO 8601, else what dateutil makes of it."""
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        from dateutil.parser import parse

        return parse(text)
