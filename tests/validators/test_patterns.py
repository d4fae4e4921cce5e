"""Regexes have Python's own meaning; LIKE patterns that of SQL."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.validators.columns import Column
from gristmill.validators.membership import index_in
from gristmill.validators.patterns import compiled, like, search

PIECES = [
    "a",
    "b",
    ".",
    r"\d",
    r"\w",
    r"\s",
    r"\S",
    r"\b",
    r"\B",
    "^",
    "$",
    r"\A",
    r"\Z",
    "[a-c]",
    "[^a]",
    "é",
    "(a|bc)",
    "(?:x|)",
    r"\n",
    "@",
    r"[^\W\d]",
]
REPEATS = ["", "", "", "*", "+", "?", "{2}", "{1,3}", "*?", "+?"]
FLAGS = ["", "", "(?i)", "(?m)", "(?s)", "(?a)", "(?im)"]
PATTERN = st.tuples(
    st.sampled_from(FLAGS), st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(REPEATS)), max_size=6)
).map(
    lambda parts: (
        parts[0]
        + "".join(
            piece + (repeat if piece not in ("^", "$", r"\A", r"\Z", r"\b", r"\B") else "")
            for piece, repeat in parts[1]
        )
    )
)
TEXT = st.text(alphabet="abcxyA1 _@.\né\u0661ſK\u2028", max_size=12)


def column(values):
    return Column("t", pa.array(values, pa.string()))


@settings(max_examples=400)
@given(PATTERN, st.lists(st.one_of(st.none(), TEXT), max_size=12))
def test_a_pattern_is_found_where_re_finds_it(pattern, values):
    found = search(pattern, column(values))
    assert compiled(pattern) is not None
    assert found.tolist() == [value is not None and re.search(pattern, value) is not None for value in values]


@pytest.mark.parametrize(
    "pattern", [r"(a)\1", "(?=a)b", "(?<!a)b", "(?>a+)b", "a++b", "(?i:A)b", r"(?P<q>['\"]).*(?P=q)", "(a)?b(?(1)c|d)"]
)
def test_patterns_without_an_automaton_are_matched_too(pattern):
    values = ["aab", "ab", "b", "aa", "abc", "bd", "'x'", None, "", "é'é'"]
    assert compiled(pattern) is None
    assert search(pattern, column(values)).tolist() == [
        value is not None and re.search(pattern, value) is not None for value in values
    ]


def test_long_and_short_rows_together():
    values = ["a" * n + end for n in (0, 1, 3, 127, 128, 129, 5000) for end in ("", "b", "\n", "b\n", "é")] * 3
    for pattern in ("^a*$", "b$", "é", "a{100}", "^a*b?$"):
        assert search(pattern, column(values)).tolist() == [re.search(pattern, value) is not None for value in values]


def test_slices_and_dictionaries():
    array = pa.array(["x", "ab", None, "abc", "b"] * 3)
    assert search("^a", Column("t", array.slice(1, 6))).tolist() == [True, False, True, False, False, True]
    assert search("^a", Column("t", array.dictionary_encode())).tolist() == [False, True, False, True, False] * 3


@given(st.text(alphabet="ab%_!.\n\\[", max_size=6), st.text(alphabet="ab%_.\n\\[", max_size=6))
def test_like(pattern, text):
    def matches(p, t):
        if not p:
            return not t
        if p[0] == "%":
            return any(matches(p[1:], t[i:]) for i in range(len(t) + 1))
        return bool(t) and p[0] in ("_", t[0]) and matches(p[1:], t[1:])

    assert bool(search(like(pattern), column([text]))[0]) == matches(pattern, text)


def test_like_escapes():
    assert search(like("10!%", "!"), column(["10%", "100"])).tolist() == [True, False]
    with pytest.raises(ValueError, match="ends with its escape character"):
        like("a!", "!")
    with pytest.raises(ValueError, match="one character"):
        like("a", "!!")


@given(st.lists(TEXT, min_size=1, max_size=6), st.lists(st.one_of(st.none(), TEXT), max_size=12))
def test_places_in_a_set_of_texts(words, values):
    there = [value for value in values if value is not None]
    assert index_in(column(values), words).tolist() == [words.index(value) if value in words else -1 for value in there]
    many = words + [f"w{i}" for i in range(300)]
    assert index_in(column(values), many).tolist() == [many.index(value) if value in many else -1 for value in there]


def test_numbers_in_a_set():
    ints = Column("i", pa.array([1, 2, None, 2**60 + 1]))
    assert index_in(ints, ["1", 2.0, True, 2**60 + 1]).tolist() == [2, 1, 3]
    floats = Column("f", pa.array([0.0, -0.0, 0.5, np.nan]))
    assert index_in(floats, [0, 0.5, "x"]).tolist() == [0, 0, 1]
