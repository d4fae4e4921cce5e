"""The signals against a plain reading of the rules in Python."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.kernels.signals import NAMES, text_signals
from gristmill.kernels.tokens import STOP_WORDS
from gristmill.kernels.unicode import CLASS, DIGIT, LETTER, MARK, NEWLINE, SPACE, UNSPACED


def kind(text: str, at: int) -> int:
    return int(CLASS[ord(text[at])]) if at < len(text) else -1


def tokens_of(text: str) -> list[tuple[str, bool]]:
    """(token, whether it is a word)"""
    found, at = [], 0
    while at < len(text):
        start, first = at, kind(text, at)
        at += 1
        if first in (SPACE, NEWLINE):
            continue
        word = first >= LETTER or (text[start] in "'’" and kind(text, at) == LETTER)
        if word:
            while at < len(text):
                here = kind(text, at)
                inner = text[at] in "._" and kind(text, at + 1) in (LETTER, DIGIT)
                if here == MARK or (first != UNSPACED and (here in (LETTER, DIGIT) or inner)):
                    at += 1
                else:
                    break
        elif text[start] in "-.":
            while at < len(text) and text[at] == text[start]:
                at += 1
        found.append((text[start:at], word))
    return found


def repeats(parts: list[str]) -> tuple[int, int]:
    """(later copies, their characters)"""
    seen: set[str] = set()
    copies = chars = 0
    for part in parts:
        if part in seen:
            copies, chars = copies + 1, chars + len(part)
        seen.add(part)
    return copies, chars


def repeated_n_grams(tokens: list[str], n: int) -> int:
    seen: set[tuple[str, ...]] = set()
    chars = at = 0
    while at + n <= len(tokens):
        gram = tuple(tokens[at : at + n])
        if gram in seen:
            chars += sum(map(len, gram))
            at += n
        else:
            seen.add(gram)
            at += 1
    return chars


def plainly(text: str) -> dict[str, float]:
    tokens = tokens_of(text)
    names = [token for token, _ in tokens]
    words = [token for token, word in tokens if word]
    out = dict.fromkeys(NAMES, 0.0)
    out["words"], out["stop_words"] = len(words), len(set(STOP_WORDS) & set(words))
    if words:
        out["mean_word_length"] = sum(map(len, words)) / len(words)
    if tokens:
        dots = sum(len(token) // 3 for token in names if set(token) == {"."}) + names.count("…")
        out["hash_ratio"], out["ellipsis_ratio"] = names.count("#") / len(tokens), dots / len(tokens)
        alphabetic = [word for word in words if any(CLASS[ord(c)] in (LETTER, UNSPACED) for c in word)]
        out["alpha_words"] = len(alphabetic) / len(tokens)
    if not text:
        return out
    lines = re.split(r"\n+", text)
    copies, chars = repeats(lines)
    out["duplicate_lines"], out["duplicate_line_chars"] = copies / len(lines), chars / len(text)
    paragraphs = re.split(r"\n{2,}", text.strip(" \n"))
    if paragraphs != [""]:
        copies, chars = repeats(paragraphs)
        out["duplicate_paragraphs"], out["duplicate_paragraph_chars"] = copies / len(paragraphs), chars / len(text)
    for n in range(2, 5):
        grams = Counter(tuple(names[i : i + n]) for i in range(len(names) - n + 1))
        if grams:
            gram, count = max(grams.items(), key=lambda pair: pair[1])
            out[f"top_{n}_gram"] = count * len(" ".join(gram)) / len(text)
    for n in range(5, 11):
        out[f"duplicate_{n}_grams"] = repeated_n_grams(names, n) / len(text)
    return out


PIECES = [
    "a",
    "b",
    "the ",
    "to ",
    "x1",
    "\n",
    "\n\n",
    ". ",
    "...",
    "'",
    "’s",
    "é",
    "e\u0301",
    "…",
    "日本",
    " ",
    "-",
    "--",
    "_",
    "#",
    "7",
    "ก็",
]
texts = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


def check(found: list[str]) -> None:
    signals = text_signals(pa.array(found, pa.string())).to_pylist()
    for text, row in zip(found, signals, strict=True):
        for name, value in plainly(text).items():
            if name not in ("bullet_lines", "ellipsis_lines"):
                assert row[name] == pytest.approx(value, abs=1e-12), (name, text)


@settings(max_examples=300)
@given(st.lists(texts, min_size=1, max_size=6))
def test_signals_are_those_of_the_plain_reading(found: list[str]) -> None:
    check(found)


def test_long_lines_paragraphs_and_n_grams_are_told_apart_by_their_last_character() -> None:
    line = "w" * 40
    check(
        [
            f"{line}a\n{line}b\n{line}a",
            f"{line}1\n\n{line}2\n\n{line}1",
            " ".join(["one two three four five six seven"] * 40),
            "x" * 17 + "\n" + "x" * 18,
        ]
    )


def test_bullets_and_ends_of_lines() -> None:
    row = text_signals(pa.array(["- a\n  • b\nc...\nd… \ne"])).to_pylist()[0]
    assert row["bullet_lines"] == pytest.approx(0.4) and row["ellipsis_lines"] == pytest.approx(0.4)


def test_real_text(shared_data) -> None:
    folder = shared_data / "text/spdx_licences"
    check([path.read_bytes().decode("utf-8", "replace") for path in sorted(folder.glob("*.txt"))[:60]])


def test_null_and_empty_text() -> None:
    found = text_signals(pa.array([None, "", "word"]))
    assert [column.null_count for column in found.columns] == [1] * len(NAMES)
    assert all(np.isfinite(column.to_numpy(zero_copy_only=False)[1:]).all() for column in found.columns)
