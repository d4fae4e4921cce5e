"""Words and shingle sets against a slow reimplementation in Python integers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.kernels.buffers import Slices, slices
from gristmill.kernels.shingles import shingle_sets, sort_unique, word_hashes
from gristmill.kernels.unicode import CLASS, LETTER, LOWER, MARK, UNSPACED

MASK = 2**64 - 1


def words(text: str) -> list[str]:
    """The words of a text, by the definition in the module's docstring."""
    found: list[str] = []
    before = None  # class of the word that the last character belongs to
    for char in text:
        kind = CLASS[ord(char)]
        low = chr(LOWER[ord(char)])
        if kind < LETTER:
            before = None
        elif before is not None and (kind == MARK or (kind != UNSPACED and before != UNSPACED)):
            found[-1] += low
        else:
            found.append(low)
            before = UNSPACED if kind == UNSPACED else LETTER
    return found


def mix(x: int) -> int:
    x ^= x >> 30
    x = x * 0xBF58476D1CE4E5B9 & MASK
    x ^= x >> 27
    x = x * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def word_hash(word: str) -> int:
    h = 0xCBF29CE484222325
    for char in word:
        h = (h ^ ord(char)) * 0x100000001B3 & MASK
    return mix(h)


def shingles(text: str, n: int) -> list[int]:
    """The sorted set of shingle hashes."""
    hashes = [word_hash(word) for word in words(text)]
    length = min(n, len(hashes))
    found = set()
    for i in range(len(hashes) - length + 1 if hashes else 0):
        h = 0
        for value in hashes[i : i + length]:
            h = (h * 0x9E3779B97F4A7C15 + value) & MASK
        found.add(mix((h + length) & MASK) >> 32)
    return sorted(found)


def kernel_words(text: str) -> list[int]:
    rows = slices(pa.array([text]))
    out = np.empty(len(rows.data) // 2 + 1, np.uint64)
    return out[: word_hashes(rows.data, 0, len(rows.data), CLASS, LOWER, out)].tolist()


def rows_of(array, n: int = 5) -> list[list[int]]:
    values, offsets = shingle_sets(array, n)
    return [values[offsets[i] : offsets[i + 1]].tolist() for i in range(len(offsets) - 1)]


SCRIPTS = st.text(st.sampled_from("aBc9 ,.\n-éÉİßΣжЖ\u0301\u0e34漢字かカー한글٣กะမ😀'")) | st.text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, WORLD 42x", ["hello", "world", "42x"]),
        ("don't stop_here", ["don", "t", "stop", "here"]),
        ("naïve ÉCOLE ΑΒΓ Жук", ["naïve", "école", "αβγ", "жук"]),
        ("cafe\u0301s \u0301x", ["cafe\u0301s", "\u0301x"]),
        ("日本語です", ["日", "本", "語", "で", "す"]),
        ("か\u3099a3漢b", ["か\u3099", "a3", "漢", "b"]),
        ("กิน ข้าว", ["กิ", "น", "ข้", "า", "ว"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("\u200b \n\t—", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected
    assert kernel_words(text) == [word_hash(word) for word in expected]


@given(SCRIPTS)
def test_words_of_any_text(text: str) -> None:
    assert kernel_words(text) == [word_hash(word) for word in words(text)]


@given(st.lists(st.none() | SCRIPTS, max_size=6), st.integers(1, 7))
def test_shingle_sets_of_any_rows(texts: list[str | None], n: int) -> None:
    expected = [shingles(text or "", n) for text in texts]
    assert rows_of(pa.array(texts, pa.string()), n) == expected
    assert rows_of(pa.array(texts, pa.large_string()), n) == expected
    assert rows_of(pa.chunked_array([texts[:2], texts[2:]], pa.string()), n) == expected
    assert rows_of(pa.array(["left out", *texts], pa.string()).slice(1), n) == expected
    assert rows_of(slices(pa.array(texts, pa.string())), n) == expected


def test_long_rows_are_sorted_sets() -> None:
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(list("abcdefghijkl"), size)) for size in (0, 100, 132, 133, 134, 3000, 20000)]
    assert rows_of(pa.array(texts), 3) == [shingles(text, 3) for text in texts]
    assert max(len(row) for row in rows_of(pa.array(texts), 3)) <= 12**3


def test_short_rows_match_only_rows_of_the_same_words() -> None:
    texts = [
        "",
        " - ",
        None,
        "one",
        "One!",
        "one two",
        "two one",
        "one two three four five",
        "one two three four five six",
    ]
    sets = rows_of(pa.array(texts))
    assert [len(row) for row in sets] == [0, 0, 0, 1, 1, 1, 1, 1, 2]
    assert sets[3] == sets[4]
    assert len({tuple(row) for row in sets[3:8]}) == 4
    assert set(sets[7]) < set(sets[8])


@pytest.mark.parametrize("text", ["a b c", "a b c ", "漢a漢a漢", "a", "a漢", "é a é"])
def test_rows_of_the_most_words_that_fit(text: str) -> None:
    assert rows_of(pa.array([text * 1000, text]), 2) == [shingles(text * 1000, 2), shingles(text, 2)]


@given(st.lists(st.binary(max_size=12), min_size=1, max_size=4))
def test_broken_bytes_are_read_within_their_row(rows: list[bytes]) -> None:
    assert rows_of(pa.array(rows, pa.binary())) == [rows_of(pa.array([row], pa.binary()))[0] for row in rows]


def test_sets_that_outgrow_the_usual_size() -> None:
    texts = ["".join(chr(0x4E00 + (i * k) % 20000) for i in range(3000)) for k in (1, 3, 7)]
    assert rows_of(pa.array(texts)) == [shingles(text, 5) for text in texts]


@given(st.lists(st.integers(0, 2**32 - 1), max_size=400), st.integers(1, 50))
def test_sort_unique(values: list[int], different: int) -> None:
    some = np.array([value % different if value % 3 else value for value in values] * 2, np.uint32)
    left = some.copy()
    size = sort_unique(left, len(left), np.empty_like(left), np.empty((3, 2048), np.int32))
    assert left[:size].tolist() == np.unique(some).tolist()


GOLDEN = [1528406092, 3188008400]
GOLDEN_UNSPACED = [1970216215]


def test_frozen() -> None:
    """A change of these numbers changes which rows leave: the steps that use them need a new VERSION."""
    assert rows_of(pa.array(["The quick brown fox jumps over", "日本語"])) == [GOLDEN, GOLDEN_UNSPACED]


def test_slices_are_taken_as_they_are() -> None:
    data = np.frombuffer(b"one two three", np.uint8)
    rows = Slices(data, np.array([0, 7, 13]), np.array([1, 1], np.uint8))
    assert rows_of(rows) == [shingles("one two", 5), shingles(" three", 5)]
