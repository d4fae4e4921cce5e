"""Similarities of sorted sets against Python's sets, at and around every threshold that can be met exactly."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.kernels.jaccard import at_least, pairs
from gristmill.kernels.shingles import shingle_sets

SETS = st.lists(st.sets(st.integers(0, 40)), min_size=1, max_size=5)


def flat(sets: list[set[int]]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([value for one in sets for value in sorted(one)], np.uint32)
    return values, np.cumsum([0, *map(len, sets)])


def jaccard(one: set[int], other: set[int]) -> float:
    return len(one & other) / len(one | other) if one and other else 0.0


@given(SETS)
def test_pairs(sets: list[set[int]]) -> None:
    left, right = (side.ravel() for side in np.meshgrid(np.arange(len(sets)), np.arange(len(sets))))
    found = pairs(*flat(sets), left, right)
    assert found.tolist() == [jaccard(sets[i], sets[j]) for i, j in zip(left, right, strict=True)]


@given(SETS, st.floats(0.01, 1))
def test_pairs_at_least(sets: list[set[int]], threshold: float) -> None:
    left, right = (side.ravel() for side in np.meshgrid(np.arange(len(sets)), np.arange(len(sets))))
    exact = [jaccard(sets[i], sets[j]) for i, j in zip(left, right, strict=True)]
    assert pairs(*flat(sets), left, right, threshold).tolist() == [j if j >= threshold else 0.0 for j in exact]


@pytest.mark.parametrize("union", [*range(1, 130), 1000, 5000])
def test_a_similarity_equal_to_the_threshold_is_enough(union: int) -> None:
    for shared in {1, union // 3 + 1, union // 2 + 1, max(1, union * 4 // 5), union}:
        for only_left in {0, (union - shared) // 2, union - shared}:
            one = set(range(shared + only_left))
            other = set(range(shared)) | set(range(shared + only_left, union))
            values, offsets = flat([one, other])
            similarity = shared / union
            assert at_least(values, offsets, 0, 1, similarity) == similarity
            assert at_least(values, offsets, 1, 0, similarity) == similarity
            assert at_least(values, offsets, 0, 1, math.nextafter(similarity, 2)) == -1


def test_long_sets_that_part_early_or_late() -> None:
    rng = np.random.default_rng(5)
    base = set(rng.integers(0, 2**32, 5000).tolist())
    order = sorted(base)
    for cut in (0, 100, 2500, 4900, 5000):
        other = set(order[:cut]) | set(rng.integers(0, 2**32, 5000 - cut).tolist())
        found = pairs(*flat([base, other]), np.array([0]), np.array([1]))[0]
        assert found == jaccard(base, other)
        assert pairs(*flat([base, other]), np.array([0]), np.array([1]), 0.5)[0] == (found if found >= 0.5 else 0)


def test_sets_of_some_blocks() -> None:
    rng = np.random.default_rng(6)
    sets = [set(rng.integers(0, 70, size).tolist()) for size in rng.integers(0, 90, 400)]
    left, right = rng.integers(0, 400, (2, 5000))
    found = pairs(*flat(sets), left, right)
    assert found.tolist() == [jaccard(sets[i], sets[j]) for i, j in zip(left, right, strict=True)]


def test_hashed_shingles_give_the_similarity_of_the_words_themselves(shared_data: Path) -> None:
    """Two 32-bit hashes meet by chance about once in all these pairs, as the docstring of `shingle_sets` has it: m^2 / 2^32 for each pair."""
    files = sorted((shared_data / "text/spdx_licences").glob("*.txt"))[::5]
    texts = [text for file in files if (text := file.read_bytes().decode("utf-8", "replace")).isascii()]
    assert len(texts) > 100
    sets = []
    for text in texts:
        words = re.findall("[a-z0-9]+", text.lower())
        sets.append({tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))})
    left, right = np.triu_indices(len(texts), 1)
    found = pairs(*shingle_sets(pa.array(texts)), left, right)
    off = np.abs(found - [jaccard(sets[i], sets[j]) for i, j in zip(left, right, strict=True)])
    sizes = np.array([len(one) for one in sets])
    assert np.count_nonzero(off) <= 3 + 3 * (sizes[left] * sizes[right]).sum() / 2**32
    assert off.max() <= 2 / sizes.min()
    assert (found >= 0.8).any()
