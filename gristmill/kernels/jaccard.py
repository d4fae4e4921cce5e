"""Sorted sets: their exact Jaccard similarity, and copies of some of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from gristmill.kernels.buffers import read_only


@njit
def common(values, a, a_end, b, b_end, needed):  # type: ignore[no-untyped-def]
    """How many values two sorted sets share; -1 as soon as fewer than `needed` are possible."""
    shared = 0
    while a < a_end and b < b_end:
        if shared + min(a_end - a, b_end - b) < needed:
            return -1
        for _ in range(min(64, a_end - a, b_end - b)):  # no branch inside: neither side can run out in so many moves
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


def copy_sets(
    values: npt.NDArray[np.uint32],
    offsets: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    out: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.int64],
) -> None:
    """Copies set rows[k] of (values, offsets) to `out` from starts[k] on."""
    _copy_sets(read_only(values), read_only(offsets), read_only(rows), out, read_only(starts))


@njit(cache=True, nogil=True)
def _copy_sets(values, offsets, rows, out, starts):  # type: ignore[no-untyped-def]
    for k in range(len(rows)):
        first, at = offsets[rows[k]], starts[k]
        for i in range(offsets[rows[k] + 1] - first):
            out[at + i] = values[first + i]
