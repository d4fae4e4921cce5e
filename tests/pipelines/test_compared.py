"""What is known of pairs of rows, and where work of an earlier run has it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gristmill.pipelines.compared import Compared
from gristmill.pipelines.grouped import place_of_pairs

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), unique=True, max_size=12)
POWERS = st.sampled_from([1, 2, 4, 8, 16])


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    left, right = np.array(pairs, np.int64).reshape(-1, 2).T
    return left, right


@given(PAIRS, PAIRS)
def test_pairs_are_found_among_others(pairs, others):
    expected = [others.index(pair) if pair in others else -1 for pair in pairs]
    assert place_of_pairs(*columns(pairs), columns(others)).tolist() == expected


@given(st.integers(0, 2**63), POWERS, POWERS)
def test_what_was_in_a_partition_is_looked_for_where_it_was(key, then, now):
    """Whatever the number of partitions was: a key that is in a partition now was in one of those that are asked."""
    compared = Compared({"t": [f"{number}" for number in range(then)]})
    earlier = compared.earlier("t", key % now, now)
    assert f"{key % then}" in earlier and len(earlier) == max(1, then // now)
    assert compared.earlier("other", key % now, now) == ()
