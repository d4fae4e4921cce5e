"""What there is to do, as the first tasks of the DAGs say it, and the operators that read the project's files when they run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

import gristmill
from gristmill.airflow import GristmillPublishOperator, accepted, operators, tasks
from gristmill.airflow.example import make_project, suite_text
from gristmill.airflow.of_project import ProjectPlanOperator, ProjectRunOperator, ProjectValidateOperator

from .test_operators import execute

MOMENT = "2026-03-04T05:00:00+00:00"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project of the settings."""
    monkeypatch.setenv("GRISTMILL_FOLDER", str(tmp_path))
    return make_project(tmp_path, days=1)


@pytest.fixture
def ask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """ask(task, *arguments, events=..., **form) -> what the task returns."""

    def run(task: Callable[..., Any], *arguments: Any, events: Any = None, **form: Any) -> Any:
        dag_run = SimpleNamespace(conf=form, logical_date=None, run_after=pa.scalar(0, pa.timestamp("s")).as_py())
        context = {"params": form, "dag_run": dag_run, "triggering_asset_events": events or {}}
        monkeypatch.setattr(tasks, "get_current_context", lambda: context)
        return task(*arguments)

    return run


def make(folder: Path, output: str, *, candidate: bool = False) -> gristmill.RunResult:
    model = {"name": "t", "sources": [{"kind": "frame", "name": "rows"}], "output": {"path": str(folder / output)}}
    return gristmill.run(model, inputs={"rows": pa.table({"a": [1]})}, candidate=candidate, progress="quiet")


def ready(operator: Any) -> Any:
    operator.pre_execute({})
    return operator


def test_a_file_counts_as_it_is_when_the_task_runs(folder: Path) -> None:
    file = folder / "pipelines/daily.yaml"
    good = file.read_text()
    file.write_text(good.replace("raw/daily/{date}", "raw/dayli/{date}"))
    plan = ProjectPlanOperator(task_id="t", pipeline=str(file), moment=MOMENT, cwd=str(folder))
    run = ProjectRunOperator(task_id="t", pipeline=str(file), moment=MOMENT, cwd=str(folder), destination="")
    assert 'sources.0.path="raw/dayli/2026-03-04/*.jsonl"' in ready(plan).settings
    file.write_text(good)  # mended, and the task cleared
    for task in (plan, run):
        assert 'sources.0.path="raw/daily/2026-03-04/*.jsonl"' in ready(task).settings
    assert f'validate.suite="{folder}/suites/daily.json"' in plan.settings
    assert not any("validate" in setting for setting in run.settings), "a run makes a candidate, which validate judges"


def test_a_suite_counts_as_soon_as_it_is_there(folder: Path) -> None:
    make(folder, "shards/daily/2026-03-04")
    (folder / "suites/daily.json").rename(folder / "kept.json")
    task = ProjectValidateOperator(
        task_id="t", data=f"{folder}/shards/daily/2026-03-04@1", required=True, cwd=str(folder)
    )
    with pytest.raises(AirflowFailException, match="gristmill profile .*@1 --suite suites/daily.json$"):
        execute(ready(task))
    (folder / "kept.json").rename(folder / "suites/daily.json")
    assert ready(task).suite == str(folder / "suites/daily.json")
    other = ProjectValidateOperator(task_id="t", data="/elsewhere/docs@1", required=True, cwd=str(folder))
    with pytest.raises(AirflowFailException, match="--suite suites/docs.json$"):
        execute(ready(other))
    given = ProjectValidateOperator(task_id="t", data="/elsewhere/docs@1", suite="mine.json", cwd=str(folder))
    assert ready(given).suite == "mine.json"


def test_a_suite_gets_the_parameters_of_its_pipeline(folder: Path) -> None:
    file = folder / "pipelines/daily.yaml"
    file.write_text(f"{file.read_text()}validate: {{suite: suites/daily.json, parameters: {{least: 5, word: a b}}}}\n")
    data = f"{folder}/shards/daily/2026-03-04@1b2c3d4e5f607182"
    for suite, given in (
        ("", True),
        (f"{folder}/suites/daily.json", True),  # as an event names it
        ("suites/other.json", False),
    ):
        task = ProjectValidateOperator(task_id="t", data=data, suite=suite, cwd=str(folder))
        words = ready(task).command()[4:]
        assert words == (["--parameter", "least=5", "--parameter", 'word="a b"'] if given else [])


def test_a_suite_that_can_not_be_used_fails_before_any_work(folder: Path) -> None:
    (folder / "suites/odd.json").write_text(suite_text("odd", [("expect_column_value_to_not_be_nul", {"column": "a"})]))
    (folder / "raw/notes.jsonl").write_text(json.dumps({"a": 1}) + "\n")
    (folder / "pipelines/p.yaml").write_text(
        "name: p\nsources: [{kind: jsonl, name: a, path: raw/notes.jsonl}]\noutput: {path: out}\n"
    )
    task = ProjectPlanOperator(
        task_id="t", pipeline=f"{folder}/pipelines/p.yaml", moment=MOMENT, suite="suites/odd.json", cwd=str(folder)
    )
    with pytest.raises(AirflowFailException, match="Did you mean 'expect_column_values"):
        execute(ready(task))


def test_two_pipelines_must_not_write_one_dataset(folder: Path) -> None:
    text = (folder / "pipelines/daily.yaml").read_text().replace("name: daily", "name: other")
    (folder / "pipelines/other.yaml").write_text(text.replace('{date}"}', '2026-03-04/"}'))
    for name in ("daily", "other"):
        path = str(folder / f"pipelines/{name}.yaml")
        with pytest.raises(AirflowFailException, match="both write shards/daily/2026-03-04.*output.path of its own"):
            ready(ProjectPlanOperator(task_id="t", pipeline=path, moment=MOMENT, cwd=str(folder)))
        ready(ProjectPlanOperator(task_id="t", pipeline=path, moment=MOMENT, destination="x", cwd=str(folder)))


def test_names_that_are_wrong_fail(folder: Path, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "look", lambda dataset: None)
    for task, form, said in (
        (tasks.list_pipelines, {"pipline": "a"}, "no field 'pipline'. Did you mean 'pipeline'?"),
        (tasks.list_mixes, {"mix": "nope.yaml"}, "no file 'nope.yaml' in .*mixes: it has base.yaml"),
        (tasks.list_versions, {"dataset": "shards/nope"}, "no version of 'shards/nope'"),
        (tasks.list_versions, {}, "nothing to validate"),
        (tasks.list_datasets, {"dataset": "shards/nope"}, "no version of 'shards/nope'"),
        (tasks.list_datasets, {"keeep": 3}, "Did you mean 'keep'"),
    ):
        with pytest.raises(AirflowFailException, match=said):
            ask(task, **form)


def test_a_mix_of_a_dataset_that_nobody_makes(
    folder: Path, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "look", lambda dataset: None)
    mix = folder / "mixes/base.yaml"
    with pytest.raises(AirflowSkipException, match="waits for shards/packages: no version yet"):
        ask(tasks.pin_mix, str(mix))
    mix.write_text("datasets: [{data: shards/packges, weight: 1}]\n")
    with pytest.raises(AirflowFailException, match="no dataset 'shards/packges'.* Did you mean 'shards/packages'?"):
        ask(tasks.pin_mix, str(mix))
    mix.write_text("datasets: 3\n")
    assert ask(tasks.list_mixes) == [{"path": str(mix)}]
    with pytest.raises(AirflowFailException, match="is not a mix file"):
        ask(tasks.pin_mix, str(mix))


def test_maintenance_is_of_datasets_with_versions(folder: Path, ask: Callable[..., Any]) -> None:
    make(folder, "shards/daily/2026-03-04")
    make(folder, "shards/daily/2026-03-05", candidate=True)
    assert ask(tasks.list_datasets) == [{"dataset": f"{folder}/shards/daily/2026-03-04"}]
    assert ask(tasks.list_datasets, dataset="shards/daily/2026-03-04")[0]["dataset"].endswith("2026-03-04")


def test_a_version_is_validated_with_what_passed_it(
    folder: Path, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a DAG of the user's own publishes it, with a suite that has another name than the dataset."""
    made = make(folder, "mine/docs", candidate=True)
    (folder / "docs-suite.json").write_text(
        suite_text("strict", [("expect_column_values_to_not_be_null", {"column": "a"})])
    )
    target = f"{made.path}@{made.candidate}"
    verdict = execute(ProjectValidateOperator(task_id="t", data=target, suite="docs-suite.json", cwd=str(folder)))
    events: list[Any] = []
    monkeypatch.setattr(operators, "emit", lambda *arguments: events.append(arguments))
    execute(GristmillPublishOperator(task_id="t", target=target, verdict=verdict))
    extra = events[0][-1]
    assert (extra["suite"], extra["suite_name"]) == (f"{folder}/docs-suite.json", "strict")
    accepted.accept(folder, extra)
    event = SimpleNamespace(extra=extra, asset=SimpleNamespace(name="mine/docs"))
    (found,) = ask(tasks.list_versions, events={"asset": [event], "alias": [event]})
    assert found == {
        **{"dataset": made.path, "version": 1, "target": f"{made.path}@1", "asset": "mine/docs"},
        "suite": f"{folder}/docs-suite.json",
    }
    assert not accepted.is_accepted(folder, made.path, extra["fingerprint"]), "until this run is through"


def test_a_partition_by_hand_is_of_its_dataset(folder: Path, ask: Callable[..., Any]) -> None:
    make(folder, "shards/daily/2026-03-04")
    (found,) = ask(tasks.list_versions, dataset="shards/daily/2026-03-04")
    assert found["asset"] == "shards/daily"
    task = ProjectValidateOperator(task_id="t", data=found["target"], suite=found["suite"], cwd=str(folder))
    assert ready(task).suite == str(folder / "suites/daily.json")


def test_a_python_that_is_not_there_is_not_tried_again(
    folder: Path, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRISTMILL_PYTHON", "/nope/bin/python")
    with pytest.raises(AirflowFailException, match="can't start '/nope/bin/python'.*GRISTMILL_PYTHON"):
        ask(tasks.list_versions, dataset="shards/packages")
