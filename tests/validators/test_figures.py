"""Sums, order statistics and distinct values are exact, whatever the order and the cut; sets of rows are sets."""

from __future__ import annotations

import errno
import math
import os
import statistics
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gristmill.validators.api import validate
from gristmill.validators.columns import View
from gristmill.validators.distinct import Distinct
from gristmill.validators.inputs import Batch, of_tables
from gristmill.validators.numbers import Sums
from gristmill.validators.ordered import STEP, Ordered
from gristmill.validators.quantiles import quantile
from gristmill.validators.rows import Places, RowSet
from gristmill.validators.spill import Spill
from gristmill.validators.spill import held as spill_held
from tests.validators.helpers import message, one

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
CUTS = st.lists(st.integers(0, 40), max_size=3)


def fed(make, array, cuts):
    """One accumulator over the array, made of one a part."""
    ends = [0, *sorted(min(cut, len(array)) for cut in cuts), len(array)]
    whole = make()
    for start, stop in zip(ends, ends[1:], strict=False):
        part = make()
        part.update(View.of(Batch(pa.table({"x": array.slice(start, stop - start)}), {}, 0, start, start)))
        whole.merge(part)
    return whole


@example([8.988465674311579e307, 8.98846567431158e307], [])
@example([-1.7e308, -1.7e308], [1])
@given(st.lists(FLOATS, max_size=40), CUTS)
def test_sums_of_floats_are_rounded_once(values, cuts):
    sums = fed(lambda: Sums("x", squares=True), pa.array(values, pa.float64()), cuts)
    exact = [Fraction(value) for value in values]
    try:
        expected = float(sum(exact, Fraction(0)))
    except OverflowError:
        expected = math.inf if sum(exact) > 0 else -math.inf
    assert sums.sum == expected
    if len(values) > 1 and all(abs(value) < 1e150 for value in values):
        mean = sum(exact) / len(exact)
        assert sums.stdev == pytest.approx(
            math.sqrt(float(sum((value - mean) ** 2 for value in exact) / (len(exact) - 1))), rel=1e-15
        )
        assert sums.mean == float(mean)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40), CUTS)
def test_sums_of_integers_do_not_overflow(values, cuts):
    sums = fed(lambda: Sums("x", squares=True), pa.array(values, pa.int64()), cuts)
    assert sums.sum == sum(values)
    if len(values) > 1:
        assert sums.stdev == pytest.approx(float(statistics.stdev([Fraction(value) for value in values])), rel=1e-12)


@pytest.mark.parametrize("memory", [0, 1 << 20])
@given(
    values=st.lists(FLOATS, min_size=1, max_size=40), cuts=CUTS, share=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
)
def test_quantiles_are_numpys(memory, values, cuts, share):
    spill = Spill(memory)
    ordered = fed(lambda: Ordered("x", spill), pa.array(values, pa.float64()), cuts)
    for how in ("lower", "higher", "nearest"):
        assert quantile(ordered, share, how) == np.quantile(np.array(values), share, method=how)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = np.quantile(np.array(values), share, method="linear")
    if np.isfinite(expected):
        assert quantile(ordered, share, "linear") == pytest.approx(expected, rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("memory", [0, 1 << 20, 1 << 26])
@pytest.mark.parametrize("kind", ["f8", "i8", "u8", "i2"])
@given(seed=st.integers(0, 2**32), different=st.sampled_from([1, 2, 50, 2**40]), parts=st.integers(1, 6))
@settings(max_examples=10)
def test_a_rank_among_many_values_is_found_whatever_their_ties(memory, kind, seed, different, parts):
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, different, int(rng.integers(1, 9 * STEP)))
    values = (drawn if kind == "u8" else drawn - different // 2).astype(kind)
    cuts = sorted(rng.integers(0, len(values), parts - 1).tolist())
    spill = Spill(memory)
    ordered = fed(lambda: Ordered("x", spill), pa.array(values), cuts)
    ranks = [0, len(values) - 1, *rng.integers(0, len(values), 20).tolist()]
    expected = np.sort(values)
    assert ordered.at(ranks) == {rank: expected[rank] for rank in ranks}


def test_the_largest_states_go_to_disk_and_all_together_stay_under_the_limit():
    spill = Spill(100_000)
    small, large = Ordered("x", spill), Distinct(["x"], spill, every_row=True)
    for start in range(0, 100_000, 1000):
        table = pa.table({"x": np.arange(start, start + 1000)})
        for state, rows in ((small, 100), (large, 1000)):
            part = Ordered("x", spill) if state is small else Distinct(["x"], spill, every_row=True)
            part.update(View.of(Batch(table.slice(0, rows), {}, 0, start, start)))
            state.merge(part)
        in_memory = sum(chunk.held() for chunk in large._chunks)
        assert in_memory + sum(spill_held(each.values) for each in small._chunks) <= 100_000
    assert large.facts().distinct == 100_000 and not len(large.facts().repeated)
    assert small.at([0, 5000, 9999]) == {0: 0, 5000: 50_000, 9999: 99_099}
    assert spill_held(small._chunks[-1].values)  # only the larger one had to go


def test_a_full_disk_is_told_in_words(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    table = pa.table({"x": np.arange(1000)})
    (found,) = validate(table, one("unique", column="x"), memory=100).results
    assert not found["success"]
    assert "No space left on device" in message(found) and "TMPDIR" in message(found)


@pytest.mark.parametrize("memory", [0, 1 << 20])
@given(values=st.lists(st.one_of(st.none(), st.integers(0, 6)), max_size=40), cuts=CUTS)
def test_distinct_values(memory, values, cuts):
    there = [value for value in values if value is not None]
    for array in (
        pa.array(values, pa.int64()),
        pa.array([None if value is None else f"v{value}" for value in values], pa.string()),
    ):
        spill = Spill(memory)
        rows = fed(lambda: Distinct(["x"], spill, every_row=True), array, cuts).facts()
        assert rows.distinct == len(set(there))
        assert rows.repeated.to_numpy().tolist() == [
            i for i, value in enumerate(values) if value is not None and there.count(value) > 1
        ]
        counted = fed(lambda: Distinct(["x"], spill), array, cuts)
        most = max((there.count(value) for value in there), default=0)
        assert counted.modes().tolist() == sorted(
            {values.index(value) for value in there if there.count(value) == most}
        )
        firsts = sorted(row for some in counted.first_rows() for row in some.tolist())
        assert firsts == sorted({values.index(value) for value in there})


@given(st.sets(st.integers(0, 300_000)), st.sets(st.integers(0, 300_000)), st.integers(0, 70_000))
def test_row_sets_are_sets(a, b, by):
    one, other = RowSet(), RowSet()
    one.add(list(a))
    for row in b:
        other.add([row])
    both = one.union(other)
    assert len(both) == len(a | b) and both.to_numpy().tolist() == sorted(a | b)
    assert one.moved(by).to_numpy().tolist() == sorted(row + by for row in a)
    assert both.first(3).tolist() == sorted(a | b)[:3]
    assert one.contains(np.array(sorted(b), np.int64)).tolist() == [row in a for row in sorted(b)]
    assert RowSet.unpacked(both.packed()).to_numpy().tolist() == sorted(a | b)
    assert both.within(1000, 200_000).tolist() == [row for row in sorted(a | b) if 1000 <= row < 200_000]


def test_rows_of_shards_are_found_where_they_lie_now():
    places = Places(np.array([0, 10, 15]), np.array([0, 30, 35]))
    assert places.now(np.array([0, 9, 10, 14, 15, 99])).tolist() == [0, 9, 30, 34, 35, 119]
    rows = RowSet()
    rows.add([9, 10, 99])
    assert places.moved(rows).to_numpy().tolist() == [9, 30, 119]
    assert [places.before(row) for row in (-1, 0, 9, 29, 30, 134)] == [0, 1, 1, 1, 2, 3]


def test_dense_row_sets_are_small():
    rows = RowSet()
    rows.add(np.arange(1_000_000))
    rows.add([5, 2_000_000])
    assert len(rows) == 1_000_001
    assert sum(packed.nbytes for packed in rows._blocks.values()) < 200_000


def test_rows_are_looked_up_across_shards():
    data = of_tables([pa.table({"x": [0, 1, 2]}), pa.table({"x": [3]}), pa.table({"x": [4, 5]})], "t")
    assert data.take(np.array([1, 3, 5]), ["x"]).table["x"].to_pylist() == [1, 3, 5]
    assert data.take(np.array([], np.int64), ["x"]).table.num_rows == 0
