"""Drift: every distance and test against scipy, and what is found between real and changed tables."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance

from gristmill.validators import drift
from gristmill.validators.profile import Profile, profile_batches


def profiled(**columns) -> Profile:
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    return profile_batches(table.schema, [table])


def one(before, after) -> drift.ColumnDrift:
    (found,) = drift.compare(profiled(x=before), profiled(x=after))
    return found


samples = st.lists(st.integers(-50, 50).map(float) | st.floats(-1e6, 1e6), min_size=3, max_size=200)


@given(samples, samples)
def test_kolmogorov_smirnov_is_scipys(a, b):
    found = one(a, b)
    expected = stats.ks_2samp(a, b, method="asymp")
    assert found.test == "kolmogorov_smirnov" and found.of == "value"
    assert found.statistic == found.effect == pytest.approx(expected.statistic, abs=1e-12)
    assert found.p_value == pytest.approx(expected.pvalue, abs=1e-9)


@pytest.mark.parametrize("share", [0.504, 0.508, 0.512, 0.52])
def test_of_many_rows_the_limit_gives_the_p_value(share):
    before, after = ((np.array([0.0, 1.0]), np.array([part, 1 - part])) for part in (0.5, share))
    distance, p = drift.kolmogorov_smirnov(before, after, (25_000, 25_000))
    assert distance == pytest.approx(share - 0.5)
    assert p == pytest.approx(stats.kstwo.sf(distance, 12_500), rel=2e-3, abs=1e-5)


@given(st.lists(st.integers(20, 500), min_size=2, max_size=8), st.data())
def test_chi_squared_and_cramers_v_are_scipys(counts, data):
    after = data.draw(st.lists(st.integers(20, 500), min_size=len(counts), max_size=len(counts)))
    names = [f"c{i}" for i in range(len(counts))]
    found = one(np.repeat(names, counts).tolist(), np.repeat(names, after).tolist())
    expected = stats.chi2_contingency([counts, after], correction=False)
    assert found.test == "chi_squared" and found.of == "category"
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-9, abs=1e-9)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    association = stats.contingency.association(np.array([counts, after]), method="cramer")
    assert found.effect == pytest.approx(association, rel=1e-6, abs=1e-7)


def test_rare_categories_are_taken_together():
    before = {"a": 1000, "b": 1000, "c": 1, "d": 2, "e": 3}
    after = {"a": 500, "b": 500, "c": 30, "f": 2}
    statistic, p, _ = drift.chi_squared(before, after)
    table = [
        [1000, 1000, 1, 5],
        [500, 500, 30, 2],
    ]  # c is expected 10 times in the smaller one; d, e, f fewer than 5 times
    expected = stats.chi2_contingency(table, correction=False)
    assert (statistic, p) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))


shares = st.lists(st.floats(0.001, 1), min_size=2, max_size=12)


@given(shares, st.data())
def test_jensen_shannon_is_scipys_and_psi_the_sum_of_both_divergences(p, data):
    q = data.draw(st.lists(st.floats(0.001, 1), min_size=len(p), max_size=len(p)))
    a, b = np.array(p) / sum(p), np.array(q) / sum(q)
    assert drift.jensen_shannon(a, b) == pytest.approx(distance.jensenshannon(a, b, 2), abs=1e-7)
    if min(a.min(), b.min()) >= drift.FLOOR:
        assert drift.psi(a, b) == pytest.approx(stats.entropy(a, b) + stats.entropy(b, a), rel=1e-9, abs=1e-12)


@given(st.lists(st.floats(0, 1), max_size=40))
def test_benjamini_hochberg_is_scipys(p_values):
    expected = stats.false_discovery_control(p_values) if p_values else []
    assert drift.adjusted(p_values) == pytest.approx(list(expected))


@given(st.integers(1, 400), st.integers(1, 400), st.data())
def test_missing_rates_are_compared_by_the_pooled_test_of_two_proportions(n, m, data):
    a, b = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    found = one([None] * a + [1.0] * (n - a), [None] * b + [1.0] * (m - b)) if a < n or b < m else None
    if found is None:
        return
    assert found.missing == (a / n, b / m) and found.missing_change == pytest.approx(b / m - a / n)
    if 0 < a + b < n + m:
        expected = stats.chi2_contingency(
            [[a, n - a], [b, m - b]], correction=False
        ).pvalue  # z squared is chi-squared with 1 df
        assert found.missing_p_value == pytest.approx(expected, rel=1e-6, abs=1e-12)
    else:
        assert found.missing_p_value == 1.0


def test_effect_sizes_don_t_grow_with_the_number_of_rows():
    rng = np.random.default_rng(0)
    small = one(rng.normal(size=2_000), rng.normal(0.02, 1, 2_000))
    large = one(rng.normal(size=500_000), rng.normal(0.02, 1, 500_000))
    assert small.p_adjusted > 0.01 and large.p_adjusted < 1e-6, "any difference is significant in enough rows"
    assert large.effect < 0.02 and not large.drifted() and not small.drifted()
    moved = one(rng.normal(size=2_000), rng.normal(0.5, 1, 2_000))
    assert moved.drifted() and moved.psi > 0.2 and moved.effect > 0.15


def test_sketched_distributions_are_as_far_apart_as_they_say():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=300_000), rng.normal(0.1, 1.1, 250_000)
    found = one(a, b)
    assert 0 < found.error < 0.001
    assert abs(found.effect - stats.ks_2samp(a, b, method="asymp").statistic) <= found.error


def test_new_and_vanished_categories_have_their_shares():
    found = one(["a"] * 60 + ["b"] * 40, ["a"] * 70 + ["c"] * 20 + ["d"] * 10)
    assert found.new == [("c", 0.2), ("d", 0.1)] and found.new_share == pytest.approx(0.3)
    assert found.vanished == [("b", 0.4)] and found.vanished_share == pytest.approx(0.4)
    labels = one([1, 2] * 50, [1, 3] * 50)
    assert labels.new == [(3, 0.5)] and labels.test == "kolmogorov_smirnov", "whole numbers are both"


def test_long_texts_are_compared_by_length():
    found = one([f"text {i} " * 20 for i in range(500)], [f"text {i} " for i in range(500)])
    assert found.of == "length" and found.effect == 1.0 and found.drifted() and found.jensen_shannon > 0.9


def test_one_changed_column_of_many_is_the_one_that_is_found():
    rng = np.random.default_rng(2)
    before = {f"c{i}": rng.normal(size=400) for i in range(100)}
    after = {f"c{i}": rng.normal(0.8 if i == 37 else 0, 1, 400) for i in range(100)}
    found = drift.compare(profiled(**before), profiled(**after))
    assert sum(each.p_value < 0.05 for each in found) > 1, "some by chance"
    assert [each.column for each in found if each.drifted(effect=0.0)] == ["c37"]


def test_stored_profiles_compare_as_well_as_fresh_ones():
    import json

    rng = np.random.default_rng(3)
    before = profiled(
        x=rng.normal(size=5000), c=rng.choice(["a", "b"], 5000).tolist(), t=pa.array(range(5000), pa.timestamp("s"))
    )
    after = profiled(
        x=rng.normal(0.3, 1, 5000),
        c=rng.choice(["a", "b", "z"], 5000).tolist(),
        t=pa.array(range(99, 5099), pa.timestamp("s")),
    )
    stored = Profile.from_json_dict(json.loads(json.dumps(before.to_json_dict())))
    for fresh, again in zip(drift.compare(before, after), drift.compare(stored, after), strict=True):
        assert again.effect == pytest.approx(fresh.effect, abs=0.005) and again.new == fresh.new
        assert again.psi == pytest.approx(fresh.psi, abs=0.02)


def test_nothing_is_compared_with_nothing():
    empty, full = pa.array([], pa.float64()), pa.array([1.0, 2.0])
    found = one(empty, full)
    assert (found.effect, found.p_value, found.psi, found.jensen_shannon) == (0.0, 1.0, 0.0, 0.0)
    assert drift.compare(profiled(x=[1]), profiled(x=["a"])) == [], (
        "other kinds of values are no drift, but a change of schema"
    )


def test_names_of_rows_are_no_categories():
    found = one([f"note-{i}" for i in range(10, 60)], [f"note-{i}" for i in range(20, 80)])
    assert found.of == "length" and found.new == [] and found.effect == 0.0
