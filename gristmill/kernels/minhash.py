"""MinHash signatures, and the bands that turn them into candidate pairs.

Broder 1997: the share of equal entries of two signatures estimates the Jaccard similarity s of the shingle sets, with standard error
sqrt(s (1 - s) / permutations). With b bands of r entries a pair shares a band with probability 1 - (1 - s^r)^b.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from gristmill.errors import UsageError
from gristmill.kernels.buffers import slices
from gristmill.kernels.shingles import mix64, row_shingles, sort_unique, word_hashes
from gristmill.kernels.unicode import CLASS, LOWER

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

EMPTY = np.uint32(0xFFFFFFFF)  # every entry of a row without shingles


@functools.lru_cache(maxsize=8)
def permutation_constants(permutations: int) -> tuple[U32, U32]:
    """(flips, odd factors) of the hash functions: permutation j maps a shingle hash x to ((x ^ flip_j) * factor_j) mod 2^32.

    Both come from splitmix64 over 1, 2, 3, ...: fixed for ever, since signatures are compared across runs.
    """
    with np.errstate(over="ignore"):
        x = np.arange(1, permutations + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(32)).astype(np.uint32), (x & np.uint64(0xFFFFFFFF)).astype(np.uint32) | np.uint32(1)


@njit(inline="always")
def _permuted(x, flip, factor):  # type: ignore[no-untyped-def]
    return np.uint32(np.uint32(x ^ flip) * factor)


@njit
def _minima(found, count, flips, factors, minima):  # type: ignore[no-untyped-def]
    """Lowers `minima` by the permuted hashes of the shingles, four at a time so that the constants are read once for all four."""
    for start in range(0, count - 3, 4):
        a, b, c, d = found[start], found[start + 1], found[start + 2], found[start + 3]
        for j in range(len(minima)):
            flip, factor = flips[j], factors[j]
            ab = min(_permuted(a, flip, factor), _permuted(b, flip, factor))
            cd = min(_permuted(c, flip, factor), _permuted(d, flip, factor))
            minima[j] = min(minima[j], min(ab, cd))
    for i in range(count - count % 4, count):
        for j in range(len(minima)):
            minima[j] = min(minima[j], _permuted(found[i], flips[j], factors[j]))


@njit(cache=True, nogil=True)
def _sketches(data, offsets, valid, n, flips, factors, kinds, lowered):  # type: ignore[no-untyped-def]
    rows = len(valid)
    longest = 0
    for i in range(rows):
        longest = max(longest, offsets[i + 1] - offsets[i])
    words, found, spare = np.empty(longest + 1, np.uint64), np.empty(longest + 1, np.uint32), np.empty(longest + 1, np.uint32)
    tally = np.empty((3, 2048), np.int32)
    signature = np.full((rows, len(flips)), EMPTY, np.uint32)
    ends = np.zeros(rows + 1, np.int64)
    values = np.empty(max(1024, (offsets[rows] - offsets[0]) // 5), np.uint32)
    total = 0
    for i in range(rows):
        if valid[i]:
            count = row_shingles(words, word_hashes(data, offsets[i], offsets[i + 1], kinds, lowered, words), n, found)
            _minima(found, count, flips, factors, signature[i])
            size = sort_unique(found, count, spare, tally)
            if total + size > len(values):
                larger = np.empty(max(2 * len(values), total + size), np.uint32)
                larger[:total] = values[:total]
                values = larger
            values[total : total + size] = found[:size]
            total += size
        ends[i + 1] = total
    return signature, values[:total].copy(), ends


class Sketches(NamedTuple):
    """signatures (rows, permutations) uint32, all EMPTY where a row has no word. Row i's shingle set is `values[offsets[i]:offsets[i + 1]]`,
    sorted, each hash once; empty for null rows and rows without a word."""

    signatures: U32
    values: U32
    offsets: npt.NDArray[np.int64]


def sketches(array: pa.Array | pa.ChunkedArray, n: int = 5, permutations: int = 112) -> Sketches:
    """The MinHash signature and the set of shingles of `n` words of each row, in one pass over the text.

    Shingle hashes have 32 bits: between two rows of m shingles each about m^2 / 2^32 match by chance, which moves their similarity by
    m / 2^33: under .0001 up to 800,000 words.
    """
    rows = slices(array)
    flips, factors = permutation_constants(permutations)
    return Sketches(*_sketches(rows.data, rows.offsets, rows.valid, n, flips, factors, CLASS, LOWER))


@functools.lru_cache(maxsize=64)
def bands(threshold: float, permutations: int = 112, recall: float = 0.98) -> tuple[int, int]:
    """(bands, entries a band): the widest bands with which a pair at the threshold still becomes a candidate with probability >= recall.

    The wider the bands, the fewer pairs under the threshold are candidates. At threshold 1 the whole signature is one band.

    Raises:
        UsageError: not reachable even with bands of one entry.
    """
    for width in range(permutations, 0, -1):
        count = permutations // width
        if 1.0 - (1.0 - threshold**width) ** count >= recall:
            return count, width
    least = (1.0 - (1.0 - recall) ** (1.0 / permutations)) ** 1.0
    raise UsageError(f"threshold {threshold} is too low for {permutations} permutations: the least is {least:.3f}; use more permutations")


@njit(cache=True, nogil=True)
def band_keys(signature, count, width):  # type: ignore[no-untyped-def]
    """(rows, count) uint64: the key of each band of each row, the band's number mixed in."""
    rows = len(signature)
    out = np.empty((rows, count), np.uint64)
    for i in range(rows):
        for band in range(count):
            h = np.uint64(band + 1) * np.uint64(0x9E3779B97F4A7C15)
            for j in range(band * width, (band + 1) * width):
                h = mix64(h ^ np.uint64(signature[i, j])) + np.uint64(0x9E3779B97F4A7C15)
            out[i, band] = mix64(h)
    return out
