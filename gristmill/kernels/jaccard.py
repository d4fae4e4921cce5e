"""Sorted sets: their exact Jaccard similarity."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from gristmill.kernels.buffers import read_only
from gristmill.kernels.native import BLOCK, matches


@njit
def common(values, a, a_end, b, b_end, needed):  # type: ignore[no-untyped-def]
    """How many values two sorted sets (uint32, each value once) share; -1 as soon as fewer than `needed` are possible.

    A block of one is compared with a block of the other, all with all; then the one that ends first moves on, so no pair of values is left out.
    """
    shared, at = 0, values.ctypes.data
    while a + BLOCK <= a_end and b + BLOCK <= b_end:
        if shared + min(a_end - a, b_end - b) < needed:
            return -1
        shared += matches(at + 4 * a, at + 4 * b)
        x, y = values[a + BLOCK - 1], values[b + BLOCK - 1]
        a += BLOCK * int(x <= y)
        b += BLOCK * int(y <= x)
    while a < a_end and b < b_end:
        x, y = values[a], values[b]
        shared += int(x == y)
        a += int(x <= y)
        b += int(y <= x)
    return shared if shared >= needed else -1


@njit
def at_least(values, offsets, i, j, threshold):  # type: ignore[no-untyped-def]
    """The Jaccard similarity of rows i and j if it is at least the threshold, else -1. Two empty rows are not similar."""
    n, m = offsets[i + 1] - offsets[i], offsets[j + 1] - offsets[j]
    if n == 0 or m == 0 or min(n, m) / max(n, m) < threshold:
        return -1.0
    # J >= t  <=>  shared >= t / (1 + t) * (n + m); one less, since the division is rounded
    needed = max(0, int(threshold / (1.0 + threshold) * (n + m)) - 1)
    shared = common(values, offsets[i], offsets[i + 1], offsets[j], offsets[j + 1], needed)
    if shared < 0:
        return -1.0
    similarity = shared / (n + m - shared)
    return similarity if similarity >= threshold else -1.0


def pairs(
    values: npt.NDArray[np.uint32],
    offsets: npt.NDArray[np.int64],
    left: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
    threshold: float = 0.0,
) -> npt.NDArray[np.float64]:
    """(pairs,) float64: the Jaccard similarity of rows left[k] and right[k] of `shingle_sets`; 0 where either is empty.

    A similarity under the threshold comes out as 0: those pairs are mostly told by their lengths or the first part of their sets.
    """
    return _pairs(read_only(values), read_only(offsets), read_only(left), read_only(right), threshold)


@njit(cache=True, nogil=True)
def _pairs(values, offsets, left, right, threshold):  # type: ignore[no-untyped-def]
    out = np.zeros(len(left), np.float64)
    for k in range(len(left)):
        out[k] = max(0.0, at_least(values, offsets, left[k], right[k], threshold))
    return out
