"""Survivors, links and components against brute force over Python sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.kernels.jaccard import pairs
from gristmill.kernels.minhash import band_keys, bands, sketches
from gristmill.kernels.resolve import bucket_numbers, components, links, resolve

SETS = st.lists(st.sets(st.integers(0, 7)), min_size=1, max_size=14)
THRESHOLDS = st.sampled_from([0.2, 1 / 3, 0.5, 0.6, 0.75, 1.0])


def flat(sets: list[set[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([value for one in sets for value in sorted(one)], np.uint32), np.cumsum([0, *map(len, sets)])


def jaccard(one: set[int], other: set[int]) -> float:
    return len(one & other) / len(one | other) if one and other else 0.0


def one_bucket(rows: int) -> np.ndarray:
    return np.zeros((rows, 1), np.uint64)


def reference(sets: list[set[int]], keys: np.ndarray, threshold: float) -> tuple[list[int], list[float]]:
    kept_by, similarity, kept = [], [], []
    for row, one in enumerate(sets):
        like = [k for k in kept if (keys[k] == keys[row]).any() and jaccard(sets[k], one) >= threshold]
        kept_by.append(like[0] if like else -1)
        similarity.append(jaccard(sets[like[0]], one) if like else 0.0)
        if not like:
            kept.append(row)
    return kept_by, similarity


def reference_labels(count: int, edges: list[tuple[int, int]]) -> list[int]:
    labels = list(range(count))
    for _ in range(count):
        for a, b in edges:
            labels[a] = labels[b] = min(labels[a], labels[b])
    return labels


@given(SETS, THRESHOLDS)
def test_every_pair_a_candidate(sets: list[set[int]], threshold: float) -> None:
    found = resolve(one_bucket(len(sets)), *flat(sets), threshold)
    kept_by, similarity = reference(sets, one_bucket(len(sets)), threshold)
    assert found.kept_by.tolist() == kept_by
    assert found.similarity.tolist() == similarity
    assert found.capped.sum() == 0


@given(SETS, THRESHOLDS, st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_candidates_share_a_band(sets: list[set[int]], threshold: float, seed: int, bands: int) -> None:
    keys = np.random.default_rng(seed).integers(0, 4, (len(sets), bands)).astype(np.uint64)
    found = resolve(keys, *flat(sets), threshold)
    assert (found.kept_by.tolist(), found.similarity.tolist()) == reference(sets, keys, threshold)
    pairs = sum(bool((keys[i] == keys[j]).any()) for i in range(len(sets)) for j in range(i))
    assert found.comparisons.sum() <= pairs


@given(SETS, THRESHOLDS)
def test_survivors_survive_again(sets: list[set[int]], threshold: float) -> None:
    found = resolve(one_bucket(len(sets)), *flat(sets), threshold)
    left = [one for one, other in zip(sets, found.kept_by, strict=True) if other < 0]
    assert (resolve(one_bucket(len(left)), *flat(left), threshold).kept_by == -1).all()
    assert (found.kept_by[found.kept_by[found.kept_by >= 0]] == -1).all()


def test_a_chain_keeps_both_ends() -> None:
    sets = [{1, 2, 3, 4}, {2, 3, 4, 5}, {3, 4, 5, 6}]  # neighbours are .6 alike, the ends 1/3
    assert resolve(one_bucket(3), *flat(sets), 0.6).kept_by.tolist() == [-1, 0, -1]
    assert links(one_bucket(3), *flat(sets), 0.6).labels.tolist() == [0, 0, 0]


def test_hot_buckets_are_bounded_and_counted() -> None:
    sets = [{i, 100} for i in range(20)] + [{19, 100}]
    found = resolve(one_bucket(21), *flat(sets), 0.9, max_bucket=5)
    assert found.kept_by.tolist() == [-1] * 21  # the twin of row 19 is beyond the bound
    assert found.comparisons.sum() == sum(min(i, 5) for i in range(21))
    assert found.capped.sum() == sum(max(0, i - 5) for i in range(21))
    assert resolve(one_bucket(21), *flat(sets), 0.9).kept_by.tolist() == [-1] * 20 + [19]
    linked = links(one_bucket(21), *flat(sets), 0.9, max_bucket=5)
    assert linked.labels.tolist() == list(range(21))
    assert (linked.comparisons, linked.capped) == (found.comparisons.sum(), found.capped.sum())


def test_identical_rows_cost_one_comparison_each() -> None:
    sets = [{1, 2, 3}] * 5000
    keys = np.tile(np.arange(13, dtype=np.uint64), (5000, 1))
    found = resolve(keys, *flat(sets), 0.8, max_bucket=4)
    assert found.kept_by.tolist() == [-1] + [0] * 4999
    assert (found.comparisons.sum(), found.capped.sum()) == (4999, 0)
    linked = links(keys, *flat(sets), 0.8, max_bucket=4)
    assert not linked.labels.any()
    assert linked.comparisons == 4999


def test_nothing_to_resolve() -> None:
    for rows in (0, 1):
        keys = np.zeros((rows, 3), np.uint64)
        found = resolve(keys, *flat([{1}] * rows), 0.8)
        assert found.kept_by.tolist() == [-1] * rows
        assert links(keys, *flat([{1}] * rows), 0.8).labels.tolist() == [0] * rows


@given(SETS, THRESHOLDS, st.integers(0, 2**32 - 1))
def test_links_are_the_components_of_the_verified_pairs(sets: list[set[int]], threshold: float, seed: int) -> None:
    keys = np.random.default_rng(seed).integers(0, 4, (len(sets), 2)).astype(np.uint64)
    edges = [
        (i, j)
        for i in range(len(sets))
        for j in range(i)
        if (keys[i] == keys[j]).any() and jaccard(sets[i], sets[j]) >= threshold
    ]
    assert links(keys, *flat(sets), threshold).labels.tolist() == reference_labels(len(sets), edges)


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_components(graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = graph
    left, right = (np.array([edge[side] for edge in edges], np.int64) for side in (0, 1))
    expected = reference_labels(count, edges)
    assert components(left, right, count).tolist() == expected
    assert components(right[::-1], left[::-1], count).tolist() == expected


@pytest.mark.parametrize("rows", [0, 1, 50])
def test_bucket_numbers(rows: int) -> None:
    keys = np.random.default_rng(rows).integers(0, 30, (rows, 3)).astype(np.uint64)
    numbers, starts = bucket_numbers(keys)
    assert np.array_equal(np.bincount(numbers[numbers >= 0], minlength=len(starts) - 1), np.diff(starts))
    for band in range(3):
        for row in range(rows):
            same = np.flatnonzero(keys[:, band] == keys[row, band]).tolist()
            expected = [] if len(same) == 1 else same
            assert (
                np.flatnonzero((numbers[:, band] == numbers[row, band]) & (numbers[row, band] >= 0)).tolist()
                == expected
            )
    assert all(not set(numbers[:, a]) & set(numbers[:, b]) - {-1} for a in range(3) for b in range(a))


def read(folder: Path) -> list[str]:
    return [file.read_bytes().decode("utf-8", "replace") for file in sorted(folder.glob("*.txt"))]


@pytest.mark.parametrize(("threshold", "least"), [(0.9, 131), (0.8, 316), (0.7, 533), (0.5, 886)])
def test_recall_and_precision_on_licences(shared_data: Path, threshold: float, least: int) -> None:
    """`least` is the number of such pairs that the data's README counts, as lower bounds."""
    found = sketches(pa.array(read(shared_data / "text/spdx_licences")))
    left, right = np.triu_indices(len(found.signatures), 1)
    exact = pairs(found.values, found.offsets, left, right)
    like = exact >= threshold
    assert like.sum() >= least
    keys = band_keys(found.signatures, *bands(threshold))
    result = resolve(keys, found.values, found.offsets, threshold)
    kept = result.kept_by < 0
    assert (like & kept[left] & kept[right]).sum() <= 0.02 * like.sum()
    gone = np.flatnonzero(~kept)
    assert kept[result.kept_by[gone]].all()
    assert (result.kept_by[gone] < gone).all()
    verified = pairs(found.values, found.offsets, result.kept_by[gone], gone)
    assert np.array_equal(verified, result.similarity[gone])
    assert verified.min() >= threshold
    labels = links(keys, found.values, found.offsets, threshold).labels
    assert np.array_equal(labels[gone], labels[result.kept_by[gone]])


def test_reading_levels_stay_and_their_copies_go(shared_data: Path) -> None:
    levels = {name: read(shared_data / "text/onestop" / name) for name in ("adv", "int", "ele", "int_copy")}
    level = np.repeat(list(levels), [len(texts) for texts in levels.values()])
    found = sketches(pa.array([text for texts in levels.values() for text in texts]))
    result = resolve(band_keys(found.signatures, *bands(0.8)), found.values, found.offsets, 0.8)
    gone = np.flatnonzero(result.kept_by >= 0)
    ours = level[gone] != "int_copy"
    assert (level[gone[ours]] == level[result.kept_by[gone[ours]]]).all()
    original, copy = np.flatnonzero(level == "int"), np.flatnonzero(level == "int_copy")
    near = copy[pairs(found.values, found.offsets, original, copy) >= 0.8]
    assert len(near) > 100
    assert np.isin(near, gone).mean() >= 0.98


def test_the_seven_hidden_duplicates_among_film_reviews(shared_data: Path) -> None:
    texts = [text for folder in ("neg", "pos") for text in read(shared_data / "text/movie_reviews" / folder)]
    found = sketches(pa.array(texts))
    left, right = np.triu_indices(len(texts), 1)
    like = np.flatnonzero(pairs(found.values, found.offsets, left, right, 0.8) > 0)
    result = resolve(band_keys(found.signatures, *bands(0.8)), found.values, found.offsets, 0.8)
    gone = np.flatnonzero(result.kept_by >= 0)
    assert len(like) == 7
    assert sorted(gone) == sorted(right[like])
    assert sorted(result.kept_by[gone]) == sorted(left[like])
