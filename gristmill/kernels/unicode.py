"""What each code point is to a word splitter, frozen: tables that don't change with the Python version, so results never do either.

`unicode.bin` holds the tables as run lengths; `python -m gristmill.kernels.unicode` makes it anew from the running Python's `unicodedata`
(it was made with Unicode 14.0). Changing it changes results: every step that uses it needs a new VERSION.
"""

from __future__ import annotations

import struct
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numba import njit

OTHER, SPACE, NEWLINE, LETTER, MARK, DIGIT, UNSPACED = range(7)
"""Classes: punctuation, symbols and the rest; white space; line breaks; letters; marks, which continue a word; digits; letters of scripts
written without spaces, each a word by itself."""

CODE_POINTS = 0x110000
UNSPACED_NAMES = (
    "CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "BOPOMOFO", "YI SYLLABLE",
    "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "TAI LE", "NEW TAI LUE", "TAI THAM", "TAI VIET", "JAVANESE",
)  # fmt: skip
NEWLINES = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_FILE = Path(__file__).with_name("unicode.bin")


def _load() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    raw = zlib.decompress(_FILE.read_bytes())
    (count,) = struct.unpack_from("<I", raw)
    starts = np.frombuffer(raw, "<u4", count, 4)
    kinds = np.frombuffer(raw, np.uint8, count, 4 + 4 * count)
    pairs = np.frombuffer(raw, "<u4", -1, 4 + 5 * count).reshape(-1, 2) if (len(raw) - 4 - 5 * count) else np.zeros((0, 2), np.uint32)
    lower = np.arange(CODE_POINTS, dtype=np.int32)
    lower[pairs[:, 0]] = pairs[:, 1]
    return np.repeat(kinds, np.diff(np.append(starts, CODE_POINTS))), lower


CLASS, LOWER = _load() if _FILE.exists() else (np.zeros(CODE_POINTS, np.uint8), np.zeros(CODE_POINTS, np.int32))
"""CLASS (0x110000,) uint8: the class of each code point. LOWER (0x110000,) int32: its simple lower case, one code point for one."""


@njit(inline="always")
def decode(data, at, end):  # type: ignore[no-untyped-def]
    """(code point, bytes) of the UTF-8 sequence at `at`, which must be valid; never reads at or after `end`."""
    first = np.int64(data[at])
    if first < 0x80:
        return first, 1
    if first < 0xE0 and at + 1 < end:
        return ((first & 0x1F) << 6) | (np.int64(data[at + 1]) & 0x3F), 2
    if first < 0xF0 and at + 2 < end:
        return ((first & 0x0F) << 12) | ((np.int64(data[at + 1]) & 0x3F) << 6) | (np.int64(data[at + 2]) & 0x3F), 3
    if at + 3 < end:
        tail = ((np.int64(data[at + 1]) & 0x3F) << 12) | ((np.int64(data[at + 2]) & 0x3F) << 6) | (np.int64(data[at + 3]) & 0x3F)
        return (((first & 0x07) << 18) | tail) & 0x1FFFFF, 4
    return np.int64(0xFFFD), end - at


def _class_of(code: int) -> int:
    char = chr(code)
    category = unicodedata.category(char)
    if char in NEWLINES:
        return NEWLINE
    if char.isspace() or category == "Zs":
        return SPACE
    if category[0] == "M":
        return MARK
    if category == "Nd" or category == "No" or category == "Nl":
        return DIGIT
    if category[0] == "L":
        return UNSPACED if unicodedata.name(char, "").startswith(UNSPACED_NAMES) else LETTER
    return OTHER


def _make() -> bytes:
    kinds = np.array([_class_of(code) for code in range(CODE_POINTS)], np.uint8)
    starts = np.flatnonzero(np.diff(kinds, prepend=255)).astype("<u4")
    lowered = [(code, ord(low)) for code in range(CODE_POINTS) if not 0xD800 <= code < 0xE000 and len(low := chr(code).lower()) == 1 and ord(low) != code]
    raw = struct.pack("<I", len(starts)) + starts.tobytes() + kinds[starts].tobytes() + np.array(lowered, "<u4").tobytes()
    return zlib.compress(raw, 9)


if __name__ == "__main__":
    _FILE.write_bytes(_make())
    print(f"{_FILE}: {_FILE.stat().st_size} bytes, Unicode {unicodedata.unidata_version}")
