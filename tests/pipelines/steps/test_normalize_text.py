"""`normalize_text`: one Unicode form, one kind of line break, no control characters; each change is an edit in the ledger."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.pipelines.frames import check_step


def normalized(
    texts: list[str | None], kind: pa.DataType | None = None, **options: Any
) -> tuple[list[str | None], dict[tuple[str, str], float | None]]:
    """(the texts, {(uid, rule): value} of the edits)."""
    table = pa.table(
        {
            "_uid": [str(i) for i in range(len(texts))],
            "text": pa.array(texts, kind or pa.string()),
            "other": list(range(len(texts))),
        }
    )
    after, found = check_step({"step": "normalize_text", "column": "text", **options}).apply(table)
    assert (
        after.schema == table.schema and after["other"].equals(table["other"]) and after["_uid"].equals(table["_uid"])
    )
    assert all(entry["action"] == "edit" for entry in found.to_pylist())
    return after["text"].to_pylist(), {(entry["uid"], entry["rule"]): entry["value"] for entry in found.to_pylist()}


def plainly(text: str, form: str) -> str:
    """What the step promises, in plain Python."""
    text = re.sub("\r\n|\r|\u0085|\u2028|\u2029", "\n", text)
    text = "".join(
        char for char in text if char in "\t\n" or not (ord(char) < 32 or 127 <= ord(char) < 160 or char == "\ufeff")
    )
    return text if form == "none" else unicodedata.normalize(form, text)


@pytest.mark.parametrize("form", ["NFC", "NFKC", "none"])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@given(
    texts=st.lists(
        st.none()
        | st.text(st.characters(codec="utf-8") | st.sampled_from("\r\n\x00\x85\u2028\u2029\ufeffe\u0301\u1112\u1161ﬁ")),
        max_size=6,
    )
)
def test_is_what_plain_python_does(form, kind, texts):
    after, edits = normalized(texts, kind, form=form)
    assert after == [None if text is None else plainly(text, form) for text in texts]
    assert {uid for uid, _ in edits} == {
        str(i) for i, text in enumerate(texts) if text is not None and text != plainly(text, form)
    }


@given(st.text())
def test_twice_is_once(text):
    once = normalized([text])[0]
    assert normalized(once) == (once, {})


def test_each_change_is_an_edit_with_how_many():
    after, edits = normalized(["a\r\nb\rc", "x\x00\x01y", "e\u0301", "plain", None, "both\r\x7f e\u0301"])
    assert after == ["a\nb\nc", "xy", "\u00e9", "plain", None, "both\n \u00e9"]
    assert edits == {
        ("0", "line_breaks"): 2.0, ("1", "control_characters"): 2.0, ("2", "nfc"): None,
        ("5", "line_breaks"): 1.0, ("5", "control_characters"): 1.0, ("5", "nfc"): None,
    }  # fmt: skip


def test_line_feeds_and_tabs_are_fine_and_nothing_is_copied():
    table = pa.table({"_uid": ["a"], "text": ["tab\tand\nline feed"]})
    after, found = check_step({"step": "normalize_text", "column": "text"}).apply(table)
    assert after is table and found.num_rows == 0


def test_slices_and_chunks_with_nulls():
    texts = ["skipped", None, "a\rb", "", "e\u0301"]
    table = pa.concat_tables(
        [
            pa.table({"_uid": ["x", *"abcd"], "text": texts}).slice(1, 2),
            pa.table({"_uid": ["x", *"abcd"], "text": texts}).slice(3),
        ]
    )
    after, _ = check_step({"step": "normalize_text", "column": "text"}).apply(table)
    assert after["text"].to_pylist() == [None, "a\nb", "", "\u00e9"]
