"""The real thing: scheduler, DAG processor, triggerer and API server as `make airflow` starts them, driven and read through the REST API."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

import gristmill
from gristmill.airflow.example import make_project, suite_text
from gristmill.airflow.local import LocalAirflow, free_port, wait_for
from gristmill.storage.candidates import list_candidates
from gristmill.storage.dataset import open_dataset
from gristmill.storage.folder import Folder, open_folder

from .conftest import DAGS

PIECES = Path(__file__).with_name("dags")

pytestmark = pytest.mark.slow

TODAY = datetime.now(UTC).date()
SLOW = """\
name: slow
sources: [%s]
steps: [{step: python, function: "slowly:slowly"}]
output: {path: shards/slow}
"""
SLOWLY = """\
import pathlib
import time


def slowly(table):
    with open(pathlib.Path(__file__).with_name("steps.log"), "a") as log:
        log.write("step\\n")
    time.sleep(4)
    return table
"""


class Seen(LocalAirflow):
    """The local Airflow, with what tests ask of it."""

    def trigger(self, dag: str, **conf: Any) -> str:
        return str(self.request("POST", f"dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"])

    def state(self, dag: str, run: str) -> str:
        return str(self.request("GET", f"dags/{dag}/dagRuns/{quote(run)}")["state"])

    def tasks(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        found = self.request("GET", f"dags/{dag}/dagRuns/{quote(run)}/taskInstances")["task_instances"]
        return {
            f"{each['task_id']}[{each['map_index']}]" if each["map_index"] >= 0 else each["task_id"]: each
            for each in found
        }

    def runs(self, dag: str, kind: str) -> list[dict[str, Any]]:
        return [
            run for run in self.request("GET", f"dags/{dag}/dagRuns?limit=100")["dag_runs"] if run["run_type"] == kind
        ]

    def at_work(self, dag: str) -> bool:
        found = self.request("GET", f"dags/{dag}/dagRuns?limit=100")["dag_runs"]
        return any(run["state"] in ("queued", "running") for run in found)

    def finished(self, dag: str, run: str, seconds: float = 300) -> str:
        try:
            wait_for(lambda: self.state(dag, run) in ("success", "failed"), seconds, every=2)
        except TimeoutError as error:
            raise AssertionError({name: task["state"] for name, task in self.tasks(dag, run).items()}) from error
        return self.state(dag, run)

    def xcom(self, dag: str, run: str, task: str, key: str = "return_value", index: int = 0) -> Any:
        found = self.request(
            "GET",
            f"dags/{dag}/dagRuns/{quote(run)}/taskInstances/{task}/xcomEntries/{key}?map_index={index}&deserialize=true",
        )
        value = found["value"]
        return json.loads(value) if isinstance(value, str) and value[:1] in "{[" else value

    def log_of(self, dag: str, run: str, task: str, index: int = 0, attempt: int = 1) -> str:
        found = self.request(
            "GET",
            f"dags/{dag}/dagRuns/{quote(run)}/taskInstances/{task}/logs/{attempt}?map_index={index}&full_content=true",
        )
        return json.dumps(found["content"])


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, s3_endpoint: str) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("scheduler")
    shutil.copytree(DAGS, folder / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PIECES, folder / "dags/tests", ignore=shutil.ignore_patterns("__pycache__"))
    project = make_project(folder / "project", days=9)
    lake = {"endpoint_url": s3_endpoint, "region_name": "us-east-1"}
    settings = {
        "GRISTMILL_RETRY_SECONDS": "5",
        "GRISTMILL_RETRIES": "2",
        "AIRFLOW_CONN_LAKE": json.dumps(
            {"conn_type": "aws", "login": "test", "password": "test-secret", "extra": lake}
        ),
    }
    os.environ.update(settings)
    made = Seen(folder / "home", folder / "dags", project, free_port(28080))
    try:
        made.start()
        yield made
    finally:
        for name in settings:
            del os.environ[name]
        assert made.stop()
        left = [process.cmdline() for process in psutil.process_iter() if belongs(process, str(folder))]
        assert left == []


def belongs(process: psutil.Process, text: str) -> bool:
    try:
        return any(text in word for word in process.cmdline()) or text in process.environ().get("AIRFLOW_HOME", "")
    except psutil.Error:
        return False


def commands(pipeline: str) -> list[psutil.Process]:
    """The gristmill processes at work on a pipeline."""
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if (
            "gristmill.cli.main" in line
            and "run" in line
            and any(pipeline in word for word in line)
            and not any("guard.py" in word for word in line)
        ):
            found.append(process)
    return found


def test_a_scheduled_run_is_green_and_its_assets_start_the_next(local: Seen) -> None:
    (run,) = wait_for(lambda: local.runs("gristmill_etl", "scheduled"), 120)
    assert local.finished("gristmill_etl", run["dag_run_id"], 400) == "success"
    yesterday = str(TODAY - timedelta(days=1))
    assert open_dataset(str(local.project / "shards/daily" / yesterday)).num_rows == 10
    packages = open_dataset(str(local.project / "shards/packages"))
    assert packages.verify() == [] and packages.num_rows > 10
    events = local.request("GET", "assets/events?limit=50")["asset_events"]
    extras = {
        event["extra"]["dataset"]: event["extra"] for event in events if event["source_dag_id"] == "gristmill_etl"
    }
    assert extras[packages.path]["fingerprint"] == packages.fingerprint and extras[packages.path]["verdict"] == "passed"
    followed = wait_for(lambda: local.runs("gristmill_validate", "asset_triggered"), 60)
    assert {local.finished("gristmill_validate", each["dag_run_id"], 300) for each in followed} == {"success"}
    trained = wait_for(
        lambda: [run for run in local.runs("gristmill_training_ready", "asset_triggered") if run["state"] == "success"],
        300,
        every=2,
    )
    assert trained
    names = {"shards/daily", "shards/packages", "shards/daily:validated", "shards/packages:validated"}
    wait_for(
        lambda: {asset["name"] for asset in local.request("GET", "assets?limit=50")["assets"]} == names, 150, every=2
    )  # Airflow registers them by and by
    ready = wait_for(lambda: list((local.project / "ready").glob("base-*.trained")), 200, every=2)
    assert json.loads(ready[0].with_suffix(".json").read_text())["datasets"][0]["data"] == f"{packages.path}@1"


def test_reports_are_shown_to_who_is_logged_in(local: Seen) -> None:
    run = local.runs("gristmill_etl", "scheduled")[0]["dag_run_id"]
    index = next(
        task["map_index"]
        for task in local.tasks("gristmill_etl", run).values()
        if task["rendered_map_index"] == "packages"
    )
    links = local.request(
        "GET", f"dags/gristmill_etl/dagRuns/{quote(run)}/taskInstances/each.run/links?map_index={index}"
    )["extra_links"]
    address = local.url + links["Report"]

    def get(url: str, token: str | None) -> tuple[int, str]:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""

    token = local._token()
    status, page = get(address, token)
    assert status == 200 and "rows read" in page
    assert get(address, None)[0] in (401, 403)
    assert get(f"{local.url}/gristmill/report?path=/etc/passwd", token)[0] == 404
    assert get(f"{local.url}/gristmill/report?path={quote(str(local.home / 'airflow.cfg'))}", token)[0] == 404


def test_a_bad_batch_is_stopped_at_the_gate(local: Seen) -> None:
    day = str(TODAY)
    with open(local.project / f"raw/daily/{day}/late.jsonl", "w") as file:
        file.write(json.dumps({"id": "leak", "text": "the password of the mill is 1234, tell nobody"}) + "\n")
    run = local.trigger("gristmill_etl", pipeline="daily.yaml", date=day)
    assert local.finished("gristmill_etl", run) == "failed"
    tasks = local.tasks("gristmill_etl", run)
    assert (tasks["each.validate[0]"]["state"], tasks["each.publish[0]"]["state"]) == ("failed", "upstream_failed")
    assert tasks["each.validate[0]"]["try_number"] == 1  # data that failed is not tried again
    folder = open_folder(str(local.project / "shards/daily" / day))
    assert [each.num_rows for each in list_candidates(folder)] == [11] and not any(
        "json" in name for name, *_ in folder.list("manifests", recursive=False)
    )
    assert "password" not in json.dumps(local.xcom("gristmill_etl", run, "each.run"))
    assert "gristmill reject" in local.log_of("gristmill_etl", run, "each.validate")


def make_slow(local: Seen, name: str, sources: int = 4) -> None:
    """A pipeline of some items, each of which takes some seconds in a step of the user's own."""
    listed = []
    for number in range(sources):
        path = local.project / f"raw/{name}-{number}.jsonl"
        path.write_text(
            "".join(
                json.dumps({"id": f"{name}-{number}-{row}", "text": f"row {row} of source {number}"}) + "\n"
                for row in range(5)
            )
        )
        listed.append(f"{{kind: jsonl, name: s{number}, path: raw/{name}-{number}.jsonl}}")
    (local.project / f"pipelines/{name}.yaml").write_text(
        SLOW.replace("slow", name, 1).replace("shards/slow", f"shards/{name}") % ", ".join(listed)
    )
    (local.project / "slowly.py").write_text(SLOWLY)
    (local.project / "steps.log").write_text("")


def at_work(local: Seen, name: str) -> psutil.Process:
    """The command that works on the pipeline, once its first step has begun."""
    wait_for(lambda: len((local.project / "steps.log").read_text().split()) >= 2, 180, every=0.2)
    return commands(f"{name}.yaml")[0]


def test_a_killed_task_retries_and_resumes(local: Seen) -> None:
    make_slow(local, "killed")
    try:
        run = local.trigger("gristmill_etl", pipeline="killed.yaml")
        command = at_work(local, "killed")
        task = command.parent().parent()  # command < guard < the process that runs the task
        os.kill(task.pid, signal.SIGKILL)
        wait_for(lambda: not command.is_running() or command.status() == psutil.STATUS_ZOMBIE, 30, every=0.1)
        assert local.finished("gristmill_etl", run) == "success"
    finally:
        (local.project / "pipelines/killed.yaml").unlink()
    assert local.tasks("gristmill_etl", run)["each.run[0]"]["try_number"] == 2
    found = local.xcom("gristmill_etl", run, "each.run")
    assert found["reused_items"] >= 5 and found["counts"]["kept"] == 20  # what was ingested, and the first item's step
    steps = (local.project / "steps.log").read_text().split()
    assert len(steps) < 8, "finished items were done again"
    assert open_dataset(str(local.project / "shards/killed")).verify() == []


def test_a_cancelled_run_leaves_nothing(local: Seen) -> None:
    make_slow(local, "cancelled", sources=8)
    try:
        run = local.trigger("gristmill_etl", pipeline="cancelled.yaml")
        command = at_work(local, "cancelled")
        local.request("PATCH", f"dags/gristmill_etl/dagRuns/{quote(run)}", {"state": "failed"})
        wait_for(lambda: not commands("cancelled.yaml") and not command.is_running(), 90, every=0.5)
    finally:
        (local.project / "pipelines/cancelled.yaml").unlink()
    time.sleep(7)  # longer than a retry would take to begin
    assert not commands("cancelled.yaml")
    assert local.state("gristmill_etl", run) == "failed"
    left = local.project / "shards/cancelled"
    assert not (left / "manifests").exists() and not (left / "candidates").exists()


def create_backfill(local: Seen, days: list[str]) -> None:
    """As the docs say for SQLite: while no run is on, and asked again while the server says that its database is locked."""
    dags = ("gristmill_etl", "gristmill_validate", "gristmill_training_ready", "gristmill_maintenance")
    wait_for(lambda: not any(local.at_work(dag) for dag in dags), 600, every=2)
    body = {
        **{"dag_id": "gristmill_etl", "from_date": days[0], "to_date": days[-1], "run_backwards": True},
        **{"max_active_runs": 2, "dag_run_conf": {"pipeline": "daily.yaml"}, "reprocess_behavior": "completed"},
    }
    for _ in range(20):
        try:
            local.request("POST", "backfills", body)
        except RuntimeError as error:
            if "Database is locked" not in str(error):
                raise
            time.sleep(2)
        else:
            return
    raise AssertionError("the database was locked twenty times")


def test_a_backfill_in_any_order_is_the_same(local: Seen) -> None:
    days = [str(TODAY - timedelta(days=back)) for back in range(8, 1, -1)]
    expected = []
    for day in days:  # in order, without Airflow
        settings = [f"sources.0.path=raw/daily/{day}/*.jsonl", f"output.path={local.project}/in-order/{day}"]
        here = os.getcwd()
        os.chdir(local.project)
        try:
            expected.append(gristmill.run("pipelines/daily.yaml", settings=settings, progress="quiet").fingerprint)
        finally:
            os.chdir(here)
    create_backfill(local, days)

    def states() -> dict[str, str]:
        runs = local.runs("gristmill_etl", "backfill")
        return {run["logical_date"][:10]: run["state"] for run in runs}

    try:
        wait_for(lambda: states() == dict.fromkeys(days, "success"), 700, every=3)
    except TimeoutError as error:
        raise AssertionError(states()) from error
    assert [open_dataset(str(local.project / "shards/daily" / day)).fingerprint for day in days] == expected


def test_the_sensor_waits_in_the_triggerer(local: Seen, s3_folder: Folder, tmp_path: Path) -> None:
    """For a dataset in S3, with the credentials of a Connection, which the triggerer asks for."""
    telltale = local.project / "telltale"  # a Python that says what nobody should read
    telltale.write_text(f'#!/bin/sh\necho "the secret is $AWS_SECRET_ACCESS_KEY" >&2\nexec {sys.executable} "$@"\n')
    telltale.chmod(0o755)
    run = local.trigger("pieces_sensor_remote", dataset=s3_folder.url())
    wait_for(lambda: local.tasks("pieces_sensor_remote", run).get("wait", {}).get("state") == "deferred", 200, every=1)
    (tmp_path / "raw.jsonl").write_text('{"text": "one"}\n')
    model = {
        "name": "t",
        "sources": [{"kind": "jsonl", "name": "raw", "path": str(tmp_path / "raw.jsonl")}],
        "output": {"path": s3_folder.url()},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", json.loads(os.environ["AIRFLOW_CONN_LAKE"])["extra"]["endpoint_url"])
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "scratch"))
        gristmill.run(model, progress="quiet")
    assert local.finished("pieces_sensor_remote", run, 300) == "success"
    found = local.xcom("pieces_sensor_remote", run, "wait", index=-1)
    assert (found["dataset"], found["version"], found["rows"]) == (s3_folder.url(), 1, 1)
    log = local.log_of("pieces_sensor_remote", run, "wait", index=-1)
    assert "the secret is ***" in log and "no dataset at" in log and "test-secret" not in log
    files = [
        path for path in (local.home / "logs").rglob("*") if path.is_file() and "pieces_sensor_remote" in str(path)
    ]
    assert files and not any("test-secret" in path.read_text(errors="replace") for path in files)


def test_warnings_wait_for_somebody(local: Seen) -> None:
    suite = json.loads(suite_text("careful", [("expect_table_row_count_to_be_between", {"min_value": 1000})]))
    suite["expectations"][0]["severity"] = "warning"
    (local.project / "suites/careful.json").write_text(json.dumps(suite))
    day = str(TODAY - timedelta(days=1))
    run = local.trigger(
        "gristmill_validate", dataset=f"shards/daily/{day}", suite="suites/careful.json", approve_warnings=True
    )
    wait_for(
        lambda: (
            local.tasks("gristmill_validate", run).get("each.approve[0]", {}).get("state")
            in ("awaiting_input", "deferred")
        ),
        300,
        every=2,
    )
    path = f"dags/gristmill_validate/dagRuns/{quote(run)}/taskInstances/each.approve/0/hitlDetails"
    local.request("PATCH", path, {"chosen_options": ["Approve"], "params_input": {}})
    assert local.finished("gristmill_validate", run, 120) == "success"
    assert local.xcom("gristmill_validate", run, "each.accept")["verdict"] == "warned"
