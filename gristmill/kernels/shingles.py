"""Words and word shingles of each row, as hashes.

A word is a run of letters, marks and digits of any script, lower-cased one code point for one; in scripts written without spaces each letter
(with its marks) is a word. A shingle is `n` words in a row. A row of fewer words is one shingle of all its words, so it can only match a row
of the same words; a row without words has none and matches nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from gristmill.kernels.unicode import CLASS, DIGIT, LETTER, LOWER, MARK, UNSPACED, decode

_SEED = np.uint64(0xCBF29CE484222325)  # FNV-1a's offset and prime
_PRIME = np.uint64(0x100000001B3)
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd: the base of the polynomial over word hashes
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # splitmix64's


@njit(inline="always")
def mix64(x):  # type: ignore[no-untyped-def]
    """A bijection of 64-bit numbers in which every input bit moves every output bit (splitmix64's finaliser)."""
    x ^= x >> np.uint64(30)
    x *= _MIX1
    x ^= x >> np.uint64(27)
    x *= _MIX2
    return x ^ (x >> np.uint64(31))


def _ascii_table() -> npt.NDArray[np.uint8]:
    """(128,) the lower-cased byte of a word character, 0 for any other."""
    table = np.zeros(128, np.uint8)
    for code in range(128):
        if CLASS[code] in (LETTER, DIGIT, MARK):
            table[code] = LOWER[code]
    return table


_ASCII = _ascii_table()


@njit
def word_hashes(data, start, stop, kinds, lowered, out):  # type: ignore[no-untyped-def]
    """Writes the hash of each word of a row to `out`, which has room for `stop - start` of them; returns how many."""
    count = 0
    h = _SEED
    inside = False
    at = start
    while at < stop:
        byte = data[at]
        if byte < 128:
            at += 1
            low = _ASCII[byte]
            if low:
                h = (h ^ np.uint64(low)) * _PRIME
                inside = True
            elif inside:
                out[count] = mix64(h)
                count += 1
                h = _SEED
                inside = False
            continue
        code, width = decode(data, at, stop)
        at += width
        kind = kinds[code]
        if kind == LETTER or kind == DIGIT or (kind == MARK and inside):
            h = (h ^ np.uint64(lowered[code])) * _PRIME
            inside = True
        elif kind == UNSPACED:
            if inside:
                out[count] = mix64(h)
                count += 1
            h = (_SEED ^ np.uint64(lowered[code])) * _PRIME
            inside = True
        elif inside:
            out[count] = mix64(h)
            count += 1
            h = _SEED
            inside = False
        if inside and kind == UNSPACED and at < stop and not _continues(data, at, stop, kinds):
            out[count] = mix64(h)
            count += 1
            h = _SEED
            inside = False
    if inside:
        out[count] = mix64(h)
        count += 1
    return count


@njit
def _continues(data, at, stop, kinds):  # type: ignore[no-untyped-def]
    """Whether the next code point is a mark, which belongs to the letter before it."""
    code, _ = decode(data, at, stop)
    return kinds[code] == MARK


@njit
def row_shingles(words, count, n, out):  # type: ignore[no-untyped-def]
    """Writes the 32-bit hash of each shingle of a row to `out`; returns how many. They come in the row's order, repeated ones too."""
    if count == 0:
        return 0
    length = min(n, count)
    top = np.uint64(1)  # base^(length - 1)
    for _ in range(length - 1):
        top *= _BASE
    h = np.uint64(0)
    for i in range(length):
        h = h * _BASE + words[i]
    salt = np.uint64(length)
    out[0] = np.uint32(mix64(h + salt) >> np.uint64(32))
    for i in range(length, count):
        h = (h - words[i - length] * top) * _BASE + words[i]
        out[i - length + 1] = np.uint32(mix64(h + salt) >> np.uint64(32))
    return count - length + 1


@njit
def sort_unique(values, count, spare, tally):  # type: ignore[no-untyped-def]
    """Sorts the first `count` values and drops repeats in place; returns how many are left. `spare` has as much room; tally (3, 2048)."""
    if count <= 128:
        _insertion_sort(values, count)
        return _drop_repeats(values, values, count)
    tally[:] = 0
    for i in range(count):
        value = values[i]
        tally[0, value & np.uint32(2047)] += 1
        tally[1, (value >> np.uint32(11)) & np.uint32(2047)] += 1
        tally[2, value >> np.uint32(22)] += 1
    for digit in range(3):
        total = np.int32(0)
        for at in range(2048):
            size = tally[digit, at]
            tally[digit, at] = total
            total += size
    _scatter(values, spare, count, np.uint32(0), tally[0])
    _scatter(spare, values, count, np.uint32(11), tally[1])
    _scatter(values, spare, count, np.uint32(22), tally[2])
    return _drop_repeats(spare, values, count)


@njit
def _scatter(source, target, count, shift, places):  # type: ignore[no-untyped-def]
    """One pass of a radix sort by 11 bits."""
    for i in range(count):
        value = source[i]
        digit = (value >> shift) & np.uint32(2047)
        target[places[digit]] = value
        places[digit] += 1


@njit
def _insertion_sort(values, count):  # type: ignore[no-untyped-def]
    for i in range(1, count):
        value = values[i]
        j = i - 1
        while j >= 0 and values[j] > value:
            values[j + 1] = values[j]
            j -= 1
        values[j + 1] = value


@njit
def _drop_repeats(source, target, count):  # type: ignore[no-untyped-def]
    left = 0
    for i in range(count):
        if i == 0 or source[i] != source[i - 1]:
            target[left] = source[i]
            left += 1
    return left
