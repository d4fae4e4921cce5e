"""Words and word shingles of each row, as hashes.

A word is a maximal run of letters, marks and digits of any script, lower-cased one code point for one; in scripts written without spaces each
letter, with the marks after it, is a word. A shingle is `n` words in a row. A row of fewer words is one shingle of all its words, so it can
only match a row of exactly the same words; a row without words has none and matches nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from gristmill.kernels.buffers import Slices, slices
from gristmill.kernels.unicode import CLASS, DIGIT, LETTER, LOWER, MARK, UNSPACED, decode

U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]

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
    return np.where(CLASS[:128] >= LETTER, LOWER[:128], 0).astype(np.uint8)


_ASCII = _ascii_table()


@njit
def word_hashes(data, start, stop, kinds, lowered, out):  # type: ignore[no-untyped-def]
    """Writes the 64-bit hash of each word of a row to `out` and returns how many: at most `(stop - start) // 2 + 1`.

    kinds and lowered are `unicode.CLASS` and `LOWER`. A hash is FNV-1a over the lowered code points, then mixed.
    """
    count = 0
    h = _SEED
    inside = 0  # 1: in a word; 2: after a letter that is a word by itself, which only marks continue
    at = start
    while at < stop:
        byte = data[at]
        if byte < 128 and inside < 2:  # without a branch at the ends of words, which no processor foresees
            at += 1
            low = np.uint64(_ASCII[byte])
            letter = int(low != 0)
            out[count] = h
            count += inside & (1 - letter)
            h = (h ^ low) * _PRIME if letter else _SEED
            inside = letter
            continue
        code, width = decode(data, at, stop)
        at += width
        kind = kinds[code]
        joins = kind == MARK or (inside == 1 and kind in (LETTER, DIGIT))
        if inside and not joins:
            out[count] = h
            count += 1
            h = _SEED
            inside = 0
        if kind >= LETTER:
            h = (h ^ np.uint64(lowered[code])) * _PRIME
            inside = 2 if kind == UNSPACED or inside == 2 else 1
    if inside:
        out[count] = h
        count += 1
    for i in range(count):
        out[i] = mix64(out[i])
    return count


@njit
def row_shingles(words, count, n, out):  # type: ignore[no-untyped-def]
    """Writes the 32-bit hash of each shingle of a row to `out`; returns how many. They come in the row's order, repeated ones too.

    The words of a shingle make a polynomial mod 2^64, rolled from one shingle to the next, then mixed; the high half is the hash. Its number
    of words is mixed in, so that the one shingle of a short row equals no part of a longer row.
    """
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


@njit
def appended(values, total, found, size):  # type: ignore[no-untyped-def]
    """`values` with `found[:size]` written at `total`; a larger copy of it where there was no room."""
    if total + size > len(values):
        larger = np.empty(max(2 * len(values), total + size), np.uint32)
        for k in range(total):  # loops, since numba takes two seconds to compile the assignment of a slice
            larger[k] = values[k]
        values = larger
    for k in range(size):
        values[total + k] = found[k]
    return values


@njit
def longest_row(offsets):  # type: ignore[no-untyped-def]
    """The bytes of the longest row."""
    longest = 0
    for i in range(len(offsets) - 1):
        longest = max(longest, offsets[i + 1] - offsets[i])
    return longest


@njit
def usual_size(offsets):  # type: ignore[no-untyped-def]
    """Room for the shingle sets of most texts, whose words take over five bytes; what isn't used is never backed by memory."""
    return (offsets[len(offsets) - 1] - offsets[0]) // 5 + 64


@njit(cache=True, nogil=True)
def _shingle_sets(data, offsets, valid, n, kinds, lowered):  # type: ignore[no-untyped-def]
    rows = len(valid)
    room = longest_row(offsets) // 2 + 1
    words, found, spare = np.empty(room, np.uint64), np.empty(room, np.uint32), np.empty(room, np.uint32)
    tally = np.empty((3, 2048), np.int32)
    values, ends = np.empty(usual_size(offsets), np.uint32), np.zeros(rows + 1, np.int64)
    for i in range(rows):
        size = 0
        if valid[i]:
            count = word_hashes(data, offsets[i], offsets[i + 1], kinds, lowered, words)
            size = sort_unique(found, row_shingles(words, count, n, found), spare, tally)
        values = appended(values, ends[i], found, size)
        ends[i + 1] = ends[i] + size
    return values[: ends[rows]], ends


def shingle_sets(array: pa.Array | pa.ChunkedArray | Slices, n: int = 5) -> tuple[U32, I64]:
    """(values, offsets): row i's set of shingle hashes is `values[offsets[i]:offsets[i + 1]]`, sorted, each once; empty for null rows.

    Hashes have 32 bits, which halves the memory of the sets: between two rows of m shingles each about m^2 / 2^32 match by chance, which
    moves their similarity by m / 2^33: less than .0001 up to 800,000 words. `minhash.sketches` gives the same sets with the signatures.
    """
    rows = array if isinstance(array, Slices) else slices(array)
    return _shingle_sets(rows.data, rows.offsets, rows.valid, n, CLASS, LOWER)
