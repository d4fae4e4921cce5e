"""The code point tables against Python's own, and the UTF-8 decoder against Python's codec."""

from __future__ import annotations

import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.kernels import unicode, unicode_make
from gristmill.kernels.unicode import CLASS, DIGIT, LETTER, LOWER, MARK, NEWLINE, OTHER, SPACE, UNSPACED, decode

CASES = {
    OTHER: "!-_'’。、·$€\u200b\ufffd\x00😀",
    SPACE: " \t\xa0\u3000\u2009\x1f",
    NEWLINE: "\n\r\x0b\x0c\x1c\x85\u2028\u2029",
    LETTER: "azAZéßΩжשعहকஅ한ꙮ𝔘ʰª",
    MARK: "\u0301\u064b\u093e\u0e34\u3099\u20dd",
    DIGIT: "059²½Ⅳ٣५〇𝟗",
    UNSPACED: "漢語々〆あアーｱㄅ𠀀กາកမཀ𗀀ꦲ",
}


@pytest.mark.parametrize(("kind", "text"), CASES.items())
def test_classes(kind: int, text: str) -> None:
    assert [int(CLASS[ord(char)]) for char in text] == [kind] * len(text)


def test_tables_agree_with_python_where_its_unicode_is_the_same() -> None:
    if unicodedata.unidata_version != "14.0.0":
        pytest.skip(f"the tables are Unicode 14.0, this Python has {unicodedata.unidata_version}")
    chars = [chr(code) for code in range(sys.maxunicode + 1)]
    assert np.array_equal([char.isalpha() for char in chars], (CLASS == LETTER) | (CLASS == UNSPACED))
    assert np.array_equal([char.isspace() for char in chars], (CLASS == SPACE) | (CLASS == NEWLINE))
    assert np.array_equal([len(f"a{char}b".splitlines()) == 2 for char in chars], CLASS == NEWLINE)
    assert np.array_equal([unicodedata.category(char)[0] == "M" for char in chars], CLASS == MARK)
    single = [char.lower() if len(char.lower()) == 1 else char for char in chars]
    assert [code for code in range(sys.maxunicode + 1) if LOWER[code] != ord(single[code])] == [0x130]


def test_lower_case_is_one_code_point() -> None:
    assert [chr(LOWER[ord(char)]) for char in "AÉΣЖİẞꙊ1漢"] == list("aéσжißꙋ1漢")
    assert np.array_equal(LOWER[LOWER], LOWER)


def test_the_file_is_what_its_maker_makes(tmp_path, capsys) -> None:
    if unicodedata.unidata_version != "14.0.0":
        pytest.skip(f"the file was made with Unicode 14.0, this Python has {unicodedata.unidata_version}")
    unicode_make.main(tmp_path / "unicode.bin")
    assert "Unicode 14.0.0" in capsys.readouterr().out
    assert (tmp_path / "unicode.bin").read_bytes() == unicode.FILE.read_bytes()


@given(st.text())
def test_decode_reads_what_python_wrote(text: str) -> None:
    data = np.frombuffer(text.encode(), np.uint8)
    at, found = 0, []
    while at < len(data):
        code, width = decode.py_func(data, at, len(data))
        found.append(chr(code))
        at += width
    assert "".join(found) == text


@given(st.binary(min_size=1, max_size=8))
def test_decode_stays_inside_broken_bytes(raw: bytes) -> None:
    data = np.frombuffer(raw, np.uint8)
    at = 0
    while at < len(data):
        code, width = decode.py_func(data, at, len(data))
        assert 0 <= code <= 0x10FFFF
        assert 1 <= width <= len(data) - at
        at += width
