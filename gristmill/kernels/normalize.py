"""Text cleaned byte by byte: line breaks made one kind, control characters taken out. Rows with nothing to do are found in one fast scan."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from gristmill.kernels.buffers import Slices
from gristmill.kernels.unicode import decode
from gristmill.kernels.words64 import load64

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

PLAIN, NON_ASCII, TO_CLEAN, NOT_NFC = 0, 1, 2, 4
"""What `scan` says of a row, as bits: it has bytes over 127; it may have line breaks or control characters to change; it may not be in NFC."""

COMPOSED = (
    (0x0, 0x300), (0x391, 0x483), (0x2010, 0x20D0), (0x2100, 0x2126), (0x2190, 0x2329), (0x232B, 0x2ADC),
    (0x3041, 0x3099), (0x309B, 0x3130), (0x4E00, 0xA000), (0xAC00, 0xD7A4), (0xFE00, 0xFE10), (0xFF01, 0xFFFE), (0x1F300, 0x1FB00),
)  # fmt: skip
"""Ranges, ends left out, of code points that NFC leaves alone wherever they are (NFC_Quick_Check=Yes and combining class 0 in Unicode's annex
15, which no later version may change): most text has no others. Latin, Cyrillic, punctuation, symbols, kana, Han, Hangul, emoji."""


def _composed_table() -> U8:
    table = np.zeros(0x110000, np.uint8)
    for first, end in COMPOSED:
        table[first:end] = 1
    return table


_COMPOSED = _composed_table()


class Cleaned(NamedTuple):
    """The rows after cleaning, and for each how many line breaks were changed and how many characters taken out."""

    data: U8
    offsets: I64
    newlines: I64
    controls: I64


def scan(rows: Slices) -> U8:
    """(rows,) uint8 of the bits above; 0 for a row that is ASCII without anything to change."""
    return _scan(rows.data, rows.offsets, rows.valid, _COMPOSED)


@njit(cache=True, nogil=True)
def _scan(data, offsets, valid, composed):  # type: ignore[no-untyped-def]
    rows = len(valid)
    out = np.zeros(rows, np.uint8)
    for i in range(rows):
        if not valid[i]:
            continue
        high, clean = np.uint8(0), np.uint8(0)
        for at in range(
            offsets[i], offsets[i + 1]
        ):  # without branches, so that many bytes are looked at in one instruction
            byte = data[at]
            high |= byte
            # U+0080-9F begin with C2, U+2028 and 2029 with E2 80, U+FEFF with EF BB: rows with these first bytes are looked at closely
            wide = np.uint8(byte == 0xC2) | np.uint8(byte == 0xE2) | np.uint8(byte == 0xEF)
            control = np.uint8(byte < 32) & np.uint8(byte != 10) & np.uint8(byte != 9)
            clean |= control | np.uint8(byte == 127) | wide
        if high >= 128:
            out[i] = NON_ASCII | (0 if _is_composed(data, offsets[i], offsets[i + 1], composed) else NOT_NFC)
        out[i] |= TO_CLEAN if clean else 0
    return out


@njit
def _is_composed(data, at, stop, composed):  # type: ignore[no-untyped-def]
    """Whether every code point is in COMPOSED."""
    while at < stop:
        if at + 8 <= stop and not load64(data, at) & np.uint64(0x8080808080808080):
            at += 8
            continue
        code, width = decode(data, at, stop)
        if not composed[code]:
            return False
        at += width
    return True


@njit(cache=True, nogil=True)
def _clean(data, offsets, flags):  # type: ignore[no-untyped-def]
    rows = len(flags)
    out = np.empty(offsets[rows] - offsets[0], np.uint8)
    ends = np.zeros(rows + 1, np.int64)
    newlines, controls = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    total = 0
    for i in range(rows):
        at, stop = offsets[i], offsets[i + 1]
        if not flags[i] & TO_CLEAN:
            out[total : total + stop - at] = data[at:stop]
            total += stop - at
            ends[i + 1] = total
            continue
        while at < stop:
            byte = data[at]
            second = data[at + 1] if at + 1 < stop else np.uint8(0)
            third = data[at + 2] if at + 2 < stop else np.uint8(0)
            if byte == 13:  # CR, CR LF
                out[total] = 10
                total += 1
                newlines[i] += 1
                at += 2 if second == 10 else 1
            elif (byte < 32 and byte != 10 and byte != 9) or byte == 127:
                controls[i] += 1
                at += 1
            elif byte == 0xC2 and 0x80 <= second < 0xA0:
                if second == 0x85:  # NEL
                    out[total] = 10
                    total += 1
                    newlines[i] += 1
                else:
                    controls[i] += 1
                at += 2
            elif byte == 0xE2 and second == 0x80 and (third == 0xA8 or third == 0xA9):  # line and paragraph separator
                out[total] = 10
                total += 1
                newlines[i] += 1
                at += 3
            elif byte == 0xEF and second == 0xBB and third == 0xBF:  # byte order mark
                controls[i] += 1
                at += 3
            else:
                out[total] = byte
                total += 1
                at += 1
        ends[i + 1] = total
    return out[:total], ends, newlines, controls


def clean(rows: Slices, flags: U8) -> Cleaned:
    """The rows with every line break as a line feed, and without control characters.

    Line breaks are CR LF, CR, NEL (U+0085), U+2028 and U+2029; control characters C0 and C1 but tab and line feed, DEL, and U+FEFF. `flags`
    are those of `scan`.
    """
    return Cleaned(*_clean(rows.data, rows.offsets, flags))
