"""Signals of a document for quality rules, measured by numba over its UTF-8 bytes.

Tokens. A word is a run of letters, marks and digits of any script, with full stops and underscores inside it; an apostrophe before a letter
begins a new word; in scripts without spaces each letter is a word. A run of hyphens or of full stops is one token, any other character that
isn't white space one each. This comes close to the rule-based tokeniser that datatrove's filters use.

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
from gristmill.kernels.unicode import CLASS, DIGIT, LETTER, MARK, NEWLINE, SPACE, UNSPACED, decode

NAMES = (
    "words", "mean_word_length", "hash_ratio", "ellipsis_ratio", "bullet_lines", "ellipsis_lines", "alpha_words", "stop_words",
    "duplicate_lines", "duplicate_line_chars", "duplicate_paragraphs", "duplicate_paragraph_chars",
    "top_2_gram", "top_3_gram", "top_4_gram",
    "duplicate_5_grams", "duplicate_6_grams", "duplicate_7_grams", "duplicate_8_grams", "duplicate_9_grams", "duplicate_10_grams",
)  # fmt: skip
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
LONGEST = 10  # n-grams
LINE, TOP, REPEATED = 8, 12, 15  # where groups of signals begin

_SEED, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_BASE = np.uint64(0x9E3779B97F4A7C15)


@njit
def _tokens(data, start, stop, kinds, hashes, lengths, stops, out):  # type: ignore[no-untyped-def]
    """Writes each token's hash and length in code points; fills the word signals that tokens tell. Returns (tokens, code points)."""
    count, chars = 0, 0
    words, word_chars, alphas, sharps, ellipses = 0, 0, 0, 0, 0
    stop_bits = np.uint64(0)
    at = start
    while at < stop:
        code, width = decode(data, at, stop)
        kind = kinds[code]
        if kind == SPACE or kind == NEWLINE:
            at += width
            chars += 1
            continue
        h = (_SEED ^ np.uint64(code)) * _PRIME
        size, alpha, plain = 1, kind == LETTER or kind == UNSPACED, kind >= LETTER
        at += width
        if plain or ((code == 39 or code == 0x2019) and at < stop and kinds[decode(data, at, stop)[0]] == LETTER):
            single = kind == UNSPACED
            plain = True
            while at < stop:
                code, width = decode(data, at, stop)
                inside = kinds[code]
                if inside == MARK or (not single and (inside == LETTER or inside == DIGIT)):
                    alpha |= inside == LETTER
                elif single or not (code == 46 or code == 95):
                    break
                else:
                    after = kinds[decode(data, at + 1, stop)[0]] if at + 1 < stop else np.uint8(0)
                    if after != LETTER and after != DIGIT:
                        break
                h = (h ^ np.uint64(code)) * _PRIME
                size += 1
                at += width
        elif code == 45 or code == 46:
            while at < stop and data[at] == code:
                h = (h ^ np.uint64(code)) * _PRIME
                size += 1
                at += 1
            if code == 46:
                ellipses += size // 3
        else:
            sharps += code == 35
            ellipses += code == 0x2026
        hashes[count] = mix64(h)
        lengths[count] = size
        chars += size
        if plain:
            words += 1
            word_chars += size
            alphas += alpha
            if size <= 4:
                stop_bits |= _stop_word(stops, hashes[count])
        count += 1
    out[0] = words
    out[1] = word_chars / words if words else 0.0
    out[2] = sharps / count if count else 0.0
    out[3] = ellipses / count if count else 0.0
    out[6] = alphas / count if count else 0.0
    out[7] = _ones(stop_bits)
    return count, chars


@njit
def _stop_word(stops, key):  # type: ignore[no-untyped-def]
    """The bit of the stop word with this hash; none for another token."""
    for k in range(len(stops)):
        if key == stops[k]:
            return np.uint64(1) << np.uint64(k)
    return np.uint64(0)


@njit
def _ones(bits):  # type: ignore[no-untyped-def]
    count = 0
    while bits:
        count += int(bits & np.uint64(1))
        bits >>= np.uint64(1)
    return count


@njit
def _segment_hash(data, start, stop):  # type: ignore[no-untyped-def]
    h = _SEED
    for at in range(start, stop):
        h = (h ^ np.uint64(data[at])) * _PRIME
    return mix64(h)


@njit
def _code_points(data, start, stop):  # type: ignore[no-untyped-def]
    count = 0
    for at in range(start, stop):
        count += (data[at] & 0xC0) != 0x80
    return count


@njit
def _seen(table, stamps, mask, stamp, key):  # type: ignore[no-untyped-def]
    """(slot of the key, whether it was there): puts it there. Slots of other stamps are free."""
    at = np.int64(key & mask)
    while stamps[at] == stamp:
        if table[at] == key:
            return at, True
        at = (at + 1) & np.int64(mask)
    stamps[at] = stamp
    table[at] = key
    return at, False


@njit
def _lines(data, start, stop, kinds, chars, table, stamps, mask, stamp, out):  # type: ignore[no-untyped-def]
    """Fills the signals of lines: bullets and ellipses over all lines, repeats over lines between runs of line feeds."""
    lines, bullets, dots = 0, 0, 0
    segments, copies, copied = 0, 0, 0
    empty = False
    at = start
    while at < stop or (at == start and start == stop):
        end = at
        while end < stop and data[end] != 10:
            end += 1
        if end > start or start == stop or data[start] == 10:
            lines += 1
        first, last = at, end
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
                else:
                    _, again = _seen(table, stamps, mask, stamp, _segment_hash(data, at, end))
                    if again:
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
def _paragraphs(data, start, stop, kinds, chars, table, stamps, mask, stamp, out):  # type: ignore[no-untyped-def]
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
        end = at
        while end < stop and not (data[end] == 10 and end + 1 < stop and data[end + 1] == 10):
            end += 1
        paragraphs += 1
        _, again = _seen(table, stamps, mask, stamp, _segment_hash(data, at, end))
        if again:
            copies += 1
            copied += _code_points(data, at, end)
        at = end
        while at < stop and data[at] == 10:
            at += 1
    out[LINE + 2] = copies / paragraphs if paragraphs else 0.0
    out[LINE + 3] = copied / chars if chars else 0.0


@njit
def _n_grams(hashes, lengths, count, chars, grams, times, slots, tally, table, stamps, mask, stamp, out):  # type: ignore[no-untyped-def]
    """Fills the n-gram signals. An n-gram can only come again where both (n-1)-grams in it do, so each n looks at fewer places than the last.

    grams[i]: hash of the n-gram that starts at token i. times[i]: how often it comes. Returns the next free stamp.
    """
    for i in range(count):
        grams[i] = hashes[i]
        times[i] = 2  # of single tokens nothing is known: each may come again
    ends = np.int64(0)
    for n in range(2, LONGEST + 1):
        places = count - n + 1
        if places <= 0:
            break
        stamp += 1
        most, first, any_again = 1, 0, False
        for i in range(places):
            slots[i] = -1
            if times[i] < 2 or times[i + 1] < 2:
                continue
            grams[i] = mix64(grams[i] * _BASE + hashes[i + n - 1])
            slot, again = _seen(table, stamps, mask, stamp, grams[i])
            if not again:
                tally[slot] = 0
            tally[slot] += 1
            any_again |= again
            slots[i] = slot
        for i in range(places):
            times[i] = 1
            if slots[i] >= 0:
                times[i] = tally[slots[i]]
                if times[i] > most:  # the first place of the most frequent one
                    most, first = times[i], i
        times[places] = 0  # no n-gram starts here
        if n <= 4:
            size = n - 1
            for k in range(n):
                size += lengths[first + k]
            out[TOP + n - 2] = most * size / chars
        elif any_again:
            stamp += 1
            repeated, i = 0, 0
            while i < places:
                again = False
                if times[i] > 1:
                    _, again = _seen(table, stamps, mask, stamp, grams[i])
                if again:
                    for k in range(n):
                        repeated += lengths[i + k]
                    i += n
                else:
                    i += 1
            out[REPEATED + n - 5] = repeated / chars
        if not any_again and n >= 4:
            break
    return stamp + 1 + ends


@njit(cache=True, nogil=True)
def _signals(data, offsets, valid, kinds, stops):  # type: ignore[no-untyped-def]
    rows = len(valid)
    out = np.zeros((rows, 21), np.float64)
    longest = 1
    for i in range(rows):
        longest = max(longest, offsets[i + 1] - offsets[i])
    hashes, grams = np.empty(longest + 1, np.uint64), np.empty(longest + 1, np.uint64)
    lengths, times, slots = np.empty(longest + 1, np.int32), np.empty(longest + 2, np.int32), np.empty(longest + 1, np.int32)
    size = 64
    while size < 2 * longest:
        size *= 2
    table, stamps, tally = np.empty(size, np.uint64), np.zeros(size, np.int32), np.empty(size, np.int32)
    stamp = 1
    for i in range(rows):
        if not valid[i]:
            continue
        if stamp > 2_000_000_000:
            stamps[:] = 0
            stamp = 1
        start, stop = offsets[i], offsets[i + 1]
        count, chars = _tokens(data, start, stop, kinds, hashes, lengths, stops, out[i])
        room = 64
        while room < 2 * max(count, 1):
            room *= 2
        mask = np.uint64(room - 1)
        whole = room
        while whole < 2 * (stop - start):
            whole *= 2  # lines and paragraphs may outnumber tokens
        _lines(data, start, stop, kinds, chars, table, stamps, np.uint64(whole - 1), stamp, out[i])
        _paragraphs(data, start, stop, kinds, chars, table, stamps, np.uint64(whole - 1), stamp + 1, out[i])
        stamp = _n_grams(hashes, lengths, count, chars, grams, times, slots, tally, table, stamps, mask, stamp + 2, out[i])
    return out


def _word_hash(word: str) -> np.uint64:
    h = int(_SEED)
    for char in word:
        h = ((h ^ ord(char)) * int(_PRIME)) % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        h = ((h ^ (h >> shift)) * factor) % 2**64
    return np.uint64(h ^ (h >> 31))


_STOPS = np.array([_word_hash(word) for word in STOP_WORDS], np.uint64)


def text_signals(array: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The signals NAMES of each row as float64 columns, null for null text; 0 where a text has nothing to measure (no words, no lines).

    words: tokens with a letter or digit. mean_word_length: of those. hash_ratio, ellipsis_ratio: `#`, and `...` and the ellipsis, for each
    token. alpha_words: share of tokens with a letter. stop_words: how many different ones of STOP_WORDS there are. The others are shares.
    """
    rows = slices(array)
    values: npt.NDArray[np.float64] = _signals(rows.data, rows.offsets, rows.valid, CLASS, _STOPS)
    mask = rows.valid == 0
    columns = [pa.array(values[:, i], mask=mask if mask.any() else None) for i in range(len(NAMES))]
    return pa.table(columns, names=list(NAMES))
