"""What each code point is to a word splitter, frozen: tables that don't change with the Python version, so results never do either.

`CLASS[code]` is one of the classes below and `LOWER[code]` the simple lower case; kernels get both as arguments (a numba global would be
compiled into the machine code). The order of the classes is part of the interface: `kind >= LETTER` is a word character, `LETTER` and
`UNSPACED` are the alphabetic ones (`str.isalpha`), `SPACE` and `NEWLINE` together are `str.isspace`, `NEWLINE` is where `str.splitlines` cuts.
`unicode.bin` holds the tables as run lengths; `unicode_make.py` writes it.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numba import njit

OTHER, SPACE, NEWLINE, LETTER, MARK, DIGIT, UNSPACED = range(7)
"""Classes: punctuation, symbols and the rest; white space; line breaks; letters; marks, which continue a word; digits and other numbers;
letters of scripts written without spaces, each of them (with the marks after it) a word by itself."""

CODE_POINTS = 0x110000
FILE = Path(__file__).with_name("unicode.bin")


def _load() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """The tables from the runs: count, first code points, classes, then pairs (code point, its lower case)."""
    raw = zlib.decompress(FILE.read_bytes())
    (count,) = struct.unpack_from("<I", raw)
    starts = np.frombuffer(raw, "<u4", count, 4)
    kinds = np.frombuffer(raw, np.uint8, count, 4 + 4 * count)
    pairs = np.frombuffer(raw, "<u4", -1, 4 + 5 * count).reshape(-1, 2)
    lower = np.arange(CODE_POINTS, dtype=np.int32)
    lower[pairs[:, 0]] = pairs[:, 1]
    return np.repeat(kinds, np.diff(np.append(starts, CODE_POINTS))), lower


CLASS, LOWER = _load()
"""CLASS (0x110000,) uint8: the class of each code point. LOWER (0x110000,) int32: its simple lower case, one code point for one."""


@njit(inline="always")
def decode(data, at, end):  # type: ignore[no-untyped-def]
    """(code point, bytes) of the UTF-8 sequence at `at`, at most 0x10FFFF whatever the bytes are; never reads at or after `end`."""
    first = np.int64(data[at])
    if first < 0x80:
        return first, 1
    if first < 0xE0 and at + 1 < end:
        return ((first & 0x1F) << 6) | (np.int64(data[at + 1]) & 0x3F), 2
    if first < 0xF0 and at + 2 < end:
        return ((first & 0x0F) << 12) | ((np.int64(data[at + 1]) & 0x3F) << 6) | (np.int64(data[at + 2]) & 0x3F), 3
    if at + 3 < end:
        tail = (
            ((np.int64(data[at + 1]) & 0x3F) << 12)
            | ((np.int64(data[at + 2]) & 0x3F) << 6)
            | (np.int64(data[at + 3]) & 0x3F)
        )
        return min(((first & 0x07) << 18) | tail, 0x10FFFF), 4
    return np.int64(0xFFFD), end - at
