"""Which of some values each row holds."""

from __future__ import annotations

import datetime
import decimal
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.kernels import automaton
from gristmill.validators.columns import Column
from gristmill.validators.temporal import parse_time, ticks

I64 = npt.NDArray[np.int64]
FEW = 256  # texts that an automaton is made of; more are looked up by hash


def index_in(column: Column, values: Sequence[Any]) -> I64:
    """(nonnull,) the place in `values` of a value that equals the row's, -1 for none.

    Equal as in Python: 1, 1.0 and True are one value, "1" is another. Beside times and dates, text is a time or date.
    """
    places, keys = _keys(column, values)
    if column.kind == "object":
        known = {key: place for place, key in zip(reversed(places), reversed(keys), strict=True)}
        return np.array([known.get(value, -1) for value in column.objects], np.int64)
    if not keys:
        return np.full(column.nonnull, -1, np.int64)
    if column.kind == "text" and len(keys) <= FEW:
        return np.append(np.array(places, np.int64), -1)[_trie(tuple(keys)).index(column)]
    if column.kind == "text":
        array = column.array if column.valid is None else column.array.drop_null()
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        found = pc.index_in(array, pa.array(keys, array.type))
    else:
        numbers = column.numbers + 0.0 if column.kind == "float" else column.numbers  # -0.0 is 0.0
        numbers = numbers.astype(np.float64 if column.kind == "float" else np.int64, copy=False)
        found = pc.index_in(pa.array(numbers), pa.array(keys, pa.float64() if column.kind == "float" else pa.int64()))
    at = pc.fill_null(found, -1).to_numpy(zero_copy_only=False)
    return np.append(np.array(places, np.int64), -1)[at]


@functools.lru_cache(maxsize=256)
def _trie(words: tuple[str, ...]) -> Trie:
    return Trie(words)


class Trie:
    """The automaton of some texts."""

    def __init__(self, words: Sequence[str]) -> None:
        encoded = [word.encode() for word in words]
        states = {b"": automaton.START}
        for word in encoded:
            for size in range(1, len(word) + 1):
                states.setdefault(word[:size], automaton.START + len(states))
        table = np.full((automaton.START + len(states), 256), automaton.REJECT, np.uint32)
        self._place = np.full(len(table), -1, np.int64)
        for prefix, state in states.items():
            if prefix:
                table[states[prefix[:-1]], prefix[-1]] = state
        table[:, automaton.LAST_NEWLINE] = table[:, 10]
        for absorbing in (automaton.ACCEPT, automaton.REJECT, automaton.FOREIGN):
            table[absorbing] = absorbing
        for place, word in reversed(list(enumerate(encoded))):
            self._place[states[word]] = place
        self._table = table

    def index(self, column: Column) -> I64:
        """(nonnull,) the place of the row's text, -1 for none."""
        found = self._place[automaton.run(column.text, self._table)]
        return found if column.valid is None else found[column.valid]


def _keys(column: Column, values: Sequence[Any]) -> tuple[list[int], list[Any]]:
    """(places, the values there in the column's own form): those that a row of the column can equal."""
    conversions: dict[str, Callable[[Any], Any]] = {
        "text": lambda value: value if isinstance(value, str) else None,
        "int": _integer,
        "bool": _integer,
        "float": _float,
        "timestamp": lambda value: _ticks(column, value),
        "date": _days,
        "object": lambda value: value,
    }
    convert = conversions.get(column.kind)
    if convert is None:
        return [], []
    pairs = [(place, key) for place, value in enumerate(values) if (key := convert(value)) is not None]
    return [place for place, _ in pairs], [key for _, key in pairs]


def _integer(value: Any) -> int | None:
    number = _as_number(value)
    if number is None or abs(number) > 2**63:
        return None
    return int(number) if number == int(number) and -(2**63) <= int(number) < 2**63 else None


def _as_number(value: Any) -> Any:
    """The value if it is a number other than NaN."""
    return value if isinstance(value, (int, float, decimal.Decimal, np.number)) and value == value else None  # noqa: PLR0124


def _float(value: Any) -> float | None:
    if _as_number(value) is None:
        return None
    try:
        number = float(value) + 0.0
    except OverflowError:
        return None
    return number if number == value else None


def _ticks(column: Column, value: Any) -> int | None:
    try:
        exact = ticks(column, value)
    except (TypeError, ValueError, OverflowError):
        return None
    return exact.numerator if exact.denominator == 1 and abs(exact.numerator) < 2**63 else None


def _days(value: Any) -> int | None:
    try:
        value = parse_time(value) if isinstance(value, str) else value
    except (ValueError, OverflowError):
        return None
    if isinstance(value, datetime.datetime):
        value = value.date() if value.time() == datetime.time() else None
    return value.toordinal() - 719163 if isinstance(value, datetime.date) else None
