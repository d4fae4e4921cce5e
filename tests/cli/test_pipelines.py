"""`run`, `plan`, `init`, `explain` and `schema`."""

from __future__ import annotations

from gristmill.cli.main import app

import json
from pathlib import Path

import pytest
import yaml

from gristmill.pipelines.model import Pipeline

from .conftest import console

ROOT = Path(__file__).resolve().parents[2]


def test_init_makes_a_pipeline_that_runs(tmp_path):
    done = console("init", "mine", cwd=tmp_path)
    assert done.status == 0 and done.out == "made mine/pipeline.yaml; now: gristmill run mine/pipeline.yaml\n"
    done = console("run", "mine/pipeline.yaml", cwd=tmp_path)
    assert done.status == 0
    assert "published version 1" in done.out and "44 read = 40 kept + 3 dropped + 1 quarantined" in done.out
    for rule in ("bad_json 1", "length(text) > 20 1", "exact_duplicate 1", "near_duplicate 1"):
        assert rule in done.out
    assert "ingest: 1/1 items" in done.err and "ingest: 1/1" not in done.out


@pytest.mark.parametrize("name", ["with space", "a, b: {c}", "br[1]ackets", "quo'te\"s", "ünï"])
def test_init_in_a_folder_of_any_name(cli, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert cli("init", name).status == 0
    done = cli("run", f"{name}/pipeline.yaml", "--json")
    assert done.json["path"] == f"{name}/shards" and done.json["counts"]["kept"] == 40


def test_json_is_all_that_stdout_gets(mine):
    done = console("run", "mine/pipeline.yaml", "--json", "--set", "steps.3.threshold=0.95", cwd=mine)
    found = json.loads(done.out)
    assert done.out.count("\n") == 1 and "shards: 2/2 items" in done.err
    counts = found["counts"]
    assert counts["read"] + counts["created"] == counts["kept"] + counts["dropped"] + counts["quarantined"] == 44
    assert (found["version"], found["published"], counts["kept"]) == (2, True, 41)
    assert Path(found["report_path"]).is_file() and found["splits"] == {"train": 33, "validation": 8}


def test_the_same_again_publishes_nothing(cli, mine):
    done = cli("run", "mine/pipeline.yaml")
    assert done.status == 0 and "nothing new: version 1 holds this already" in done.out
    found = cli("run", "mine/pipeline.yaml", "--json").json
    assert not found["published"] and found["reused_items"] > 0
    fresh = cli("run", "mine/pipeline.yaml", "--fresh", "--json").json
    assert not fresh["published"] and fresh["reused_items"] == 0 and fresh["fingerprint"] == found["fingerprint"]


def test_plan_says_what_a_run_would_do_and_why(cli, mine):
    found = cli("plan", "mine/pipeline.yaml", "--json").json
    assert [item["action"] for item in found["items"]] == ["reuse"] and [
        part["action"] for part in found["segments"]
    ] == ["reuse"]
    found = cli("plan", "mine/pipeline.yaml", "--json", "--set", "steps.0.form=NFKC").json
    assert [item["action"] for item in found["items"]] == ["reuse"] and found["segments"][0]["action"] == "redo"
    with (mine / "mine/raw/notes.jsonl").open("a") as raw:
        raw.write('{"id": "new", "text": "a note that was not there before"}\n')
    done = cli("plan", "mine/pipeline.yaml")
    assert done.status == 0 and "read 1 of 1 item, " in done.out and "content or reading options changed" in done.out
    assert cli("log", "mine/shards", "--json").json["versions"][0]["version"] == 1, "plan changes nothing"


def test_set_lays_values_over_the_file(cli, mine):
    found = cli(
        "run",
        "mine/pipeline.yaml",
        "--json",
        "--set",
        "steps.1.where=length(text) > 5",
        "--set",
        "split={only: 1}",
        "--set",
        "output.path=elsewhere",
    ).json
    assert found["path"] == "elsewhere" and found["splits"] == {"only": 41}
    assert found["counts"]["dropped"] == 2


@pytest.mark.parametrize(
    ("before", "after", "line", "text"),
    [
        ("name: starter", "nmae: starter", 4, "unknown key 'nmae'. Did you mean 'name'?"),
        ("kind: jsonl", "kind: jsonlines", 6, "unknown kind 'jsonlines'. Did you mean 'jsonl'?"),
        (
            "step: normalize_text",
            "step: normalise_text",
            9,
            "unknown step 'normalise_text'. Did you mean 'normalize_text'?",
        ),
        ("threshold: 0.8", "treshold: 0.8", 12, "unknown key 'treshold'. Did you mean 'threshold'?"),
        (
            "threshold: 0.8",
            "threshold: high",
            12,
            "steps.3.threshold: Input should be a valid number, unable to parse string as a number (found 'high')",
        ),
        (
            "threshold: 0.8",
            "threshold: 1.8",
            12,
            "steps.3.threshold: Input should be less than or equal to 1 (found 1.8)",
        ),
        (
            "length(text)",
            "lenght(text)",
            10,
            "steps.1.where: no function 'lenght' in 'lenght(text) > 20'. Did you mean 'length'?",
        ),
        ("length(text)", "length(txet)", 10, "step 2 (filter): no column 'txet'. Did you mean 'text'?"),
        (
            "drop_near_duplicates, column: text",
            "drop_near_duplicates, column: texts",
            12,
            "step 4 (drop_near_duplicates): no column 'texts'. Did you mean 'text'?",
        ),
        ("id: id", "id: idd", 7, "id: no column 'idd'. Did you mean 'id'?"),
        (
            "{step: drop_exact_duplicates, column: text}",
            "{step: quality_rules, column: text, preset: gophr}",
            11,
            "unknown preset 'gophr'. Did you mean 'gopher'?",
        ),
        (
            "{step: drop_exact_duplicates, column: text}",
            "{step: cast, columns: {text: int65}}",
            11,
            "no type 'int65'. Did you mean 'int64'?",
        ),
        ("train: 0.8", "train: 0.9", 13, "the shares add up to 1.1, expected 1"),
        ("similarity: 0.5", "group_by: grp", 13, "split: no column 'grp'."),
        ("output: {path: ", "output: {shard_bytes: big, path: ", 14, "'big' is not a size"),
        ("output: {path: ", "output: {paht: ", 14, "unknown key 'paht'. Did you mean 'path'?"),
        ("name: starter", "name: starter\nname: other", 5, "key 'name' is given twice, first in line 4"),
        ("steps:", "steps: [", None, "not valid YAML"),
    ],
)
def test_mistakes_in_the_file_are_named_with_their_line(cli, mine, before, after, line, text):
    path = mine / "mine" / "pipeline.yaml"
    content = path.read_text()
    assert before in content
    path.write_text(content.replace(before, after, 1))
    done = cli("run", "mine/pipeline.yaml")
    assert done.status == 2 and done.out == "" and "Traceback" not in done.err
    place = f"mine/pipeline.yaml:{line}: " if line else "mine/pipeline.yaml:"
    assert place in done.err and text in done.err, done.err


def test_a_column_is_found_in_the_line_where_it_stands(cli, mine):
    model = yaml.safe_load((mine / "mine/pipeline.yaml").read_text())
    model["steps"][3]["column"] = "texxt"
    (mine / "block.yaml").write_text(yaml.safe_dump(model, sort_keys=False))
    line = next(n for n, text in enumerate((mine / "block.yaml").read_text().splitlines(), 1) if "texxt" in text)
    assert f"block.yaml:{line}: step 4" in cli("run", "block.yaml").err


def test_all_mistakes_are_told_at_once(cli, mine):
    path = mine / "mine" / "pipeline.yaml"
    path.write_text(
        path.read_text()
        .replace("name:", "nmae:", 1)
        .replace("threshold", "treshold")
        .replace("kind: jsonl", "kind: jsnol")
    )
    err = cli("run", "mine/pipeline.yaml").err
    assert [f":{line}: unknown" in err for line in (4, 6, 12)] == [
        True,
        True,
        True,
    ] and "name: required and missing" in err


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "odd.yaml:1: a pipeline is a mapping with name, sources, steps and output; got an empty file"),
        (b"- a\n- b\n", "got list"),
        (b"name: \xff\n", "not a text file in UTF-8: byte 6 is 0xff"),
        (b"\x00\x01", "odd.yaml"),
    ],
)
def test_files_that_are_no_pipelines(cli, mine, content, text):
    (mine / "odd.yaml").write_bytes(content)
    done = cli("run", "odd.yaml")
    assert done.status == 2 and text in done.err


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("nothing", "--set nothing: write key.path=value, such as steps.2.threshold=0.9"),
        ("steps.9.threshold=1", "nothing at '9'. Valid: 0, 1, 2, 3."),
        ("name.of.it=x", "--set name.of.it=x"),
        ("splt.train=1", "unknown key 'splt'. Did you mean 'split'?"),
        ("output.path=mine/raw", "output 'mine/raw' exists and is not a gristmill dataset"),
        ("sources.0.path=mine/nope/*.jsonl", "no input matches 'mine/nope/*.jsonl'. There is no folder 'mine/nope'."),
        ("sources.0.path=mine", "output 'mine/shards' holds the input file"),
        ("steps.1.where=[", "--set steps.1.where=["),
    ],
)
def test_settings_that_cannot_be_meant(cli, mine, setting, text):
    done = cli("run", "mine/pipeline.yaml", "--set", setting)
    assert done.status == 2 and text in done.err, done.err


def test_explain_tells_a_rows_story(cli, mine):
    near = cli("explain", "mine/shards", "repeat-2")
    assert near.status == 0 and "repeat-2 in " in near.out and ": dropped" in near.out
    assert (
        "drop_near_duplicates: drop by rule near_duplicate" in near.out
        and "duplicate of note-1-2 (similarity 0." in near.out
    )
    assert "kept in its place: note-1-2, read from mine/raw/notes.jsonl:byte " in near.out
    found = cli("explain", "mine/shards", "short", "--json").json
    assert found["fate"] == "dropped" and found["decisions"][0]["rule"] == "length(text) > 20"
    kept = cli("explain", "mine/shards@1", "note-0-0").out
    assert ": kept" in kept and "now in data/" in kept and "text: 'Note 0." in kept


def test_explain_finds_a_row_by_its_file_and_line(cli, mine):
    listed = cli("explain", "mine/shards", "--file", "notes.jsonl").out
    assert (
        "mine/raw/notes.jsonl: 1 record quarantined\n  mine/raw/notes.jsonl:byte " in listed
        and "bad_json; uid " in listed
    )
    place = listed.split("\n")[1].split(": ")[0].strip()
    assert cli("explain", "mine/shards", "--file", place).out == cli("explain", "mine/shards", listed.split()[-1]).out
    first = json.loads(Path("mine/raw/notes.jsonl").read_text().split("\n")[0])
    assert cli("explain", "mine/shards", "--file", "notes.jsonl", "--line", "1").out.startswith(f"{first['id']} in ")
    assert cli("explain", "mine/shards", "--file", "notes.jsonl", "--json").json["quarantined"] == 1
    for words in ([], ["x", "--file", "y"], ["x", "--line", "1"]):
        done = cli("explain", "mine/shards", *words)
        assert done.status == 2 and "say which row: its _uid, or --file FILE --line N" in done.err


def test_schema_is_the_published_one(cli):
    done = cli("schema")
    assert done.json["title"] == "Pipeline"
    assert done.out == (ROOT / "docs" / "pipeline.schema.json").read_text(), "write it anew with `make docs`"


def test_schema_has_a_text_for_every_step_and_source():
    found = Pipeline.model_json_schema(by_alias=True)["$defs"]
    assert len(found) > 15 and [name for name, entry in found.items() if not entry.get("description")] == []


def test_a_run_that_keeps_nothing_says_so(tmp_path, capsys):
    (tmp_path / "raw.jsonl").write_bytes(bytes(range(256)) * 20)
    model = {
        "name": "p",
        "sources": [{"kind": "jsonl", "path": str(tmp_path / "raw.jsonl")}],
        "output": {"path": str(tmp_path / "out")},
    }
    (tmp_path / "p.yaml").write_text(json.dumps(model))
    app(["run", str(tmp_path / "p.yaml")], standalone_mode=False)
    said = capsys.readouterr()
    assert "= 0 kept" in said.out and "no row was kept" in said.err
