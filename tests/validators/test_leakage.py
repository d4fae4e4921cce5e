"""Leakage between splits: exact and near, against brute force on real texts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import ColumnError
from gristmill.kernels.jaccard import pairs
from gristmill.kernels.shingles import shingle_sets
from gristmill.validators.inputs import of_tables
from gristmill.validators.leakage import near_duplicates, shared_rows


def split(rows, name="x", shards=2):
    """Data of several shards."""
    table = pa.Table.from_pylist(rows) if isinstance(rows, list) else rows
    step = -(-table.num_rows // shards) or 1
    return of_tables([table.slice(i, step) for i in range(0, max(table.num_rows, 1), step)], name)


rows = st.lists(
    st.fixed_dictionaries({"a": st.none() | st.integers(0, 4), "b": st.none() | st.sampled_from(["", "x", "y"])}),
    min_size=1,
    max_size=40,
)


@given(rows, rows)
def test_shared_rows_are_those_that_are_in_both(one, other):
    schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
    data = {"train": split(pa.Table.from_pylist(one, schema)), "test": split(pa.Table.from_pylist(other, schema))}
    (leak,) = shared_rows(data)
    small, large = (one, other) if leak.split == "train" else (other, one)
    assert len(small) <= len(large) and leak.of == len(small)
    assert leak.rows == sum(row in large for row in small)
    assert len(leak.examples) == min(leak.rows, 20)
    for row, twin, similarity in leak.examples:
        assert small[row] == large[twin] and similarity == 1.0


def test_columns_may_be_chosen_and_those_of_the_machinery_don_t_count():
    train = split([{"_uid": "1", "text": "one", "label": 0}, {"_uid": "2", "text": "two", "label": 1}])
    test = split([{"_uid": "3", "text": "two", "label": 0}])
    assert shared_rows({"train": train, "test": test})[0].rows == 0
    (leak,) = shared_rows({"train": train, "test": test}, ["text"])
    assert (leak.split, leak.other, leak.rows, leak.share) == ("test", "train", 1, 1.0)
    with pytest.raises(ColumnError, match="Did you mean 'text'"):
        shared_rows({"train": train, "test": test}, ["texts"])


def test_every_pair_of_splits_is_looked_at():
    data = {name: split([{"t": name}, {"t": "same"}]) for name in ("train", "validation", "test")}
    assert [(leak.split, leak.other, leak.rows) for leak in shared_rows(data)] == [
        ("validation", "train", 1),
        ("test", "train", 1),
        ("test", "validation", 1),
    ]


def brute(texts, others, threshold, n=5):
    def shingles(text):
        words = text.lower().split()
        return {tuple(words[i : i + n]) for i in range(max(len(words) - n + 1, 1))}

    sets, others = [shingles(text) for text in texts], [shingles(text) for text in others]
    return {i for i, a in enumerate(sets) if any(len(a & b) / len(a | b) >= threshold for b in others)}


def test_near_duplicates_are_those_of_brute_force():
    rng = np.random.default_rng(5)
    words = [f"w{i}" for i in range(300)]
    train = [" ".join(rng.choice(words, 120)) for _ in range(300)]
    test = []
    for i in range(100):  # a quarter edited a little, a quarter a lot, the rest new
        text = train[i].split()
        for at in rng.choice(120, {0: 1, 1: 30}.get(i % 4, 0), replace=False):
            text[at] = "other"
        test.append(" ".join(text) if i % 4 < 2 else " ".join(rng.choice(words, 120)))
    (leak,) = near_duplicates(
        {"train": split([{"t": t} for t in train]), "test": split([{"t": t} for t in test])}, "t", 0.8
    )
    expected = brute(test, train, 0.8)
    assert leak.split == "test" and leak.rows == len(expected) == 25 and leak.left_out == 0
    for row, twin, similarity in leak.examples:
        assert row in expected and row == twin and 0.8 <= similarity < 1


def test_texts_without_words_leak_nothing_and_nulls_neither():
    data = {"a": split([{"t": ""}, {"t": None}, {"t": "... !"}]), "b": split([{"t": ""}, {"t": None}])}
    assert near_duplicates(data, "t")[0].rows == 0
    with pytest.raises(ColumnError, match="'n' is int64, expected text"):
        near_duplicates({"a": split([{"n": 1}]), "b": split([{"n": 1}])}, "n")


def test_crowded_buckets_are_bounded_and_what_that_leaves_out_is_counted():
    text = "the same words in every row of both splits here"
    data = {"a": split([{"t": text}] * 400), "b": split([{"t": text}] * 300)}
    (leak,) = near_duplicates(data, "t", max_bucket=10)
    assert leak.rows == 300 and leak.left_out > 0


def test_the_hidden_duplicates_of_real_reviews_are_found_across_a_split(shared_data):
    folder = shared_data / "text" / "movie_reviews"
    texts = sorted(path.read_text(encoding="latin-1") for path in folder.glob("*/*.txt"))
    halves = {"one": texts[0::2], "two": texts[1::2]}  # sorted: twins that begin alike fall into different halves
    (leak,) = near_duplicates({name: split([{"t": t} for t in part]) for name, part in halves.items()}, "t", 0.8)
    values, offsets = shingle_sets(pa.array(halves["two"] + halves["one"]), 5)
    left, right = (side.reshape(-1) for side in np.mgrid[0:1000, 1000:2000])  # every pair, no candidates
    similarity = pairs(values, offsets, left, right).reshape(1000, 1000)
    assert {leak.split, leak.other} == {"one", "two"} and leak.of == 1000
    if leak.split == "one":
        similarity = similarity.T
    assert leak.rows == (similarity >= 0.8).any(axis=1).sum() > 3
    assert {(row, twin) for row, twin, _ in leak.examples} == {
        (row, similarity[row].argmax()) for row, _, _ in leak.examples
    }
