"""Counts and least values of keys against a dictionary, over tables that make the table grow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.kernels.tally import Tally

KEYS = st.one_of(st.integers(0, 20), st.integers(0, 2**64 - 1), st.integers(0, 40).map(lambda key: key << 58))
TABLES = st.lists(st.lists(st.tuples(KEYS, st.integers(-(2**63), 2**63 - 1)), max_size=30), max_size=4)


def tallied(tables: list[list[tuple[int, int]]]) -> Tally:
    tally = Tally()
    for rows in tables:
        tally.add(np.array([key for key, _ in rows], np.uint64), np.array([value for _, value in rows], np.int64))
    return tally


@given(TABLES, st.lists(KEYS))
def test_against_a_dictionary(tables: list[list[tuple[int, int]]], others: list[int]) -> None:
    values: dict[int, list[int]] = {}
    for key, value in (row for rows in tables for row in rows):
        values.setdefault(key, []).append(value)
    tally = tallied(tables)
    asked = [*values, *others]
    counts, least = tally.find(np.array(asked, np.uint64))
    assert counts.tolist() == [len(values.get(key, [])) for key in asked]
    assert least.tolist() == [min(values.get(key, [0])) for key in asked]
    keys, times = tally.repeated()
    assert list(zip(keys.tolist(), times.tolist(), strict=True)) == sorted(
        (key, len(found)) for key, found in values.items() if len(found) > 1
    )
    assert tally.most == max((len(found) for found in values.values()), default=0)


@pytest.mark.parametrize("step", [1, 1 << 20, 1 << 52])
def test_it_grows(step: int) -> None:
    keys = np.arange(20_000, dtype=np.uint64) * np.uint64(step)
    tally = Tally()
    for start in range(0, 20_000, 700):
        tally.add(keys[start : start + 700], np.arange(start, min(start + 700, 20_000)))
    tally.add(keys[:7000], np.full(7000, -1))
    counts, least = tally.find(keys)
    different = len(np.unique(keys))
    assert len(np.unique(counts)) == 2 or different < 20_000
    expected_counts, expected_least = {}, {}
    for number, key in enumerate(keys.tolist()):
        expected_counts[key] = expected_counts.get(key, 0) + 1 + (number < 7000)
        expected_least[key] = -1 if number < 7000 else min(expected_least.get(key, number), number)
    assert counts.tolist() == [expected_counts[key] for key in keys.tolist()]
    assert least.tolist() == [expected_least[key] for key in keys.tolist()]
