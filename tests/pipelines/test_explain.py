"""`explain`: one row's whole story, for every fate."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

import gristmill
from gristmill.errors import UsageError
from gristmill.pipelines.explain import explain_row, story

from .conftest import document, ledger_of, rows_of, variant

FLAT = " ".join(["spam"] * 60)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    base = document(1, 90)
    rows = [
        {"id": "long", "text": base, "lang": "en", "tags": ["a"]},
        {"id": "near", "text": variant(base, 1, 1), "lang": "en", "tags": None},
        {"id": "same", "text": base.replace(" ", "  "), "lang": "en", "tags": []},
        {"id": "bad", "text": "# " * 30 + FLAT, "lang": "en", "tags": None},
        {"id": "foreign", "text": document(2, 80), "lang": "de", "tags": None},
        {"id": "twice", "text": document(3, 80), "lang": "en", "tags": None},
        {"id": "twice", "text": document(4, 80), "lang": "en", "tags": None},
        {"id": "edited", "text": "\x00" + document(5, 80) + "\r\n", "lang": "en", "tags": None},
        {"id": None, "text": document(6, 80), "lang": "en", "tags": None},
        {"id": "none", "text": None, "lang": "en", "tags": None},
    ]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"id": "torn", \n')
    steps = [
        {"step": "normalize_text", "column": "text"},
        {"step": "filter", "where": "lang == 'en' and length(text) < 5000"},
        {"step": "quality_rules", "column": "text", "preset": "gopher", "thresholds": {"gopher_few_stop_words": 0}},
        {"step": "drop_exact_duplicates", "column": "text"},
        {"step": "drop_near_duplicates", "column": "text", "threshold": 0.8},
    ]
    model = {
        "name": "t", "sources": [{"kind": "jsonl", "path": str(folder / "in.jsonl"), "name": "web"}], "id": "id", "steps": steps,
        "split": {"train": 0.5, "test": 0.5}, "output": {"path": str(folder / "out")},
    }  # fmt: skip
    return gristmill.run(model, progress="quiet")


def test_kept(result):
    found = explain_row(result.dataset, "long")
    assert found["fate"] == "kept" and found["decisions"] == [] and found["split"] in ("train", "test")
    assert found["row"]["lang"] == "en" and found["file"] in {
        entry.path for entry in result.dataset.files(found["split"])
    }
    assert [origin["position"].endswith("in.jsonl:byte 0") for origin in found["origins"]] == [True]
    text = story(found)
    assert f"long in {result.path}@1: kept" in text and "source web" in text and f"split {found['split']}" in text


def test_kept_and_edited(result):
    found = explain_row(result.path, "edited")
    assert found["fate"] == "kept"
    assert {(e["rule"], e["action"], e["value"]) for e in found["decisions"]} == {
        ("line_breaks", "edit", 1.0),
        ("control_characters", "edit", 1.0),
    }


def test_dropped_with_every_rule_its_value_and_threshold(result):
    found = explain_row(result.dataset, "bad")
    rules = {entry["rule"]: (entry["value"], entry["threshold"]) for entry in found["decisions"]}
    assert (
        found["fate"] == "dropped"
        and {"gopher_too_many_hashes", "top_2_gram", "duplicated_5_n_grams"} <= set(rules)
        and len(rules) >= 8
    )
    assert rules["gopher_too_many_hashes"] == (pytest.approx(30 / 90), 0.1)
    assert all(value is not None and threshold is not None for value, threshold in rules.values())
    assert "rule gopher_too_many_hashes, value 0.333333, threshold 0.1" in story(found)


def test_dropped_by_one_term_of_a_filter(result):
    found = explain_row(result.dataset, "foreign")
    assert [(e["step"], e["rule"], e["value"]) for e in found["decisions"]] == [("filter", "lang == 'en'", None)]
    found = explain_row(result.dataset, "none")
    assert [(e["step"], e["rule"]) for e in found["decisions"]] == [("filter", "length(text) < 5000")], (
        "unknown is not true"
    )


@pytest.mark.parametrize(("uid", "rule"), [("near", "near_duplicate"), ("same", "exact_duplicate")])
def test_duplicates_name_the_kept_row_and_the_similarity(result, uid, rule):
    found = explain_row(result.dataset, uid)
    (entry,) = found["decisions"]
    assert (found["fate"], entry["rule"], entry["other_uid"]) == ("dropped", rule, "long")
    assert entry["similarity"] == 1.0 if uid == "same" else 0.8 <= entry["similarity"] < 1
    assert found["kept_rows"][0]["uid"] == "long" and found["kept_rows"][0]["origins"][0]["position"].endswith("byte 0")
    assert f"duplicate of long (similarity {entry['similarity']:.4f})" in story(found)


def test_of_an_id_with_two_contents_one_is_kept_and_one_quarantined(result):
    found = explain_row(result.dataset, "twice")
    assert found["fate"] == "kept" and len(found["origins"]) == 2
    assert [(entry["action"], entry["rule"]) for entry in found["decisions"]] == [("quarantine", "conflicting_id")]


def test_a_record_that_could_not_be_read_is_shown_with_its_place_and_bytes(result):
    uid = next(entry["uid"] for entry in ledger_of(result) if entry["rule"] == "bad_json")
    found = explain_row(result.dataset, uid)
    assert found["fate"] == "quarantined" and found["unreadable"][0]["raw"] == '{"id": "torn", '
    text = story(found)
    assert "  read from " in text and "in.jsonl:byte" in text and '\'{"id": "torn", \'' in text


def test_quarantined(result):
    for rule in ("bad_json", "null_id"):
        entry = next(entry for entry in ledger_of(result) if entry["rule"] == rule)
        found = explain_row(result.dataset, entry["uid"])
        assert found["fate"] == "quarantined" and "in.jsonl:byte" in found["decisions"][0]["position"]


def test_every_row_of_the_ledger_can_be_explained(result):
    uids = {row["_uid"] for row in rows_of(result)} | {entry["uid"] for entry in ledger_of(result)}
    assert len(uids) == 10
    assert {explain_row(result.dataset, uid)["fate"] for uid in uids} == {"kept", "dropped", "quarantined"}
    with pytest.raises(UsageError, match="never saw a row 'ghost'"):
        explain_row(result.dataset, "ghost")


def _split_rows(table: pa.Table) -> pa.Table:
    table = table.append_column("_parent_uid", pa.nulls(table.num_rows, pa.string()))
    made = table.slice(0, 1)
    new = pa.array([f"{made['_uid'][0]}-made"])
    return pa.concat_tables(
        [
            table,
            made.set_column(made.column_names.index("_parent_uid"), "_parent_uid", made["_uid"]).set_column(
                made.column_names.index("_uid"), "_uid", new
            ),
        ]
    )


def test_rows_that_were_made_name_the_row_they_came_from(run, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"id": "a", "text": "x"}\n')
    result = run(
        tmp_path / "in.jsonl",
        id="id",
        steps=[{"step": "python", "function": "tests.pipelines.test_explain:_split_rows"}],
    )
    assert result.counts == {"read": 1, "created": 1, "kept": 2, "dropped": 0, "quarantined": 0}
    found = explain_row(result.dataset, "a-made")
    assert (
        found["fate"] == "kept"
        and "made from a" in story(found)
        and found["decisions"][0]["position"].endswith("byte 0")
    )
