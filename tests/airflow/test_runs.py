"""Each DAG run with `dag.test`: on real texts through all four, and on what can be wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gristmill.airflow.example import SUITES, make_project, notes, suite_text
from gristmill.storage.candidates import list_candidates
from gristmill.storage.dataset import Dataset, open_dataset
from gristmill.storage.folder import open_folder
from gristmill.storage.versions import version_numbers

from .conftest import Driver

DAY = str(datetime.now(UTC).date() - timedelta(days=1))

LICENCES = """\
name: licences
sources: [{kind: text, name: spdx, path: "%s/*.txt"}]
steps:
  - {step: normalize_text, column: text}
  - {step: filter, where: "length(text) >= 200"}
  - {step: drop_exact_duplicates, column: text}
  - {step: drop_near_duplicates, column: text, threshold: 0.8}
split: {train: 0.9, validation: 0.1, similarity: 0.8}
output: {path: shards/packages}
"""


TRAIN = """\
import json
import os
import sys

import torch
import torch.distributed as dist

import gristmill

dist.init_process_group("gloo")
loader = gristmill.stream(sys.argv[1], **json.loads(os.environ["GRISTMILL_STREAM"]))
steps = [batch["_uid"] for batch in loader]
with open(f"rank-{dist.get_rank()}.json", "w") as file:
    json.dump(steps, file)
rows = torch.tensor(sum(map(len, steps)))
dist.all_reduce(rows)
if dist.get_rank() == 0:
    print(f"trained on {int(rows)} rows in {len(steps)} steps")
dist.destroy_process_group()
"""


def versions(folder: Path) -> list[int]:
    return version_numbers(open_folder(str(folder)))


def daily(project: Path, day: str = DAY) -> Dataset:
    return open_dataset(str(project / "shards/daily" / day))


def test_real_texts_go_through_all_four(driver: Driver, project: Path, shared_data: Path) -> None:
    (project / "pipelines/licences.yaml").write_text(LICENCES % (shared_data / "text/spdx_licences"))
    (project / "suites/licences.json").write_text(suite_text("licences", SUITES["packages"]))
    mark = project / "trained.json"
    code = (
        f"import os; open({str(mark)!r}, 'w').write(os.environ['GRISTMILL_MIX'] + ' ' + os.environ['GRISTMILL_STREAM'])"
    )
    make_project(project)  # leaves what is there
    (project / "pipelines/packages.yaml").unlink()  # for the other writes there
    (project / "mixes/base.yaml").write_text(
        "datasets: [{data: shards/packages, split: train, weight: 1}]\nstream: {global_batch_size: 8, columns: [text]}\n"
        f"command: {json.dumps(f'python -c {json.dumps(code)}')}\n"
    )
    found = driver.run("gristmill_etl", conf={"pipeline": "licences.yaml"})
    assert found["state"] == "success", found["log"][-3000:]
    dataset = open_dataset(str(project / "shards/packages"))
    run, publish = found["xcoms"]["each.run[0]"], found["xcoms"]["each.publish[0]"]["return_value"]
    counts = run["counts"]
    assert counts["read"] >= 819 and counts["read"] == counts["kept"] + counts["dropped"] + counts["quarantined"]
    assert dataset.num_rows == counts["kept"] == dataset.to_table().num_rows and dataset.verify() == []
    assert (publish["version"], publish["rows"], publish["fingerprint"], publish["verdict"]) == (
        1,
        dataset.num_rows,
        dataset.fingerprint,
        "passed",
    )
    assert found["xcoms"]["each.validate[0]"]["return_value"]["verdict"] == "passed"
    assert all(len(json.dumps(each)) < 4000 for each in found["xcoms"].values())
    (event,) = found["events"]
    assert (event["asset"], event["uri"]) == ("shards/packages", f"file://{project}/shards/packages") and event[
        "aliases"
    ] == ["gristmill_datasets"]
    assert {name: event["extra"][name] for name in ("version", "rows", "fingerprint", "verdict")} == {
        **{"version": 1, "rows": dataset.num_rows, "fingerprint": dataset.fingerprint, "verdict": "passed"}
    }
    assert "gristmill/report?path=" in run["_link_ReportLink"] and os.path.exists(run["report"])

    found = driver.run("gristmill_validate", conf={"dataset": "shards/packages", "suite": "suites/licences.json"})
    assert found["state"] == "success", found["log"][-3000:]
    assert [event["extra"]["verdict"] for event in found["events"]] == ["passed"] and found["events"][0]["aliases"] == [
        "gristmill_validated"
    ]
    assert (found["events"][0]["asset"], found["events"][0]["uri"]) == (
        "shards/packages:validated",
        f"file://{project}/shards/packages:validated",
    )
    assert found["xcoms"]["each.leakage[0]"]["return_value"] == {"check": "leakage", "verdict": "passed", "found": []}

    found = driver.run("gristmill_training_ready")
    assert found["state"] == "success", found["log"][-3000:]
    pinned = json.loads(Path(found["xcoms"]["each.pin[0]"]["mix"]).read_text())
    assert pinned["datasets"][0]["data"] == f"{project}/shards/packages@1"
    stream = found["xcoms"]["each.stream[0]"]["return_value"]
    assert stream["rows_read"] == 32 and stream["columns"] == {"text": "list"}
    assert mark.read_text().startswith(found["xcoms"]["each.pin[0]"]["mix"])
    again = driver.run("gristmill_training_ready")
    assert again["tasks"]["each.pin[0]"] == "skipped" and "has been trained on" in again["log"]

    found = driver.run("gristmill_maintenance", conf={"keep": 1})
    assert found["state"] == "success" and found["xcoms"]["each.verify[0]"]["return_value"]["whole"] is True
    assert versions(project / "shards/packages") == [1]


def test_the_same_date_twice_is_one_version(driver: Driver, project: Path) -> None:
    first = driver.run("gristmill_etl", conf={"pipeline": "daily.yaml"}, date=DAY)
    second = driver.run("gristmill_etl", conf={"pipeline": "daily.yaml", "date": DAY})
    assert (first["state"], second["state"]) == ("success", "success")
    assert first["tasks"]["each.publish[0]"] == "success" and second["tasks"]["each.publish[0]"] == "skipped"
    assert versions(project / "shards/daily" / DAY) == [1] and second["events"] == []
    assert [(event["asset"], event["uri"]) for event in first["events"]] == [
        ("shards/daily", f"file://{project}/shards/daily")
    ]  # of all dates
    assert daily(project).num_rows == 10 and {row["id"][:10] for row in daily(project).to_table().to_pylist()} == {DAY}


@pytest.mark.slow
def test_days_in_any_order_are_the_same(driver: Driver, project: Path) -> None:
    days = [f"2026-02-0{number}" for number in (1, 2, 3)]
    for day in days:
        (project / f"raw/daily/{day}").mkdir()
        (project / f"raw/daily/{day}/notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in notes(day)))
    prints = []
    for order, out in ((days, "in-order"), ([days[2], days[0], days[1]], "mixed")):
        for day in order:
            found = driver.run(
                "gristmill_etl", conf={"pipeline": "daily.yaml", "destination": f"{out}/{{date}}"}, date=day
            )
            assert found["state"] == "success", found["log"][-2000:]
        prints.append([open_dataset(str(project / out / day)).fingerprint for day in days])
    assert prints[0] == prints[1] and len(set(prints[0])) == 3


def test_a_bad_batch_is_stopped_at_the_gate(driver: Driver, project: Path) -> None:
    assert driver.run("gristmill_etl", conf={"pipeline": "daily.yaml"}, date=DAY)["state"] == "success"
    good = daily(project).fingerprint
    with open(project / f"raw/daily/{DAY}/late.jsonl", "w") as file:
        file.write(json.dumps({"id": "leak", "text": "the password of the mill is 1234, tell nobody"}) + "\n")
    found = driver.run("gristmill_etl", conf={"pipeline": "daily.yaml"}, date=DAY)
    assert found["state"] == "failed"
    assert (found["tasks"]["each.validate[0]"], found["tasks"]["each.publish[0]"]) == (
        "failed",
        "upstream_failed",
    ) and found["events"] == []
    verdict = found["xcoms"]["each.validate[0]"]["verdict"]
    assert (
        verdict["verdict"] == "failed"
        and verdict["expectations"][0]["column"] == "text"
        and verdict["expectations"][0]["unexpected"] == 1
    )
    assert daily(project).fingerprint == good and daily(project).version == 1
    waiting = list_candidates(daily(project).folder)
    assert [each.num_rows for each in waiting] == [11]  # to be looked at, published or rejected
    assert "mend the source and clear each.run, or mend the suite and clear each.validate" in found["log"]
    assert f"gristmill reject {project}/shards/daily/{DAY}@{waiting[0].fingerprint[:16]}" in found["log"]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("absent.yaml", None, "no pipeline file"),
        ("broken.yaml", "name: [", "broken.yaml:1: not valid YAML"),
        (
            "wrong.yaml",
            "name: w\nsources: [{kind: jsonl, path: x, name: x}]\nsteps: [{step: fliter, where: a}]\noutput: {path: o}\n",
            "Did you mean 'filter'?",
        ),
    ],
)
def test_a_pipeline_file_that_is_missing_or_wrong(
    driver: Driver, project: Path, file: str, text: str | None, said: str
) -> None:
    if text is not None:
        (project / "pipelines" / file).write_text(text)
    found = driver.run("gristmill_etl", conf={"pipeline": file})
    assert (
        found["state"] == "failed"
        and found["tasks"]["each.plan[0]"] == "failed"
        and found["tasks"]["each.run[0]"] == "upstream_failed"
    )
    assert said in found["log"]


@pytest.mark.slow
def test_a_wrong_file_does_not_keep_the_others_from_running(driver: Driver, project: Path) -> None:
    (project / "pipelines/packages.yaml").write_text("name: [")
    found = driver.run("gristmill_etl", date=DAY)
    assert found["state"] == "failed" and versions(project / "shards/daily" / DAY) == [1]


@pytest.mark.slow
def test_a_suite_that_is_missing(driver: Driver, project: Path) -> None:
    found = driver.run("gristmill_etl", conf={"pipeline": "daily.yaml", "suite": "suites/absent.json"}, date=DAY)
    assert (
        found["state"] == "failed"
        and found["tasks"]["each.plan[0]"] == "failed"
        and versions(project / "shards/daily" / DAY) == []
    )
    assert "absent.json" in found["log"]


@pytest.mark.slow
def test_a_version_without_a_suite_is_not_validated(driver: Driver, project: Path) -> None:
    (project / "suites/daily.json").unlink()
    assert (
        driver.run("gristmill_etl", conf={"pipeline": "daily.yaml"}, date=DAY)["state"] == "success"
    )  # no suite was asked for
    found = driver.run("gristmill_validate", conf={"dataset": f"shards/daily/{DAY}"})
    assert found["state"] == "failed" and "no suite for" in found["log"] and "gristmill profile" in found["log"]


def test_raw_data_that_is_missing(driver: Driver, project: Path) -> None:
    found = driver.run("gristmill_etl", conf={"pipeline": "daily.yaml", "date": "1999-01-01"})
    assert found["state"] == "failed" and "1999-01-01" in found["log"] and found["tasks"]["each.plan[0]"] == "failed"


def test_no_project_at_all(driver: Driver, project: Path) -> None:
    import shutil

    shutil.rmtree(project)
    for dag, tasks in (
        ("gristmill_etl", "each.run"),
        ("gristmill_training_ready", "each.pin"),
        ("gristmill_maintenance", "each.gc"),
    ):
        found = driver.run(dag)
        assert found["state"] == "success" and found["tasks"][tasks] == "skipped", (dag, found["tasks"])
    found = driver.run("gristmill_validate")
    assert found["state"] == "failed" and "name a `dataset` in the form" in found["log"]


def test_a_field_that_the_form_does_not_have(driver: Driver, project: Path) -> None:
    found = driver.run("gristmill_etl", conf={"pipline": "daily.yaml"})
    assert found["tasks"]["pipelines"] == "failed" and "no field 'pipline'. Did you mean 'pipeline'?" in found["log"]


@pytest.mark.slow
def test_training_waits_until_all_are_accepted(driver: Driver, project: Path) -> None:
    def waits_for() -> str:
        found = driver.run("gristmill_training_ready")
        assert found["tasks"]["each.pin[0]"] == "skipped"
        return str(found["log"].rpartition("waits for ")[2].partition("\n")[0])

    data = f"shards/daily/{DAY}"
    (project / "mixes/base.yaml").write_text(
        f"datasets: [{{data: {data}, weight: 1}}, {{data: shards/absent, weight: 1}}]\n"
    )
    (project / "pipelines/absent.yaml").write_text("name: absent\noutput: {path: shards/absent}\n")
    driver.run("gristmill_etl", conf={"pipeline": "daily.yaml"}, date=DAY)
    said = waits_for()  # its suite's verdict is there, but drift and leakage have not been looked at
    assert f"{data}: version 1 was not accepted by gristmill_validate; shards/absent: no version yet" in said
    validate = {"dataset": data, "suite": "suites/daily.json"}
    assert driver.run("gristmill_validate", conf=validate)["state"] == "success"
    assert waits_for().startswith("shards/absent: no version yet")
    suite = suite_text("strict", [("expect_table_row_count_to_be_between", {"min_value": 1000})])
    (project / "suites/strict.json").write_text(suite)
    assert driver.run("gristmill_validate", conf={**validate, "suite": "suites/strict.json"})["state"] == "failed"
    assert waits_for().startswith(f"{data}: version 1 failed strict@")


@pytest.mark.slow
def test_torchrun_streams_the_mix(driver: Driver, project: Path) -> None:
    """Two processes that talk to each other: each gets its part of every global batch, together all rows once."""
    pytest.importorskip("torch", reason="torch is not installed: pip install 'gristmill[torch]'")
    data = f"shards/daily/{DAY}"
    (project / "train.py").write_text(TRAIN)
    (project / "mixes/base.yaml").write_text(
        f"datasets: [{{data: {data}, weight: 1}}]\nstream: {{global_batch_size: 4, seed: 7, columns: [_uid]}}\n"
        f"command: torchrun --standalone --nproc-per-node=2 {project}/train.py {{mix}}\n"
    )
    assert driver.run("gristmill_etl", conf={"pipeline": "daily.yaml"}, date=DAY)["state"] == "success"
    validate = {"dataset": data, "suite": "suites/daily.json"}
    assert driver.run("gristmill_validate", conf=validate)["state"] == "success"
    found = driver.run("gristmill_training_ready")
    assert found["state"] == "success" and found["tasks"]["each.train[0]"] == "success", found["log"][-3000:]
    assert "trained on 10 rows in 3 steps" in found["log"]
    ranks = [json.loads((project / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert [len(step) for step in ranks[0]] == [len(step) for step in ranks[1]] == [2, 2, 1]
    uids = [uid for rank in ranks for step in rank for uid in step]
    assert sorted(uids) == sorted(daily(project).to_table(columns=["_uid"])["_uid"].to_pylist())

    (project / "train.py").write_text("import os, sys\nsys.exit(int(os.environ['RANK']))\n")  # one worker fails
    found = driver.run("gristmill_training_ready", conf={"again": True})
    assert found["tasks"]["each.train[0]"] == "failed" and "exitcode" in found["log"]


def test_taskflow(driver: Driver, project: Path) -> None:
    found = driver.run("pieces_taskflow", conf={"day": DAY})
    assert found["state"] == "success", found["log"][-2000:]
    assert found["xcoms"]["rows"]["return_value"] == 10 and found["xcoms"]["run"]["return_value"]["version"] == 1
    assert driver.run("pieces_taskflow", conf={"pipeline": "absent.yaml", "day": DAY})["tasks"]["run"] == "failed"


@pytest.mark.slow
def test_the_sensor_waits_for_the_next_version(driver: Driver, project: Path) -> None:
    def publish(seconds: float = 0) -> None:
        time.sleep(seconds)
        command = [
            sys.executable,
            "-m",
            "gristmill.cli.main",
            "run",
            "pipelines/daily.yaml",
            "--set",
            f"sources.0.path=raw/daily/{DAY}/*.jsonl",
        ]
        subprocess.run([*command, "--set", "output.path=shards/x"], cwd=project, check=True, capture_output=True)

    thread = threading.Thread(target=publish, args=(2,))
    thread.start()
    found = driver.run("pieces_sensor", conf={"dataset": "shards/x", "after": "0"})  # not there yet
    thread.join()
    assert found["state"] == "success", found["log"][-2000:]
    assert (
        found["xcoms"]["wait"]["return_value"]["version"] == 1 and found["xcoms"]["wait"]["return_value"]["rows"] == 10
    )
    (project / f"raw/daily/{DAY}/more.jsonl").write_text(
        json.dumps({"id": "more", "text": "one more sack of grain came in the evening"}) + "\n"
    )
    thread = threading.Thread(target=publish, args=(2,))
    thread.start()
    found = driver.run("pieces_sensor", conf={"dataset": "shards/x", "after": ""})  # newer than what is there
    thread.join()
    assert found["xcoms"]["wait"]["return_value"]["version"] == 2
    (project / f"raw/daily/{DAY}/third.jsonl").write_text(
        json.dumps({"id": "third", "text": "and another one in the night, by the light of the moon"}) + "\n"
    )
    thread = threading.Thread(target=publish, args=(6,))
    thread.start()
    found = driver.run("pieces_sensor_reschedule", conf={"dataset": "shards/x"})  # each look is a task that starts anew
    thread.join()
    assert found["xcoms"]["wait"]["return_value"]["version"] == 3


@pytest.mark.slow
def test_another_python(driver: Driver, project: Path) -> None:
    """A Python of another environment, here one that says which it is; Airflow need not be in it."""
    path = project / "python"
    path.write_text(f'#!/bin/sh\necho "another environment runs: $3 $4" >&2\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    (project / "pipelines/daily.yaml").write_text((project / "pipelines/daily.yaml").read_text().replace("{date}", DAY))
    found = driver.run("pieces_python")
    assert found["state"] == "success" and "another environment runs: run pipelines/daily.yaml" in found["log"]
