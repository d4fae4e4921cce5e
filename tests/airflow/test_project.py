"""The project folder: which pipeline files there are, and what a date makes of them."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest
import yaml

from gristmill.airflow import accepted
from gristmill.airflow.example import make_project
from gristmill.airflow.project import fill, find_mixes, find_pipelines, find_suite, find_writer, read_mix, read_pipeline
from gristmill.errors import UsageError
from gristmill.pipelines.loading import load_pipeline

MOMENT = dt.datetime(2026, 3, 4, 5, tzinfo=dt.UTC)


def test_pipelines_are_found_by_name_glob_and_path(tmp_path: Path) -> None:
    make_project(tmp_path, days=1)
    both = [str(tmp_path / "pipelines" / name) for name in ("daily.yaml", "packages.yaml")]
    assert find_pipelines(tmp_path) == both and find_pipelines(tmp_path, "d*.yaml") == both[:1]
    assert (
        find_pipelines(tmp_path, "daily.yaml")
        == find_pipelines(tmp_path, "pipelines/daily.yaml")
        == find_pipelines(tmp_path, both[0])
        == both[:1]
    )
    assert find_pipelines(tmp_path, "absent.yaml") == [
        str(tmp_path / "pipelines" / "absent.yaml")
    ]  # left to `gristmill plan`, which says so
    assert find_pipelines(tmp_path / "no folder") == find_pipelines(tmp_path / "no folder", "*.yaml") == []
    with pytest.raises(UsageError, match=r"no file 'x\*.yaml' in .*/pipelines: it has daily.yaml, packages.yaml"):
        find_pipelines(tmp_path, "x*.yaml")


def test_a_date_is_laid_over_every_text_that_has_it(tmp_path: Path) -> None:
    make_project(tmp_path, days=1)
    found = read_pipeline(str(tmp_path / "pipelines/daily.yaml"), tmp_path, MOMENT)
    assert (found.name, found.output, found.asset) == ("daily", "shards/daily/2026-03-04", "shards/daily")
    assert found.suite == str(tmp_path / "suites/daily.json")
    model = load_pipeline(found.path, found.settings)  # gristmill understands them
    assert (model.sources[0].path, model.output.path) == ("raw/daily/2026-03-04/*.jsonl", "shards/daily/2026-03-04")
    assert fill("a/{date}/{hour}/{other}", MOMENT) == "a/2026-03-04/05/{other}"


def test_a_text_that_is_only_a_date_stays_a_text(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "name: p\nsources: [{kind: jsonl, path: x, name: '{date}'}]\noutput: {path: out}\n"
    )
    found = read_pipeline(str(tmp_path / "p.yaml"), tmp_path, MOMENT)
    assert [yaml.safe_load(setting.partition("=")[2]) for setting in found.settings] == ["2026-03-04"]


def test_a_pipeline_without_a_date_needs_nothing(tmp_path: Path) -> None:
    make_project(tmp_path, days=1)
    found = read_pipeline(str(tmp_path / "pipelines/packages.yaml"), tmp_path, MOMENT)
    assert (found.settings, found.output, found.asset) == ([], "shards/packages", "shards/packages")
    given = read_pipeline(found.path, tmp_path, MOMENT, {"destination": "elsewhere/{date}", "suite": "other.json"})
    assert (given.settings, given.suite, given.asset) == (
        ['output.path="elsewhere/2026-03-04"'],
        "other.json",
        "elsewhere",
    )


def test_files_that_are_no_pipelines_are_left_to_gristmill(tmp_path: Path) -> None:
    for name, content in (("broken", b"a: [1"), ("list", b"[1]"), ("bytes", b"\xff\xfe\x00")):
        path = tmp_path / f"{name}.yaml"
        path.write_bytes(content)
        found = read_pipeline(str(path), tmp_path, MOMENT)
        assert (found.name, found.settings, found.output) == (name, [], None)
    assert read_pipeline(str(tmp_path / "absent.yaml"), tmp_path, MOMENT).name == "absent"


def test_suites_and_mixes(tmp_path: Path) -> None:
    make_project(tmp_path, days=1, train="torchrun train.py")
    assert find_suite(tmp_path, "absent") is None
    with pytest.raises(UsageError, match=r"no file 'bsae.yaml' in .*/mixes: it has base.yaml"):
        find_mixes(tmp_path, "bsae.yaml")
    assert find_mixes(tmp_path / "no folder") == []
    (tmp_path / "mixes/bad.yaml").write_text("datasets: 3\n")
    bad, path = find_mixes(tmp_path)
    base = read_mix(path)
    assert (base.name, base.datasets, base.command) == ("base", ["shards/packages"], "torchrun train.py")
    with pytest.raises(UsageError, match=r"bad.yaml' is not a mix file"):
        read_mix(bad)
    assert json.loads((tmp_path / "suites/packages.json").read_text())["name"] == "packages"


def test_who_makes_a_dataset(tmp_path: Path) -> None:
    make_project(tmp_path, days=1)
    for dataset in ("shards/daily/2026-01-31", str(tmp_path / "shards/daily/2026-01-31")):
        found = find_writer(tmp_path, dataset)
        assert found is not None and (found.name, found.asset) == ("daily", "shards/daily")
    for dataset in ("shards/daily", "shards/daily/late", "shards/packages2", "s3://lake/shards/packages"):
        assert find_writer(tmp_path, dataset) is None


def test_the_example_project_is_not_written_over(tmp_path: Path) -> None:
    make_project(tmp_path, days=1)
    (tmp_path / "pipelines/daily.yaml").write_text("mine")
    make_project(tmp_path, days=1)
    assert (tmp_path / "pipelines/daily.yaml").read_text() == "mine"


def test_what_is_accepted_is_bound_to_content(tmp_path: Path) -> None:
    facts = {"dataset": "s3://lake/docs", "version": 3, "fingerprint": "ab" * 16, "verdict": "passed"}
    accepted.accept(tmp_path, facts)
    assert accepted.is_accepted(tmp_path, "s3://lake/docs", "ab" * 16)
    assert not accepted.is_accepted(tmp_path, "s3://lake/docs", "cd" * 16)
    assert not accepted.is_accepted(tmp_path, "s3://other/docs", "ab" * 16)
    accepted.withdraw(tmp_path, "s3://lake/docs", "ab" * 16)
    accepted.withdraw(tmp_path, "s3://lake/docs", "ab" * 16)
    assert (
        not accepted.is_accepted(tmp_path, "s3://lake/docs", "ab" * 16)
        and list((tmp_path / "accepted").iterdir()) == []
    )
