"""What the scan says of a row against Python's own Unicode, and white space made one."""

from __future__ import annotations

import re
import sys
import unicodedata

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from gristmill.kernels.buffers import slices, text_array
from gristmill.kernels.normalize import _COMPOSED, NON_ASCII, NOT_NFC, TO_CLEAN, scan
from gristmill.kernels.unicode import CLASS, NEWLINE, SPACE
from gristmill.kernels.whitespace import collapse

HANGUL = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}  # vowels and finals, which compose with what is before them
ODD = [
    "a",
    " ",
    "\n",
    "\u0301",
    "é",
    "\u212b",
    "ก",
    "\u0e38",
    "漢",
    "\u3099",
    "か",
    "한",
    "\u1161",
    "ᄀ",
    "\u2028",
    "\ufeff",
    "😀",
    "\u20d0",
]


def test_composed_code_points_are_left_alone_by_nfc_wherever_they_are() -> None:
    seconds = {}
    for code in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<") and unicodedata.normalize("NFC", chr(code)) == chr(code):
            seconds[int(parts[1], 16)] = code
    for code in np.flatnonzero(_COMPOSED).tolist():
        char = chr(code)
        assert unicodedata.combining(char) == 0 and code not in seconds and code not in HANGUL, hex(code)
        assert unicodedata.normalize("NFC", char) == char, hex(code)


@given(st.lists(st.one_of(st.text(), st.lists(st.sampled_from(ODD)).map("".join)), max_size=8))
def test_rows_that_are_not_flagged_need_nothing(texts: list[str]) -> None:
    for text, flag in zip(texts, scan(slices(pa.array(texts, pa.string()))), strict=True):
        assert bool(flag & NON_ASCII) == (not text.isascii())
        assert flag & NOT_NFC or unicodedata.normalize("NFC", text) == text
        assert flag & TO_CLEAN or not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]", text)


def test_null_rows_have_no_flags() -> None:
    assert scan(slices(pa.array([None, "é", "plain"]))).tolist() == [0, NON_ASCII, 0]


@given(
    st.lists(
        st.one_of(st.none(), st.text(), st.lists(st.sampled_from([*ODD, "\t", "\x85", "\u3000"])).map("".join)),
        max_size=8,
    )
)
def test_white_space_is_one(texts: list[str | None]) -> None:
    data, offsets = collapse(slices(pa.array(texts, pa.string())))
    white = "".join(chr(code) for code in np.flatnonzero((CLASS == SPACE) | (CLASS == NEWLINE)))
    expected = [re.sub(f"[{re.escape(white)}]+", " ", text or "").strip(" ") for text in texts]
    assert text_array(data, offsets).to_pylist() == expected
