"""Tokens of a document as quality rules count them: words, runs of hyphens or full stops, and single other characters.

A word is a run of letters, marks and digits of any script, with full stops and underscores inside it; an apostrophe before a letter begins a
new word; in scripts without spaces each letter is a word. A run of hyphens or of full stops is one token, any other character that isn't white
space one each. This comes close to the rule-based tokeniser that datatrove's filters use.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from gristmill.kernels.shingles import mix64
from gristmill.kernels.unicode import DIGIT, LETTER, MARK, NEWLINE, SPACE, UNSPACED, decode

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

_SEED, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


@njit
def tokens(data, start, stop, kinds, hashes, upto, stops):  # type: ignore[no-untyped-def]
    """Writes each token's hash, and to `upto` the code points of all tokens up to its end.

    Returns (tokens, words, code points of words, words with a letter, `#`s, ellipses, different stop words). kinds is `unicode.CLASS`.
    """
    count = 0
    words, word_chars, alphas, sharps, ellipses = 0, 0, 0, 0, 0
    stop_bits, likely = np.uint64(0), np.uint64(0)  # likely: bit h % 64 of the stop words' hashes h
    for k in range(len(stops)):
        likely |= np.uint64(1) << (stops[k] & np.uint64(63))
    at = start
    while at < stop:
        code, width = decode(data, at, stop)
        kind = kinds[code]
        if kind == SPACE or kind == NEWLINE:
            at += width
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
        upto[count + 1] = upto[count] + size
        if plain:
            words += 1
            word_chars += size
            alphas += alpha
            if size <= 4 and (likely >> (hashes[count] & np.uint64(63))) & np.uint64(1):
                stop_bits |= _stop_word(stops, hashes[count])
        count += 1
    return count, words, word_chars, alphas, sharps, ellipses, _ones(stop_bits)


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


def _word_hash(word: str) -> np.uint64:
    h = int(_SEED)
    for char in word:
        h = ((h ^ ord(char)) * int(_PRIME)) % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        h = ((h ^ (h >> shift)) * factor) % 2**64
    return np.uint64(h ^ (h >> 31))


STOPS = np.array([_word_hash(word) for word in STOP_WORDS], np.uint64)
"""The hashes of STOP_WORDS, in their case."""
