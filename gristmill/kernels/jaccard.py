"""Exact Jaccard similarity of sorted sets."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit
def common(values, a, a_end, b, b_end, needed):  # type: ignore[no-untyped-def]
    """How many values two sorted sets share; -1 as soon as fewer than `needed` are possible."""
    shared = 0
    while a < a_end and b < b_end:
        x, y = values[a], values[b]
        if x == y:
            shared += 1
            a += 1
            b += 1
        elif x < y:
            a += 1
            if shared + a_end - a < needed:
                return -1
        else:
            b += 1
            if shared + b_end - b < needed:
                return -1
    return shared if shared >= needed else -1


@njit
def at_least(values, offsets, i, j, threshold):  # type: ignore[no-untyped-def]
    """The Jaccard similarity of rows i and j if it is at least the threshold, else -1. Two empty rows are not similar."""
    n, m = offsets[i + 1] - offsets[i], offsets[j + 1] - offsets[j]
    if n == 0 or m == 0 or min(n, m) < threshold * max(n, m):
        return -1.0
    # J >= t  <=>  shared >= t / (1 + t) * (n + m); one less, since the division is rounded
    needed = max(0, int(threshold / (1.0 + threshold) * (n + m)) - 1)
    shared = common(values, offsets[i], offsets[i + 1], offsets[j], offsets[j + 1], needed)
    if shared < 0:
        return -1.0
    similarity = shared / (n + m - shared)
    return similarity if similarity >= threshold else -1.0


@njit(cache=True, nogil=True)
def pairs(values, offsets, left, right):  # type: ignore[no-untyped-def]
    """(pairs,) float64: the Jaccard similarity of rows left[k] and right[k]; 0 where either is empty."""
    out = np.zeros(len(left), np.float64)
    for k in range(len(left)):
        out[k] = max(0.0, at_least(values, offsets, left[k], right[k], 0.0))
    return out
