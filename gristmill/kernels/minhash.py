"""MinHash signatures, and the bands that turn them into candidate pairs.

Broder 1997: the share of equal entries of two signatures estimates the Jaccard similarity s of the shingle sets, with standard error
sqrt(s (1 - s) / permutations). With b bands of r entries a pair shares a band, so is a candidate, with probability 1 - (1 - s^r)^b.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from gristmill.errors import UsageError
from gristmill.kernels.buffers import Slices, read_only, slices
from gristmill.kernels.shingles import appended, longest_row, mix64, row_shingles, sort_unique, usual_size, word_hashes
from gristmill.kernels.unicode import CLASS, LOWER

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

EMPTY = np.uint32(0xFFFFFFFF)  # every entry of a row without shingles
_STEP = np.uint64(0x9E3779B97F4A7C15)  # splitmix64's


class Sketches(NamedTuple):
    """signatures (rows, permutations) uint32, all EMPTY where a row has no word; and the shingle sets.

    Row i's set is `values[offsets[i]:offsets[i + 1]]`, sorted, each hash once. It is empty for null rows and rows without a word, so
    `offsets[1:] == offsets[:-1]` flags those.
    """

    signatures: U32
    values: U32
    offsets: I64


@functools.lru_cache(maxsize=8)
def permutation_constants(permutations: int) -> tuple[U32, U32]:
    """(flips, odd factors) of the hash functions: permutation j maps a shingle hash x to ((x ^ flip_j) * factor_j) mod 2^32.

    Both are halves of the splitmix64 stream of seed 0: fixed for ever, since signatures are compared across runs. A signature of fewer
    permutations is the beginning of one of more.
    """
    with np.errstate(over="ignore"):
        x = np.arange(1, permutations + 1, dtype=np.uint64) * _STEP
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(32)).astype(np.uint32), (x & np.uint64(0xFFFFFFFF)).astype(np.uint32) | np.uint32(1)


@njit(inline="always")
def _permuted(x, flip, factor):  # type: ignore[no-untyped-def]
    return np.uint32(np.uint32(x ^ flip) * factor)


@njit
def lower_minima(found, count, flips, factors, minima):  # type: ignore[no-untyped-def]
    """Lowers `minima` by the permuted hashes of the shingles, four at a time so that the constants are read once for all four."""
    for start in range(0, count - 3, 4):
        a, b, c, d = found[start], found[start + 1], found[start + 2], found[start + 3]
        for j in range(len(minima)):
            flip, factor = flips[j], factors[j]
            ab = min(_permuted(a, flip, factor), _permuted(b, flip, factor))
            cd = min(_permuted(c, flip, factor), _permuted(d, flip, factor))
            minima[j] = min(minima[j], ab, cd)
    for i in range(count - count % 4, count):
        for j in range(len(minima)):
            minima[j] = min(minima[j], _permuted(found[i], flips[j], factors[j]))


@njit(cache=True, nogil=True)
def _sketches(data, offsets, valid, n, flips, factors, kinds, lowered, keep_sets):  # type: ignore[no-untyped-def]
    rows = len(valid)
    room = longest_row(offsets) // 2 + 1
    words, found, spare = np.empty(room, np.uint64), np.empty(room, np.uint32), np.empty(room, np.uint32)
    tally = np.empty((3, 2048), np.int32)
    signatures = np.full((rows, len(flips)), EMPTY, np.uint32)
    values, ends = np.empty(usual_size(offsets) if keep_sets else 0, np.uint32), np.zeros(rows + 1, np.int64)
    for i in range(rows):
        size = 0
        if valid[i]:
            count = row_shingles(words, word_hashes(data, offsets[i], offsets[i + 1], kinds, lowered, words), n, found)
            lower_minima(found, count, flips, factors, signatures[i])
            if keep_sets:
                size = sort_unique(found, count, spare, tally)
        values = appended(values, ends[i], found, size)
        ends[i + 1] = ends[i] + size
    return signatures, values[: ends[rows]], ends


def sketches(array: pa.Array | pa.ChunkedArray | Slices, n: int = 5, permutations: int = 112) -> Sketches:
    """The MinHash signature and the set of shingles of `n` words of each row, in one pass over the text.

    Both are functions of the row's words and of `n` alone. `shingles` says what a word is, what becomes of rows of fewer than `n` words, and
    why 32-bit hashes do.
    """
    rows = array if isinstance(array, Slices) else slices(array)
    flips, factors = permutation_constants(permutations)
    return Sketches(*_sketches(rows.data, rows.offsets, rows.valid, n, flips, factors, CLASS, LOWER, True))


def signatures(array: pa.Array | pa.ChunkedArray | Slices, n: int = 5, permutations: int = 112) -> U32:
    """(rows, permutations) uint32: the signatures of `sketches`, without the cost of its sets."""
    rows = array if isinstance(array, Slices) else slices(array)
    flips, factors = permutation_constants(permutations)
    return _sketches(rows.data, rows.offsets, rows.valid, n, flips, factors, CLASS, LOWER, False)[0]


def candidate_probability(similarity: npt.ArrayLike, count: int, width: int) -> npt.NDArray[np.float64]:
    """The probability that two rows of this similarity share one of `count` bands of `width` entries: 1 - (1 - s^width)^count."""
    return 1.0 - (1.0 - np.asarray(similarity, np.float64) ** width) ** count


@functools.lru_cache(maxsize=64)
def bands(threshold: float, permutations: int = 112, recall: float = 0.98) -> tuple[int, int]:
    """(bands, entries a band): the widest bands, and as few of them, as find a pair at the threshold with probability >= recall.

    Wide bands make few false candidates, and so do few bands; as many of the permutations are used as that takes: at threshold .8 13 bands of
    6, at .5 30 of 3, at 1 one band of all.

    Raises:
        UsageError: not reachable even with every permutation a band.
    """
    best = None
    for width in range(1, permutations + 1):
        one = threshold**width  # the probability that a band agrees at the threshold
        count = 1 if one >= recall else math.ceil(math.log(1.0 - recall) / math.log1p(-one))
        if count * width > permutations:
            break  # both grow with the width
        best = count, width
    if best is None:
        lowest = 1.0 - (1.0 - recall) ** (1.0 / permutations)
        raise UsageError(
            f"similarity threshold {threshold} is out of reach of {permutations} MinHash permutations at recall {recall}: "
            f"the least is {lowest:.3f}; write a higher threshold or more permutations"
        )
    return best


def band_keys(signature: U32, count: int, width: int) -> U64:
    """(rows, count) uint64: the key of each band of each row, the band's number mixed in; equal keys make rows candidates of each other.

    Rows without a word share all keys: leave them out before.
    """
    return _band_keys(read_only(signature), count, width)


@njit(cache=True, nogil=True)
def _band_keys(signature, count, width):  # type: ignore[no-untyped-def]
    rows = len(signature)
    out = np.empty((rows, count), np.uint64)
    for i in range(rows):
        for band in range(count):
            h = np.uint64(band + 1) * _STEP
            for j in range(band * width, (band + 1) * width):
                h = mix64(h ^ np.uint64(signature[i, j])) + _STEP
            out[i, band] = mix64(h)
    return out
