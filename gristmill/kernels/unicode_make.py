"""Writes `unicode.bin` from the running Python's `unicodedata`: `python -m gristmill.kernels.unicode_make` (it was made with Unicode 14.0).

A new file changes results: every step that splits words then needs a new VERSION.
"""

from __future__ import annotations

import struct
import sys
import unicodedata
import zlib
from pathlib import Path

import numpy as np

from gristmill.kernels.unicode import CODE_POINTS, DIGIT, FILE, LETTER, MARK, NEWLINE, OTHER, SPACE, UNSPACED

UNSPACED_NAMES = (
    "CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH", "IDEOGRAPHIC", "VERTICAL IDEOGRAPHIC", "HIRAGANA", "HENTAIGANA", "KATAKANA",
    "HALFWIDTH KATAKANA", "HALFWIDTH HIRAGANA", "VERTICAL KANA", "BOPOMOFO", "YI SYLLABLE", "TANGUT", "NUSHU", "KHITAN SMALL SCRIPT",
    "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "TAI LE", "NEW TAI LUE", "TAI THAM", "TAI VIET", "AHOM", "JAVANESE", "BALINESE",
)  # fmt: skip
"""How the names of their letters begin: the scripts of line break classes ID and SA of Unicode's annex 14, and three written like them."""

NEWLINES = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"  # where str.splitlines cuts
# the one letter whose full lower case is two code points and whose simple one is another letter: capital I with a dot above
SIMPLE_LOWER = {0x130: 0x69}


def class_of(code: int) -> int:
    """The class of a code point."""
    char = chr(code)
    category = unicodedata.category(char)
    if char in NEWLINES:
        return NEWLINE
    if char.isspace():
        return SPACE
    if category[0] == "L":  # Tangut ideographs are the only letters without a name
        return UNSPACED if unicodedata.name(char, "TANGUT").startswith(UNSPACED_NAMES) else LETTER
    return {"M": MARK, "N": DIGIT}.get(category[0], OTHER)


def lower_of(code: int) -> int:
    """The simple lower case of a code point: itself if it has none."""
    low = chr(code).lower()
    return SIMPLE_LOWER.get(code, ord(low) if len(low) == 1 else code)


def make() -> bytes:
    """The content of `unicode.bin`."""
    kinds = np.array([class_of(code) for code in range(CODE_POINTS)], np.uint8)
    starts = np.flatnonzero(np.diff(kinds, prepend=255)).astype("<u4")
    pairs = [(code, lower_of(code)) for code in range(CODE_POINTS) if lower_of(code) != code]
    raw = struct.pack("<I", len(starts)) + starts.tobytes() + kinds[starts].tobytes() + np.array(pairs, "<u4").tobytes()
    return zlib.compress(raw, 9)


def main(path: Path = FILE) -> None:
    """Writes the file and says what it was made of."""
    path.write_bytes(make())
    sys.stdout.write(f"{path}: {path.stat().st_size} bytes, Unicode {unicodedata.unidata_version}\n")


if __name__ == "__main__":
    main()
