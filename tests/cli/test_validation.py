"""`gristmill validate` and `profile`, and a bad dataset stopped from pipeline to loader, as a new user would try it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.storage.stream import stream

from .conftest import console

SUITE = {
    "name": "notes",
    "expectations": [
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "text"}},
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "age", "min_value": 0, "max_value": {"$PARAMETER": "oldest"}},
        },
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1000}, "severity": "warning"},
    ],
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """data.parquet with two bad rows, data.csv, notes.json."""
    monkeypatch.chdir(tmp_path)
    ages = [i % 90 for i in range(200)]
    ages[17] = 400
    table = pa.table({"text": [None if i == 5 else f"note {i}" for i in range(200)], "age": ages})
    pq.write_table(table, "data.parquet")
    (tmp_path / "data.csv").write_text("text,age\na,1\nb,2\n")
    (tmp_path / "notes.json").write_text(json.dumps(SUITE))
    return tmp_path


def test_memory_is_a_size(cli, files):
    given = ("validate", "data.parquet", "--suite", "notes.json", "--parameter", "oldest=120", "--json")
    results = [json.loads(cli(*given, "--memory", size).out)["results"] for size in ("1KB", "1GB")]
    assert results[0] == results[1]
    done = cli(*given, "--memory", "plenty")
    assert done.status == 2 and "'plenty' is not a size" in done.err


def test_validate_says_what_fails_and_exits_1(cli, files):
    done = cli(
        "validate", "data.parquet", "--suite", "notes.json", "--parameter", "oldest=120", "--report", "out/report.html"
    )
    assert done.status == 1 and not done.err
    assert "data.parquet: 200 rows, 0 of 3 expectations hold" in done.out
    lines = [line.strip() for line in done.out.splitlines()]
    assert lines[1:6] == [
        "suite notes: FAILED",
        "critical: text is never missing: 1 of 200 rows do not",
        "critical: age is between 0 and 120: 1 of 200 rows do not",
        "warning: the number of rows is at least 1,000: found 200",
        "report: out/report.html",
    ]
    assert "Failed" in (files / "out" / "report.html").read_text()


def test_several_files_are_judged_together(cli, files):
    pq.write_table(pa.table({"text": ["a"], "age": [1]}), "more.parquet")
    given = ("--suite", "notes.json", "--parameter", "oldest=120", "--json")
    found = cli("validate", "data.parquet", "more.parquet", *given).json  # what a shell makes of *.parquet
    assert found["num_rows"] == 201 and found["data"] == "data.parquet and 1 more"


def test_warnings_alone_exit_0(cli, files):
    pq.write_table(pa.table({"text": ["a"], "age": [1]}), "good.parquet")
    done = cli("validate", "good.parquet", "--suite", "notes.json", "--parameter", "oldest=120")
    assert done.status == 0 and "suite notes: passed" in done.out and "warning: the number of rows" in done.out


def test_json_is_great_expectations_own_shape(cli, files):
    found = cli("validate", "data.parquet", "--suite", "notes.json", "--parameter", "oldest=120", "--json").json
    assert set(found) >= {"success", "results", "suite_name", "statistics", "meta", "suite_hash"}
    assert [result["success"] for result in found["results"]] == [False, False, False]
    assert found["results"][1]["result"]["partial_unexpected_list"] == [400]
    brief = cli(
        "validate",
        "data.parquet",
        "--suite",
        "notes.json",
        "--parameter",
        "oldest=120",
        "--json",
        "--result-format",
        "BOOLEAN_ONLY",
    ).json
    assert all(result["result"] == {} for result in brief["results"])


def test_a_version_keeps_its_verdict(cli, mine):
    (mine / "s.json").write_text(
        json.dumps(
            {
                "name": "s",
                "expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "text"}}],
            }
        )
    )
    found = cli("validate", "mine/shards@1", "--suite", "s.json", "--json").json
    assert found["success"] and found["path"].startswith(str(mine / "mine" / "shards" / "verdicts"))
    done = cli("validate", "s.json", "mine/shards@1", "--suite", "s.json")
    assert done.status == 2 and "'mine/shards@1' is a dataset: give it alone" in done.err
    shown = cli("show", "mine/shards").out
    assert "verdict: suite s passed; report: " in shown
    assert len(cli("show", "mine/shards", "--json").json["verdicts"]) == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["validate", "data.parquet"], "Missing option '--suite'"),
        (["validate", "data.parquet", "--suite", "none.json"], "no suite at 'none.json'"),
        (
            ["validate", "data.parquet", "data.csv", "--suite", "notes.json", "--parameter", "oldest=1"],
            "text files together",
        ),
        (
            ["validate", "date.parquet", "--suite", "notes.json", "--parameter", "oldest=1"],
            "'date.parquet': no such file",
        ),
        (["validate", "data.parquet", "--suite", "notes.json"], "oldest"),
        (
            ["validate", "data.parquet", "--suite", "notes.json", "--parameter", "oldest"],
            "--parameter oldest: write NAME=VALUE",
        ),
        (
            ["validate", "data.parquet", "--suite", "notes.json", "--parameter", "oldest=1", "--split", "train"],
            "only a dataset has splits",
        ),
        (
            ["validate", "data.parquet", "--suite", "notes.json", "--parameter", "oldest=1", "--result-format", "FULL"],
            "'FULL' is none of",
        ),
        (["profile", "none"], "'none': no such file"),
        (["profile", "data.parquet", "--trend"], "not a gristmill dataset"),
    ],
)
def test_bad_usage_is_told_with_status_2(cli, files, words, text):
    done = cli(*words)
    assert done.status == 2 and text in done.err and not done.out


def test_profile_shows_columns_and_writes_a_suite_that_holds(cli, files):
    done = cli("profile", "data.parquet", "--suite", "suites/made.json")
    assert done.status == 0 and "200 rows, 2 columns" in done.out
    assert re.search(r"age\s+int64\s+0\s+91\s+0\s+4\d\s+400", done.out) and re.search(
        r"text\s+string\s+0\.5%", done.out
    )
    made = json.loads((files / "suites" / "made.json").read_text())
    assert made["name"] == "made" and f"wrote suites/made.json: {len(made['expectations'])} expectations" in done.out
    assert all(entry["meta"]["reason"] for entry in made["expectations"])
    assert cli("validate", "data.parquet", "--suite", "suites/made.json").status == 0
    profile = cli("profile", "data.csv", "--json").json
    assert profile["rows"] == 2 and [column["name"] for column in profile["columns"]] == ["text", "age"]


def test_the_trend_of_versions(cli, mine):
    found = cli("profile", "mine/shards", "--trend", "--json").json
    assert found["metrics"][0]["metric"] == "row_count" and list(found["metrics"][0]) == ["metric", "v1"]
    assert re.search(r"row_count\s+\d", cli("profile", "mine/shards", "--trend").out)


PIPELINE = """
name: people
sources: [{kind: jsonl, path: raw/*.jsonl, name: web}]
steps: [{step: drop_exact_duplicates, column: text}]
validate: {suite: people.json}
output: {path: shards}
"""
LOADER = """
import sys, gristmill
from gristmill.storage.stream import stream
options = {"require_verdict": False} if "--all-the-same" in sys.argv else {}
print(sum(len(batch["age"]) for batch in stream("shards", global_batch_size=32, columns=["age"], **options)))
"""


def loader(folder, *words):
    """A training script's loader, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", LOADER, *words], cwd=folder, capture_output=True, text=True, timeout=120
    )


def rows_streamed():
    return sum(len(batch["age"]) for batch in stream("shards", global_batch_size=32, columns=["age"]))


def test_a_bad_dataset_is_stopped_from_pipeline_to_loader(cli, tmp_path, monkeypatch):
    """Profile good data, let its suite guard the pipeline, break the data, and see that training can't read it by mistake."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    rows = [{"text": f"person {i} from town {i * 3}", "age": 18 + i % 60} for i in range(500)]
    write = lambda rows: (tmp_path / "raw" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))  # noqa: E731
    write(rows)
    (tmp_path / "people.yaml").write_text(PIPELINE)
    assert cli("profile", "raw/a.jsonl", "--suite", "people.json").status == 0

    good = cli("run", "people.yaml")
    assert good.status == 0 and "published version 1" in good.out and "suite people: passed" in good.out
    assert rows_streamed() == 500

    write([{**row, "age": row["age"] * 12} for row in rows])  # months now
    bad = console("run", "people.yaml", "--json", cwd=tmp_path)
    assert bad.status == 1
    result = json.loads(bad.out)
    assert result["published"] is False and result["version"] == 0
    assert any("age is between" in text for text in result["verdict"]["failed"])
    assert rows_streamed() == 500, "the newest version is still the good one"
    shown = cli("show", "shards")
    assert f"candidate {result['candidate']}" in shown.out
    assert "suite people failed; report: " in cli("show", f"shards@{result['candidate']}").out

    published = cli("publish", f"shards@{result['candidate']}")
    assert published.status == 0 and "its gate has not been passed (suite people)" in published.out
    refused = loader(tmp_path)
    assert refused.returncode == 1 and "may not be streamed: suite 'people' failed" in refused.stderr
    forced = loader(tmp_path, "--all-the-same")
    assert forced.stdout == "500\n" and "its gate has not been passed" in forced.stderr

    assert cli("rollback", "shards", "1").status == 0
    assert rows_streamed() == 500
    again = cli("run", "people.yaml", "--json")
    assert again.status == 1 and json.loads(again.out)["candidate"] == result["candidate"]
    assert cli("reject", f"shards@{result['candidate']}").status == 0
    assert "candidate" not in cli("show", "shards").out
