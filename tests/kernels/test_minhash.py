"""Signatures against their definition, and the estimator, the bands and the S-curve against theory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import UsageError
from gristmill.kernels.buffers import slices
from gristmill.kernels.minhash import (
    EMPTY,
    band_keys,
    bands,
    candidate_probability,
    lower_minima,
    permutation_constants,
    signatures,
    sketches,
)
from gristmill.kernels.shingles import shingle_sets

TEXTS = st.lists(st.none() | st.text(st.sampled_from("abcd  漢é\n")), max_size=6)
PERMUTATIONS = 112
TRIALS = 4000
SIGMAS = 4.5  # one wrong alarm in 150,000 checks; the seeds are fixed, so none here


def minima(values: np.ndarray, permutations: int = PERMUTATIONS) -> np.ndarray:
    out = np.full(permutations, EMPTY, np.uint32)
    lower_minima(values, len(values), *permutation_constants(permutations), out)
    return out


def agreement(similarity: float, size: int, seed: int) -> np.ndarray:
    """(TRIALS, permutations) bool: where the signatures of random pairs of sets of this Jaccard similarity agree; `size` is of their union."""
    rng = np.random.default_rng(seed)
    shared = round(similarity * size)
    half = (size - shared) // 2
    assert shared / size == similarity
    found = np.empty((TRIALS, PERMUTATIONS), bool)
    for k in range(TRIALS):
        values = rng.integers(0, 2**32, size, np.uint32)
        found[k] = minima(values[: shared + half]) == minima(np.concatenate([values[:shared], values[shared + half :]]))
    return found


@pytest.mark.parametrize("size", [10, 200])
@pytest.mark.parametrize("similarity", [0.2, 0.5, 0.8, 0.9])
def test_estimator_is_unbiased_with_the_variance_of_independent_permutations(similarity: float, size: int) -> None:
    agrees = agreement(similarity, size, seed=round(similarity * 10) + size)
    estimates = agrees.mean(axis=1)
    variance = similarity * (1 - similarity) / PERMUTATIONS
    assert abs(estimates.mean() - similarity) < SIGMAS * np.sqrt(variance / TRIALS)
    assert abs(estimates.var() / variance - 1) < SIGMAS * np.sqrt(2 / TRIALS)


@pytest.mark.parametrize("similarity", [0.2, 0.5, 0.8, 0.9])
@pytest.mark.parametrize(("count", "width"), [(14, 8), (13, 6), (30, 3), (8, 14)])
def test_candidates_follow_the_s_curve(similarity: float, count: int, width: int) -> None:
    agrees = agreement(similarity, 100, seed=7)
    banded = agrees[:, : count * width].reshape(TRIALS, count, width).all(axis=2).any(axis=1).mean()
    expected = float(candidate_probability(similarity, count, width))
    assert abs(banded - expected) <= SIGMAS * np.sqrt(expected * (1 - expected) / TRIALS) + 1 / TRIALS


@given(TEXTS, st.integers(1, 6), st.sampled_from([1, 16, 112, 113]))
def test_sketches_are_the_minima_over_the_shingle_sets(texts: list[str | None], n: int, permutations: int) -> None:
    array = pa.array(texts, pa.string())
    found = sketches(array, n, permutations)
    values, offsets = shingle_sets(array, n)
    assert np.array_equal(found.values, values)
    assert np.array_equal(found.offsets, offsets)
    flips, factors = permutation_constants(permutations)
    for i in range(len(texts)):
        row = values[offsets[i] : offsets[i + 1]]
        expected = ((row[:, None] ^ flips) * factors).min(axis=0) if len(row) else np.full(permutations, EMPTY)
        assert np.array_equal(found.signatures[i], expected)


@given(TEXTS)
def test_signatures_depend_on_the_row_alone(texts: list[str | None]) -> None:
    array = pa.array(texts, pa.large_string())
    whole = sketches(array).signatures
    assert np.array_equal(signatures(array), whole)
    assert np.array_equal(signatures(slices(array)), whole)
    for i in range(len(texts)):
        assert np.array_equal(signatures(array.slice(i, 1))[0], whole[i])


def test_fewer_permutations_are_the_beginning_of_more() -> None:
    array = pa.array(["a b c d e f g h", "x"])
    assert np.array_equal(signatures(array, 5, 112)[:, :32], signatures(array, 5, 32))


def test_rows_without_a_word_are_empty() -> None:
    found = sketches(pa.array([None, "", " .\n", "a"]))
    assert (found.signatures == EMPTY).all(axis=1).tolist() == [True, True, True, False]
    assert (found.offsets[1:] == found.offsets[:-1]).tolist() == [True, True, True, False]
    assert sketches(pa.array([], pa.string())).signatures.shape == (0, 112)


GOLDEN = [
    380933959,
    1124825182,
    1749691832,
    1593917464,
    1829642754,
    1183223744,
    928562094,
    798254018,
    490456980,
    446879040,
    1144990325,
    458273616,
    642488385,
    1780389227,
    1644573130,
    623512941,
]
GOLDEN_KEYS = [15559108768711953676, 715912219831009979]


def test_frozen() -> None:
    """A change of these numbers changes which rows leave: the steps that use them need a new VERSION."""
    found = signatures(pa.array(["The quick brown fox jumps over"]), 5, 16)
    assert found[0].tolist() == GOLDEN
    assert band_keys(found, 2, 8)[0].tolist() == GOLDEN_KEYS


@pytest.mark.parametrize("recall", [0.9, 0.98])
@pytest.mark.parametrize("permutations", [32, 112])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.999])
def test_bands_are_the_widest_and_fewest_with_the_recall(threshold: float, permutations: int, recall: float) -> None:
    every = [(b, r) for b in range(1, permutations + 1) for r in range(1, permutations // b + 1)]
    enough = [(b, r) for b, r in every if candidate_probability(threshold, b, r) >= recall]
    widest = max(r for _, r in enough)
    assert bands(threshold, permutations, recall) == (min(b for b, r in enough if r == widest), widest)
    below = np.linspace(0, threshold, 501)
    false_candidates = candidate_probability(below, *bands(threshold, permutations, recall)).mean()
    assert false_candidates <= 1.25 * min(candidate_probability(below, b, r).mean() for b, r in enough)


def test_bands_at_the_ends() -> None:
    assert bands(0.8) == (13, 6)
    assert bands(0.5) == (30, 3)
    assert bands(1.0) == (1, 112)
    with pytest.raises(UsageError, match=r"threshold 0.02 is out of reach of 112 .* the least is 0.034"):
        bands(0.02)
    assert bands(0.035)[1] == 1


def test_candidate_probability_of_published_configurations() -> None:
    assert float(candidate_probability(0.8, 14, 8)) == pytest.approx(0.9235, abs=5e-5)  # datatrove's
    assert float(candidate_probability(0.8, 20, 13)) == pytest.approx(0.6773, abs=5e-5)  # NeMo Curator's


def test_band_keys_are_equal_where_the_band_is() -> None:
    rng = np.random.default_rng(3)
    found = rng.integers(0, 3, (200, 12)).astype(np.uint32)
    found[:, 3:6] = found[:, :3]  # two bands of the same entries
    keys = band_keys(found, 4, 3)
    for band in range(4):
        part = found[:, band * 3 : band * 3 + 3]
        same = (part[:, None, :] == part[None, :, :]).all(axis=2)
        assert np.array_equal(keys[:, None, band] == keys[None, :, band], same)
    assert len(np.unique(keys)) == sum(len(np.unique(keys[:, band])) for band in range(4))
