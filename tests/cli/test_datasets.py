"""`show`, `log`, `verify`, `diff`, `rollback`, `gc`, `publish` and `reject`, on disk and on an S3 server."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["local", "s3"])
def dataset(request, cli, mine, s3_endpoint) -> str:
    """A dataset of two versions; the second has one row more and other splits."""
    place = "mine/shards"
    if request.param == "s3":
        place = request.getfixturevalue("s3_folder").base
        request.getfixturevalue("monkeypatch").setenv("AWS_ENDPOINT_URL", s3_endpoint)
        assert run(cli, place)["version"] == 1
    assert run(cli, place, "--set", "steps.3.threshold=0.95")["version"] == 2
    return place


def run(cli, place: str, *more: str):
    return cli("run", "mine/pipeline.yaml", "--set", f"output.path={place}", "--scratch", "work", "--json", *more).json


def test_show(cli, dataset):
    found = cli("show", dataset, "--json").json
    assert (found["version"], found["num_rows"], found["parent"], found["files"]) == (2, 41, 1, 2)
    assert found["schema"] == {"id": "string", "text": "string", "_uid": "string", "_source": "string"}
    assert found["candidates"] == found["gate"] == found["verdicts"] == []
    old = cli("show", f"{dataset}@1")
    assert (
        "@1: 40 rows in 2 files, " in old.out
        and "splits: train 32, validation 8" in old.out
        and "text: string" in old.out
    )
    assert found["fingerprint"] in cli("show", dataset).out


def test_log(cli, dataset):
    found = cli("log", dataset, "--json").json["versions"]
    assert [(entry["version"], entry["parent"], entry["num_rows"]) for entry in found] == [(2, 1, 41), (1, None, 40)]
    assert [line[:2] for line in cli("log", dataset).out.splitlines()] == ["v2", "v1"]


def test_verify(cli, dataset):
    assert cli("verify", dataset, "--json").json["whole"] is True
    assert cli("verify", f"{dataset}@1").out.endswith("@1: whole (2 files)\n")


def test_diff(cli, dataset):
    found = cli("diff", dataset, 1, 2, "--json").json
    assert found["rows"] == {"before": 40, "after": 41, "added": 1, "removed": 0, "changed": 0, "moved": 0}
    assert found["examples"]["added"] == ["repeat-2"] and not found["same_content"]
    assert cli("diff", dataset, 2, 1).out == "rows: 41 -> 40\n  removed 1: repeat-2\n"
    assert "the same content" in cli("diff", dataset, 1, 1).out


def test_rollback_makes_a_new_version(cli, dataset):
    old = cli("show", f"{dataset}@1", "--json").json
    assert cli("rollback", dataset, 1, "--json").json == {"version": 3, "of": 1}
    new = cli("show", dataset, "--json").json
    assert (new["version"], new["fingerprint"], new["layout"]) == (3, old["fingerprint"], old["layout"])
    assert "version 3 now holds what version 1 held" in cli("rollback", dataset, 1).out, "the newest holds it already"
    assert cli("diff", dataset, 1, 3, "--json").json["same_content"]


def test_gc_removes_only_what_no_version_needs(cli, dataset):
    would = cli("gc", dataset, "--keep", 1, "--dry-run", "--json").json
    assert would["dry_run"] and would["versions"] == [1] and any(path.startswith("data/") for path in would["files"])
    assert cli("show", f"{dataset}@1").status == 0
    assert cli("gc", dataset, "--keep", 1).out.startswith("removed versions 1, ")
    gone = cli("show", f"{dataset}@1")
    assert gone.status == 2 and "version 1 was removed at " in gone.err
    assert cli("verify", dataset, "--json").json["whole"]


def test_a_candidate_waits_is_seen_and_is_settled(cli, dataset):
    found = run(cli, dataset, "--candidate", "--set", "steps.1.where=length(text) > 150")
    name = found["candidate"]
    assert not found["published"] and name and cli("log", dataset, "--json").json["versions"][0]["version"] == 2
    assert f"candidate {name}" in cli("show", dataset).out
    shown = cli("show", f"{dataset}@{name}", "--json").json
    assert shown["num_rows"] == found["counts"]["kept"] and shown["candidates"] == [name]
    assert cli("publish", f"{dataset}@{name[:6]}").out.endswith("is version 3\n")
    assert cli("show", dataset, "--json").json["num_rows"] == shown["num_rows"]

    other = run(cli, dataset, "--candidate", "--set", "steps.1.where=length(text) > 5")["candidate"]
    rejected = cli("reject", f"{dataset}@{other}", "--json").json
    assert rejected["candidate"] == other and cli("show", dataset, "--json").json["candidates"] == []
    assert cli("publish", f"{dataset}@{other}").status == 2


def test_a_store_that_gives_no_answer_is_told(cli, mine, monkeypatch):
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_MAX_ATTEMPTS", "1"),
    ):
        monkeypatch.setenv(name, value)
    done = cli("show", "s3://nowhere/at/all")
    assert (
        done.status == 3
        and "s3://nowhere/at/all" in done.err
        and "Check the address" in done.err
        and "Traceback" not in done.err
    )
