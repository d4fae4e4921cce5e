"""Signals of a document for quality rules, measured by numba over its UTF-8 bytes.

Repetition follows datatrove's port of Gopher's rules (Rae et al. 2021, table A1): duplicates are the second and later copies, shares of
characters are of the whole text, the most frequent n-gram is the first among equals and counts even if it comes once. Lengths are in code
points; lines end at line feeds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from gristmill.kernels.buffers import slices
from gristmill.kernels.shingles import mix64
from gristmill.kernels.tokens import STOPS, tokens
from gristmill.kernels.unicode import CLASS, NEWLINE, SPACE, decode
from gristmill.kernels.words64 import load64

NAMES = (
    "words", "mean_word_length", "hash_ratio", "ellipsis_ratio", "bullet_lines", "ellipsis_lines", "alpha_words", "stop_words",
    "duplicate_lines", "duplicate_line_chars", "duplicate_paragraphs", "duplicate_paragraph_chars",
    "top_2_gram", "top_3_gram", "top_4_gram",
    "duplicate_5_grams", "duplicate_6_grams", "duplicate_7_grams", "duplicate_8_grams", "duplicate_9_grams", "duplicate_10_grams",
)  # fmt: skip
LONGEST = 10  # n-grams
LINE, TOP, REPEATED = 8, 12, 15  # where groups of signals begin

_SEED = np.uint64(0xCBF29CE484222325)
_BASE = np.uint64(0x9E3779B97F4A7C15)
_COUNT_BITS, _COUNTS = np.uint64(28), np.uint64((1 << 28) - 1)


@njit
def _words(data, start, stop, kinds, hashes, upto, stops, out):  # type: ignore[no-untyped-def]
    """Fills the signals that tokens tell one by one; returns how many there are."""
    count, words, chars, alphas, sharps, ellipses, different = tokens(data, start, stop, kinds, hashes, upto, stops)
    out[0] = words
    out[1] = chars / words if words else 0.0
    out[2] = sharps / count if count else 0.0
    out[3] = ellipses / count if count else 0.0
    out[6] = alphas / count if count else 0.0
    out[7] = different
    return count


@njit
def _segment_hash(data, start, stop):  # type: ignore[no-untyped-def]
    """Eight bytes at a time; the rest, below its length, last."""
    h = _SEED
    at = start
    while at + 8 <= stop:
        h = (h ^ load64(data, at)) * _BASE
        h ^= h >> np.uint64(32)
        at += 8
    rest = np.uint64(stop - start)
    while at < stop:
        rest = (rest << np.uint64(8)) | np.uint64(data[at])
        at += 1
    return mix64(h ^ rest)


@njit
def _line_end(data, at, stop):  # type: ignore[no-untyped-def]
    """Where the next line feed is, or `stop`. Eight bytes at a time: x - 0x01.. & ~x & 0x80.. is not 0 where x has a zero byte."""
    while at + 8 <= stop:
        x = load64(data, at) ^ np.uint64(0x0A0A0A0A0A0A0A0A)
        if (x - np.uint64(0x0101010101010101)) & ~x & np.uint64(0x8080808080808080):
            break
        at += 8
    while at < stop and data[at] != 10:
        at += 1
    return at


@njit
def _code_points(data, start, stop):  # type: ignore[no-untyped-def]
    count = 0
    for at in range(start, stop):
        count += (data[at] & 0xC0) != 0x80
    return count


@njit
def _room(table, entries):  # type: ignore[no-untyped-def]
    """Slots for a hash table of so many entries, a power of two; frees them."""
    room = 64
    while room < 2 * entries:
        room *= 2
    table[:room] = 0
    return room


@njit
def _slot(table, room, key):  # type: ignore[no-untyped-def]
    """The slot that holds the key (whose last bit is set), or the free one, which holds 0, where it belongs."""
    at = np.int64(key >> np.uint64(32)) & (room - 1)
    while table[at] != key and table[at] != 0:
        at = (at + 1) & (room - 1)
    return at


@njit
def _seen(table, room, key):  # type: ignore[no-untyped-def]
    """Whether the key is there; it is from now on."""
    key |= np.uint64(1)
    at = _slot(table, room, key)
    again = table[at] == key
    table[at] = key
    return again


@njit
def _lines(data, start, stop, kinds, chars, table, room, out):  # type: ignore[no-untyped-def]
    """Fills the signals of lines: bullets and ellipses over all lines, repeats over lines between runs of line feeds."""
    lines, bullets, dots = 0, 0, 0
    segments, copies, copied = 0, 0, 0
    empty = False
    at = start
    while at < stop or (at == start and start == stop):
        end = _line_end(data, at, stop)
        if end > start or start == stop or data[start] == 10:
            lines += 1
        first, last = at, end
        while first < end and data[first] == 32:
            first += 1
        while first < end and kinds[decode(data, first, end)[0]] == SPACE:
            first += decode(data, first, end)[1]
        while last > first and data[last - 1] <= 32:
            last -= 1
        if first < end:
            code, _ = decode(data, first, end)
            bullets += code == 0x2022 or code == 45
        if last - at >= 3:
            three = data[last - 3] == 46 and data[last - 2] == 46 and data[last - 1] == 46
            one = data[last - 3] == 0xE2 and data[last - 2] == 0x80 and data[last - 1] == 0xA6
            dots += three or one
        if end > at or at == start or end == stop:
            blank = end == at
            if not (blank and at != start):  # inside a run of line feeds there is no line
                segments += 1
                if blank:
                    empty = True
                elif _seen(table, room, _segment_hash(data, at, end)):
                    copies += 1
                    copied += _code_points(data, at, end)
        at = end + 1
    if stop > start and data[stop - 1] == 10:  # the split leaves an empty line at the end
        segments += 1
        copies += empty
    out[4] = bullets / lines if lines else 0.0
    out[5] = dots / lines if lines else 0.0
    out[LINE] = copies / segments if segments else 0.0
    out[LINE + 1] = copied / chars if chars else 0.0


@njit
def _paragraphs(data, start, stop, kinds, chars, table, room, out):  # type: ignore[no-untyped-def]
    """Fills the signals of paragraphs: what runs of two or more line feeds part, white space at both ends of the text aside."""
    while start < stop:
        code, width = decode(data, start, stop)
        if kinds[code] != SPACE and kinds[code] != NEWLINE:
            break
        start += width
    while stop > start and data[stop - 1] <= 32:
        stop -= 1
    paragraphs, copies, copied = 0, 0, 0
    at = start
    while at < stop:
        end = _line_end(data, at, stop)
        while end < stop and not (end + 1 < stop and data[end + 1] == 10):
            end = _line_end(data, end + 1, stop)
        paragraphs += 1
        if _seen(table, room, _segment_hash(data, at, end)):
            copies += 1
            copied += _code_points(data, at, end)
        at = end
        while at < stop and data[at] == 10:
            at += 1
    out[LINE + 2] = copies / paragraphs if paragraphs else 0.0
    out[LINE + 3] = copied / chars if chars else 0.0


@njit
def _n_grams(hashes, upto, count, chars, grams, places, slots, times, table, out):  # type: ignore[no-untyped-def]
    """Fills the n-gram signals. An n-gram can only come again where both (n-1)-grams in it do, so each n looks at fewer places than the last.

    Of n-gram k of those that may come again, in order: places[k] the token that it starts at, grams[k] its hash, a polynomial over the tokens'
    hashes, slots[k] where `table` counts it, times[k] how often it comes. Token i's characters are upto[i + 1] - upto[i].
    """
    left = max(count - 1, 0)
    for k in range(left):
        places[k] = k
        grams[k] = hashes[k] * _BASE + hashes[k + 1]
    for n in range(2, min(LONGEST, count) + 1):
        any_again = _count(grams, left, slots, times, table)
        if n <= 4:
            most, first = 1, 0
            for k in range(left):
                if times[k] > most:  # the first place of the most frequent one
                    most, first = times[k], places[k]
            out[TOP + n - 2] = most * (upto[first + n] - upto[first] + n - 1) / chars
        if not any_again:
            left = 0
            continue
        again_next = 0
        if n >= 5:
            out[REPEATED + n - 5] = _repeated(places, slots, times, left, table, upto, n) / chars
        for k in range(left - 1):
            start = places[k]
            places[again_next] = start
            grams[again_next] = grams[k] * _BASE + hashes[min(start + n, count - 1)]
            again_next += (places[k + 1] == start + 1) & (times[k] > 1) & (times[k + 1] > 1)
        left = again_next


@njit
def _count(grams, left, slots, times, table):  # type: ignore[no-untyped-def]
    """Counts equal n-grams; returns whether any comes again.

    A slot of `table` is the upper 36 bits of the n-gram's hash above a count of 28, so that a look takes one line of the cache; the place of
    the slot tells the lower bits of the hash, so that two n-grams of 4,000 are taken for one once in 10^8 documents.
    """
    room = _room(table, left)
    again = False
    for k in range(left):
        tag = grams[k] >> _COUNT_BITS << _COUNT_BITS
        at = np.int64(grams[k] & np.uint64(room - 1))
        found = table[at]
        while (found != 0) & ((found ^ tag) > _COUNTS):  # one branch, seldom taken, rather than two
            at = (at + 1) & (room - 1)
            found = table[at]
        again |= found != 0
        table[at] = (found | tag) + np.uint64(1)
        slots[k] = at
    for k in range(left):
        times[k] = table[slots[k]] & _COUNTS
    return again


@njit
def _repeated(places, slots, times, left, table, upto, n):  # type: ignore[no-untyped-def]
    """Code points of the n-grams met before on a walk from the first, which passes each of them in one move. Empties the slots of those met."""
    repeated, free = 0, 0
    for k in range(left):
        if times[k] > 1 and places[k] >= free:
            if table[slots[k]] == 0:
                repeated += upto[places[k] + n] - upto[places[k]]
                free = places[k] + n
            else:
                table[slots[k]] = 0
    return repeated


@njit(cache=True, nogil=True)
def _signals(data, offsets, valid, kinds, stops):  # type: ignore[no-untyped-def]
    rows = len(valid)
    out = np.zeros((rows, 21), np.float64)
    longest = 1
    for i in range(rows):
        longest = max(longest, offsets[i + 1] - offsets[i])
    hashes, grams = np.empty(longest + 1, np.uint64), np.empty(longest + 1, np.uint64)
    upto, places, slots = (
        np.zeros(longest + 2, np.int32),
        np.empty(longest + 1, np.int32),
        np.empty(longest + 1, np.int32),
    )
    times = np.empty(longest + 1, np.int32)
    size = 64
    while size < 2 * (longest + 2):
        size *= 2
    table = np.empty(size, np.uint64)
    for i in range(rows):
        if not valid[i]:
            continue
        start, stop = offsets[i], offsets[i + 1]
        count = _words(data, start, stop, kinds, hashes, upto, stops, out[i])
        feeds, chars = 0, 0
        for at in range(start, stop):
            feeds += data[at] == 10
            chars += (data[at] & 0xC0) != 0x80
        _lines(data, start, stop, kinds, chars, table, _room(table, feeds + 1), out[i])
        _paragraphs(data, start, stop, kinds, chars, table, _room(table, feeds + 1), out[i])
        _n_grams(hashes, upto, count, chars, grams, places, slots, times, table, out[i])
    return out


def text_signals(array: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The signals NAMES of each row as float64 columns, null for null text; 0 where a text has nothing to measure (no words, no lines).

    words: tokens with a letter or digit. mean_word_length: of those. hash_ratio, ellipsis_ratio: `#`, and `...` and the ellipsis, for each
    token. alpha_words: share of tokens with a letter. stop_words: how many different ones of STOP_WORDS there are. The others are shares.
    """
    rows = slices(array)
    values: npt.NDArray[np.float64] = _signals(rows.data, rows.offsets, rows.valid, CLASS, STOPS)
    mask = rows.valid == 0
    columns = [pa.array(values[:, i], mask=mask if mask.any() else None) for i in range(len(NAMES))]
    return pa.table(columns, names=list(NAMES))
