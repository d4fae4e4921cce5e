"""What holds for every step: it is listed here, its rows balance, a table may be cut anywhere, and its output changes only with its VERSION.

`pytest tests/pipelines/steps --write-golden` writes the output of new steps, and of steps whose VERSION was raised, to golden.json.
"""

from __future__ import annotations

import json
import typing
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import ColumnError, PipelineError
from gristmill.pipelines.frames import apply_table, check_step
from gristmill.pipelines.model import AnyStep
from gristmill.pipelines.steps.base import RowStep
from gristmill.pipelines.steps.functions import Python

GOLDEN = Path(__file__).with_name("golden.json")
FILLER = (
    "The miller and his two sons have worked at the mill by the river for thirty years, and most of the grain that is ground there comes from "
    "fields within sight of the wheel. In spring they mend the sluice, in summer they dress the stones, and from the harvest until the first "
    "frost they grind from dawn to dusk. What they have to sell goes to the bakers of the valley, with a note of the field that it was grown in. "
    "Nobody there would buy flour without such a note, for a baker has to know how much water it will take, and that depends on the soil. "
)
TEXTS = [
    FILLER + "That is how it has been since the time of his grandfather, and he hopes to hand it on.",
    FILLER + "That is how it has been since the days of his grandfather, and he hopes to hand it on.",
    FILLER.upper(),
    "short",
    "",
    None,
    "line\r\nbreaks\rof\u2028all\u0085kinds",
    "nul \x00 bell \x07 delete \x7f mark \ufeff",
    "e\u0301 a\u030a \u1112\u1161\u11ab",
    "\u00e9 \u00e5 \ud55c",
    "  short ",
    "ﬁne ligature ①",
    "我们在河边的磨坊里工作，从早到晚。我们在河边的磨坊里工作，从早到晚。",
    "- one\n- two\n- three\n- one\n\nmore ... and more…\n# # # # #",
    "the same words again and again the same words again and again the same words again and again",
]
ROWS = pa.table(
    {
        "_uid": [f"u{i:02d}" for i in range(len(TEXTS))],
        "_source": ["a" if i % 4 else "b" for i in range(len(TEXTS))],
        "text": TEXTS,
        "score": [(i * 7) % 11 for i in range(len(TEXTS))],
        "ratio": [None if i % 5 == 0 else i / 8 for i in range(len(TEXTS))],
        "number": ["12", "x", None, "-3", "4.5", "", " 7", "9" * 30, "0", "1e3", "12", "True", "nan", "5", "6"],
    }
)
OWN = "tests.pipelines.steps.own"
CASES: dict[str, dict[str, Any]] = {
    "normalize_text": {"step": "normalize_text", "column": "text"},
    "normalize_text NFKC": {"step": "normalize_text", "column": "text", "form": "NFKC"},
    "normalize_text none": {"step": "normalize_text", "column": "text", "form": "none"},
    "filter": {"step": "filter", "where": "length(text) > 5 and score < 8 and ratio is not None"},
    "filter or": {"step": "filter", "where": "_source in ['b'] or not ratio >= 0.5"},
    "quality_rules gopher": {"step": "quality_rules", "column": "text", "preset": "gopher"},
    "quality_rules signals": {
        "step": "quality_rules",
        "column": "text",
        "preset": "gopher",
        "thresholds": {"gopher_short_doc": 5},
        "keep_signals": True,
    },
    "select_columns": {"step": "select_columns", "columns": ["text", "score"]},
    "rename_columns": {"step": "rename_columns", "columns": {"text": "body", "score": "points"}},
    "cast": {"step": "cast", "columns": {"number": "int64", "score": "double"}},
    "python": {"step": "python", "function": f"{OWN}:shout", "options": {"mark": "?"}},
    "pandas": {"step": "pandas", "function": f"{OWN}:halve"},
    "drop_exact_duplicates": {"step": "drop_exact_duplicates", "column": "text"},
    "drop_exact_duplicates by quality": {
        "step": "drop_exact_duplicates",
        "column": "text",
        "priority": ["b"],
        "quality": "score",
    },
    "drop_near_duplicates": {"step": "drop_near_duplicates", "column": "text", "threshold": 0.8},
    "drop_near_duplicates of pairs": {
        "step": "drop_near_duplicates",
        "column": "text",
        "threshold": 0.5,
        "shingle": 2,
        "quality": "score",
    },
}
ROW_CASES = [name for name, case in CASES.items() if isinstance(check_step(case), RowStep)]


def outcome(table: pa.Table, case: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(rows, decisions), each in an order of its own, floats to nine digits."""
    after, decisions = apply_table(table, [check_step(case)])
    rows = [
        {key: float(f"{value:.9g}") if isinstance(value, float) else value for key, value in row.items()}
        for row in [*after.to_pylist(), *decisions.to_pylist()]
    ]
    kept, decided = rows[: after.num_rows], rows[after.num_rows :]
    return sorted(kept, key=lambda row: row["_uid"]), sorted(
        decided, key=lambda row: (row["uid"], row["action"], row["rule"])
    )


def test_every_step_is_here():
    union = typing.get_args(typing.get_args(AnyStep)[0])
    assert {step.model_fields["step"].default for step in union} == {case["step"] for case in CASES.values()}


@pytest.mark.parametrize("name", CASES)
def test_output_changes_only_with_the_version(name, request):
    step = check_step(CASES[name])
    rows, decisions = outcome(ROWS, CASES[name])
    before = {row["_uid"]: row for row in ROWS.to_pylist()}
    edits = {
        row["_uid"]: {
            key: value
            for key, value in row.items()
            if key not in ROWS.column_names or before.get(row["_uid"], {}).get(key) != value
        }
        for row in rows
    }
    columns = list(rows[0]) if rows else []
    plain = [{key: value for key, value in entry.items() if value is not None} for entry in decisions]
    now = json.loads(json.dumps({"VERSION": type(step).VERSION, "columns": columns, "rows": edits, "decisions": plain}))
    golden = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    was = golden.get(name)
    changed = was is not None and was["VERSION"] == now["VERSION"] and was != now
    assert not changed, (
        f"the output of '{name}' has changed: raise {type(step).__name__}.VERSION, so that finished work isn't taken for it"
    )
    if was == now:
        return
    if request.config.getoption("--write-golden", default=False):
        content = {**golden, name: now}
        GOLDEN.write_text(
            json.dumps({key: content[key] for key in CASES if key in content}, indent=1, ensure_ascii=False) + "\n",
            encoding="utf-8",
        )
        return
    pytest.fail(
        f"golden.json lacks the output of '{name}' at VERSION {now['VERSION']}: pytest tests/pipelines/steps --write-golden"
    )


def test_golden_has_nothing_else():
    assert list(json.loads(GOLDEN.read_text(encoding="utf-8"))) == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_every_row_stays_or_has_a_reason(name):
    rows, decisions = outcome(ROWS, CASES[name])
    kept = [row["_uid"] for row in rows]
    gone = {entry["uid"] for entry in decisions if entry["action"] in ("drop", "quarantine")}
    made = {entry["uid"] for entry in decisions if entry["action"] == "create"}
    assert len(set(kept)) == len(kept)
    assert set(kept) - made == set(ROWS["_uid"].to_pylist()) - gone and not set(kept) & gone
    assert all(entry["rule"] for entry in decisions)


@pytest.mark.parametrize("name", ROW_CASES)
@settings(max_examples=15)
@given(cuts=st.lists(st.integers(0, len(TEXTS)), max_size=4))
def test_a_table_may_be_cut_anywhere(name, cuts):
    step = check_step(CASES[name])
    edges = [0, *sorted(cuts), len(TEXTS)]
    parts = [step.apply(ROWS.slice(low, high - low)) for low, high in zip(edges, edges[1:])]
    whole, decided = step.apply(ROWS)
    assert sorted(map(str, pa.concat_tables([part for part, _ in parts]).to_pylist())) == sorted(
        map(str, whole.to_pylist())
    )
    assert Counter(map(str, pa.concat_tables([found for _, found in parts]).to_pylist())) == Counter(
        map(str, decided.to_pylist())
    )


@pytest.mark.parametrize("name", CASES)
def test_order_of_rows_changes_nothing(name):
    backward = ROWS.take(list(range(len(TEXTS) - 1, -1, -1)))
    assert outcome(backward, CASES[name]) == outcome(ROWS, CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_no_rows(name):
    rows, decisions = outcome(ROWS.slice(0, 0), CASES[name])
    assert rows == [] == decisions
    step = check_step(CASES[name])
    if isinstance(step, RowStep) and not isinstance(step, Python):
        after, _ = step.apply(ROWS.slice(0, 0))
        assert step.output_columns(ROWS.column_names) == after.column_names, "what the check before a run believes"
        assert after.schema == step.apply(ROWS)[0].schema


@pytest.mark.parametrize("name", [name for name in CASES if check_step(CASES[name]).needs()])
def test_a_missing_column_is_named_with_the_nearest(name):
    (wanted, *_) = check_step(CASES[name]).needs()
    there = ROWS.rename_columns([f"{column}s" if column == wanted else column for column in ROWS.column_names])
    with pytest.raises(ColumnError, match=f"no column '{wanted}'.*Did you mean '{wanted}s'"):
        apply_table(there, [check_step(CASES[name])])


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].get("column") == "text"])
def test_text_of_another_type(name):
    nulls = ROWS.set_column(2, "text", pa.nulls(len(TEXTS)))
    rows, decisions = outcome(nulls, CASES[name])
    fails = CASES[name]["step"] == "quality_rules"
    assert len(rows) == (0 if fails else len(TEXTS)) and {entry["rule"] for entry in decisions} == (
        {"null_text"} if fails else set()
    )
    with pytest.raises(PipelineError, match="column 'text' is int64, expected text"):
        apply_table(ROWS.set_column(2, "text", ROWS["score"]), [check_step(CASES[name])])


@pytest.mark.parametrize("name", CASES)
def test_unknown_options_are_refused(name):
    with pytest.raises(PipelineError, match="unknown key 'colour'"):
        check_step({**CASES[name], "colour": "blue"})
