"""Numbers of every Arrow type in one canonical form, a tag and 64-bit words: equal integers have one form, whatever their type."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from gristmill.kernels.buffers import read_only

INTEGER, BIG, REAL, FRACTION = 1, 2, 3, 4
"""Tags. INTEGER: an integer within int64; BIG: one from 2^63 to 2^64 - 1; REAL: any other float; FRACTION: any other decimal."""

Form = tuple[int | npt.NDArray[np.int64], npt.NDArray[Any]]
"""A tag, the same for all rows or one a row, and the words (rows, n)."""


def fixed(array: pa.Array, item: str) -> npt.NDArray[Any]:
    """(rows, items) view of the values of a type of fixed width, anything where null."""
    dtype = np.dtype(item)
    items = array.type.bit_width // 8 // dtype.itemsize
    buffer = array.buffers()[1]
    if buffer is None or len(array) == 0:
        return np.zeros((len(array), items), dtype)
    return np.frombuffer(buffer, dtype, len(array) * items, array.offset * items * dtype.itemsize).reshape(-1, items)


def integer_form(array: pa.Array) -> Form:
    """The form of integers of any width: INTEGER or BIG and one word."""
    kind = array.type
    if not pa.types.is_unsigned_integer(kind):
        return INTEGER, fixed(array, f"i{kind.bit_width // 8}")
    values = fixed(array, f"u{kind.bit_width // 8}")
    return (np.where(values[:, 0] >= 2**63, BIG, INTEGER) if kind.bit_width == 64 else INTEGER), values


def float_form(array: pa.Array) -> Form:
    """The form of floats of any width: that of an integer where they are one within -2^63 to 2^64 - 1 (-0.0 is 0), else REAL and the float64.

    Every NaN has one form.
    """
    with np.errstate(invalid="ignore"):  # signalling NaN
        numbers = fixed(array, f"f{array.type.bit_width // 8}")[:, 0].astype(np.float64)
    numbers[np.isnan(numbers)] = np.nan  # one bit pattern
    words = numbers.copy().view(np.uint64)
    tags = np.full(len(numbers), REAL)
    whole = (np.trunc(numbers) == numbers) & (numbers >= -(2.0**63)) & (numbers < 2.0**64)
    if whole.any():
        big = whole & (numbers >= 2.0**63)
        small = whole & ~big
        words[small] = numbers[small].astype(np.int64).view(np.uint64)
        words[big] = numbers[big].astype(np.uint64)
        tags[small], tags[big] = INTEGER, BIG
    return tags, words.reshape(-1, 1)


def decimal_form(array: pa.Array) -> Form:
    """(tags, words (rows, 6)) of decimals of any width and scale: that of an integer in the first word, or FRACTION and all words.

    The words of a FRACTION: its exponent of ten, the mantissa without trailing zeros as four words, the lowest first, and whether it is negative.
    """
    limbs = fixed(array, "i4" if array.type.bit_width == 32 else "i8").astype(np.int64)
    wide = np.repeat(limbs[:, -1:] >> 63, 4, axis=1)  # sign extension
    wide[:, : limbs.shape[1]] = limbs
    tags, words = _decimals(read_only(wide.view(np.uint32).astype(np.uint64)), array.type.scale)
    return tags, words


@njit(cache=True, nogil=True)
def _decimals(wide, scale):  # type: ignore[no-untyped-def]
    """`wide` (rows, 8): 32 bits of the two's complement mantissa in each, the lowest first."""
    rows = len(wide)
    tags, words = np.empty(rows, np.int64), np.zeros((rows, 6), np.int64)
    low32, ten = np.uint64(0xFFFFFFFF), np.uint64(10)
    limbs, quotient = np.empty(8, np.uint64), np.empty(8, np.uint64)
    for i in range(rows):
        negative = wide[i, 7] >> np.uint64(31)
        carry, top = negative, 0
        for k in range(8):
            limbs[k] = wide[i, k]
            if negative:
                limbs[k] = (~limbs[k] & low32) + carry
                carry = limbs[k] >> np.uint64(32)
                limbs[k] &= low32
            if limbs[k]:
                top = k + 1
        exponent = -scale if top else 0
        while top:  # divide by ten as long as nothing remains
            rest = np.uint64(0)
            for k in range(top - 1, -1, -1):
                part = (rest << np.uint64(32)) | limbs[k]
                quotient[k] = part // ten
                rest = part - quotient[k] * ten
            if rest:
                break
            for k in range(top):
                limbs[k] = quotient[k]
            exponent += 1
            if limbs[top - 1] == 0:
                top -= 1
        number = limbs[0] | (limbs[1] << np.uint64(32))
        most = np.uint64(0x8000000000000000) if negative else np.uint64(0xFFFFFFFFFFFFFFFF)
        power, whole = exponent, top <= 2 and exponent >= 0
        while whole and power:
            whole = number <= most // ten
            number *= ten
            power -= 1
        if whole and number <= most:
            tags[i] = 2 if not negative and number >> np.uint64(63) else 1  # BIG, INTEGER
            words[i, 0] = -np.int64(number) if negative else np.int64(number)
        else:
            tags[i] = 4  # FRACTION
            words[i, 0], words[i, 5] = exponent, negative
            for k in range(4):
                words[i, k + 1] = np.int64(limbs[2 * k] | (limbs[2 * k + 1] << np.uint64(32)))
    return tags, words
