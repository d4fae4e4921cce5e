"""Sums of float64 values and of their squares without any rounding, whatever the order: integers in limbs of 32 bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from gristmill.kernels.buffers import read_only
from gristmill.kernels.words64 import mulhi

LIMBS = 70
"""Limbs of a sum: bit 0 of limb 0 is 2^-1074, the smallest float; 2^1023 is bit 17 of limb 65, and the rest is room."""
SQUARE_LIMBS = 138
"""Limbs of a sum of squares: bit 0 is 2^-2148."""
BLOCK = 1 << 28  # values between two carries: a limb of 64 bits takes 2^31 additions of 32 bits


@njit(inline="always")
def _split(word):  # type: ignore[no-untyped-def]
    exponent = np.int64((word >> np.uint64(52)) & np.uint64(0x7FF))
    mantissa = word & np.uint64(0xFFFFFFFFFFFFF)
    if exponent:
        mantissa |= np.uint64(1) << np.uint64(52)
        exponent -= 1
    return mantissa, exponent


@njit(cache=True, nogil=True)
def _add(values, limbs):  # type: ignore[no-untyped-def]
    mask = np.uint64(0xFFFFFFFF)
    words = values.view(np.uint64)
    for i in range(len(words)):
        word = words[i]
        mantissa, exponent = _split(word)
        at, off = exponent >> 5, np.uint64(exponent & 31)
        low = np.int64((mantissa << off) & mask)
        rest = mantissa >> (np.uint64(32) - off)
        middle, high = np.int64(rest & mask), np.int64(rest >> np.uint64(32))
        if word >> np.uint64(63):
            low, middle, high = -low, -middle, -high
        limbs[at] += low
        limbs[at + 1] += middle
        limbs[at + 2] += high


@njit(cache=True, nogil=True)
def _add_squares(values, limbs):  # type: ignore[no-untyped-def]
    mask = np.uint64(0xFFFFFFFF)
    words = values.view(np.uint64)
    for i in range(len(words)):
        mantissa, exponent = _split(words[i])
        low, high = mantissa * mantissa, mulhi(mantissa, mantissa)
        at, off = (2 * exponent) >> 5, np.uint64((2 * exponent) & 31)
        back = np.uint64(32) - off
        a, b, c, d = low & mask, low >> np.uint64(32), high & mask, high >> np.uint64(32)
        limbs[at] += np.int64((a << off) & mask)
        limbs[at + 1] += np.int64(((b << off) & mask) | (a >> back))
        limbs[at + 2] += np.int64(((c << off) & mask) | (b >> back))
        limbs[at + 3] += np.int64(((d << off) & mask) | (c >> back))
        limbs[at + 4] += np.int64(d >> back)


@njit(cache=True, nogil=True)
def _carry(limbs):  # type: ignore[no-untyped-def]
    for i in range(len(limbs) - 1):
        over = limbs[i] >> 32
        limbs[i] -= over << 32
        limbs[i + 1] += over


def new_sum(*, squares: bool = False) -> npt.NDArray[np.int64]:
    """A sum of nothing. Two such arrays are joined by adding them, up to 2^30 times."""
    return np.zeros(SQUARE_LIMBS if squares else LIMBS, np.int64)


def add(values: npt.NDArray[np.float64], limbs: npt.NDArray[np.int64], *, squares: bool = False) -> None:
    """Adds finite values, or their squares, to the sum in place."""
    kernel = _add_squares if squares else _add
    for start in range(0, len(values), BLOCK):
        kernel(read_only(values[start : start + BLOCK]), limbs)
        _carry(limbs)


def total(limbs: npt.NDArray[np.int64]) -> int:
    """The sum as an integer, in units of 2^-1074, or 2^-2148 for squares."""
    return sum(limb << (32 * i) for i, limb in enumerate(limbs.tolist()) if limb)
