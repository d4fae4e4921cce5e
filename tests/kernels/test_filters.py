"""A filter has every hash that it was made of, and few others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.kernels.filters import PART, Layout
from gristmill.kernels.groups import partition


def filtered(hashes):
    """(layout, the parts of the table) of a filter of some hashes."""
    hashes, _, ends = partition(hashes)
    layout = Layout.of(np.diff(ends))
    return layout, [layout.fill(hashes[ends[each.start] : ends[each.stop]]) for each in layout.partitions]


def asked(made, hashes):
    """For each of these hashes, whether the filter may have it."""
    layout, tables = made
    hashes, order, ends = partition(hashes)
    found = np.zeros(len(hashes), bool)
    for number, each in enumerate(layout.partitions):
        at = slice(ends[each.start], ends[each.stop])
        found[order[at]] = layout.maybe(number, tables[number], hashes[at])
    return found


@given(
    seed=st.integers(0, 2**32),
    size=st.sampled_from([0, 1, 2, 9, 100, PART - 1, PART, 5 * PART]),
    width=st.integers(1, 2),
    kind=st.sampled_from(["random", "sequence", "same", "floats"]),
)
@settings(max_examples=40)
def test_what_is_in_is_found(seed, size, width, kind):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, (size, width), np.uint64)
    if kind == "sequence":
        hashes[:, 0] = np.arange(size) + seed
    elif kind == "same":
        hashes[:] = hashes[:1]
    elif kind == "floats":
        hashes[:, 0] = np.round(rng.normal(size=size), 2).view(np.uint64)
    made = filtered(hashes)
    assert asked(made, rng.permutation(hashes)).all()
    layout, tables = made
    assert layout.ends.tolist() == np.cumsum([0, *map(len, tables)]).tolist()
    assert len(tables) == 1 if size < PART else len(tables) > 1


@pytest.mark.parametrize("size", [5000, 65_537, 300_000])
def test_hardly_any_other_is_found_in_five_bytes_each(size):
    rng = np.random.default_rng(size)
    for hashes, others in (
        (np.arange(size, dtype=np.uint64)[:, None], np.arange(size, size + 200_000, dtype=np.uint64)[:, None]),
        (rng.integers(0, 2**64, (size, 2), np.uint64), rng.integers(0, 2**64, (200_000, 2), np.uint64)),
    ):
        made = filtered(hashes)
        assert sum(table.nbytes for table in made[1]) < 4.6 * size
        assert np.count_nonzero(asked(made, others)) <= 1
