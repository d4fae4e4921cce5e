"""Coverage: rows by slice and combination, and class balance."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import ColumnError
from gristmill.validators.coverage import class_shares, slice_counts, thin_slices
from gristmill.validators.inputs import of_tables

ROWS = st.lists(
    st.tuples(st.none() | st.sampled_from(["a", "b", ""]), st.none() | st.integers(0, 2)), min_size=1, max_size=60
)


@given(ROWS, st.integers(1, 5))
def test_counts_are_those_of_the_rows_however_they_are_cut(rows, shards):
    table = pa.table(
        {"x": pa.array([a for a, _ in rows], pa.string()), "y": pa.array([b for _, b in rows], pa.int64())}
    )
    step = -(-len(rows) // shards)
    data = of_tables([table.slice(i, step) for i in range(0, len(rows), step)], "t")
    assert slice_counts(data, ["x", "y"]) == Counter(rows)
    assert slice_counts(data, ["y"]) == Counter((b,) for _, b in rows)


def test_thin_slices_are_those_with_too_few_rows_missing_combinations_among_them():
    counts = {("en", "news"): 100, ("en", "code"): 3, ("de", "news"): 9}
    assert thin_slices(counts, 10) == [(("en", "code"), 3), (("de", "news"), 9)]
    expected = [["en", "de"], ["news", "code"]]
    assert thin_slices(counts, 10, expected) == [(("de", "code"), 0), (("en", "code"), 3), (("de", "news"), 9)]
    assert thin_slices(counts, 3) == []


def test_class_shares_leave_nulls_out_and_columns_are_checked():
    data = of_tables([pa.table({"label": pa.array(["a", "a", "b", None]).dictionary_encode()})], "t")
    assert class_shares(slice_counts(data, ["label"])) == {"a": pytest.approx(2 / 3), "b": pytest.approx(1 / 3)}
    with pytest.raises(ColumnError, match="Did you mean 'label'"):
        slice_counts(data, ["labels"])
