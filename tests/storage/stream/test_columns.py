"""Gathering rows of several row groups to their places."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.storage.stream.columns import gather


def _leaf(kind, values, offset):
    """A leaf of some numbers, given as a slice that begins at an offset."""
    padded = [7] * offset + values
    if kind == "number":
        return np.array(padded, np.int32)[offset:]
    if kind == "fixed":
        return np.array([[v, -v] for v in padded], np.int32).reshape(-1, 2)[offset:]
    sizes = {"equal": lambda v: 3, "empty": lambda v: 0, "ragged": lambda v: v % 5}[kind]
    rows = [None if kind == "ragged" and v % 7 == 0 else bytes([v % 251]) * sizes(v) for v in padded]
    return pa.array(rows, pa.large_binary())[offset:]


@pytest.mark.parametrize("kind", ["number", "fixed", "equal", "empty", "ragged"])
@given(data=st.data())
def test_each_row_is_at_its_place(kind, data):
    groups = data.draw(st.lists(st.lists(st.integers(1, 10_000), min_size=1, max_size=8), min_size=1, max_size=5))
    parts = [_leaf(kind, values, data.draw(st.integers(0, 3))) for values in groups]
    rows = [np.array(data.draw(st.lists(st.integers(0, len(v) - 1), min_size=1, max_size=6)), np.int64) for v in groups]
    count = sum(map(len, rows))
    places = np.split(
        np.array(data.draw(st.permutations(range(count))), np.int64), np.cumsum([len(r) for r in rows])[:-1]
    )
    plain = lambda leaf: leaf.to_pylist() if isinstance(leaf, pa.Array) else leaf.tolist()
    expected = [None] * count
    for part, chosen, place in zip(parts, rows, places):
        for row, at in zip(chosen, place):
            expected[at] = plain(part)[row]
    assert plain(gather(parts, rows, places)) == expected


def test_groups_without_nulls_are_valid_beside_one_that_has_some():
    rows = places = [np.array([0, 1]), np.array([2, 3])]
    rows = [np.array([0, 1]), np.array([1, 0])]
    assert gather([None, np.array([True, False])], rows, places).tolist() == [True, True, False, True]
    assert gather([None, None], rows, places) is None
