"""What is said when a task fails, and who gets it."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException

from gristmill.airflow import (
    GristmillPlanOperator,
    GristmillRunOperator,
    GristmillValidateOperator,
    alert,
    failure_text,
)
from gristmill.airflow.alerts import CONNECTION
from gristmill.airflow.checks import GristmillCheckOperator, GristmillVerifyOperator
from gristmill.airflow.training import GristmillStreamCheckOperator


def context(task: Any, error: BaseException | None, map_index: int = -1) -> dict[str, Any]:
    ti = SimpleNamespace(
        dag_id="gristmill_etl",
        task_id=task.task_id,
        run_id="manual__1",
        map_index=map_index,
        try_number=2,
        log_url="http://airflow/log",
    )
    return {"ti": ti, "task": task, "exception": error}


def test_the_text_says_what_where_and_what_next() -> None:
    task = GristmillValidateOperator(
        task_id="each.validate", data="/data/docs@1b2c3d4e5f607182", suite="s.json", cwd="/project"
    )
    task.ran = "gristmill validate /data/docs@1b2c3d4e5f607182 --suite s.json"
    text = failure_text(context(task, AirflowFailException("3 rows are null"), map_index=4))
    assert text.splitlines() == [
        "gristmill_etl.each.validate[4] failed in run manual__1, try 2",
        "  AirflowFailException: 3 rows are null",
        "  it ran: gristmill validate /data/docs@1b2c3d4e5f607182 --suite s.json (in /project)",
        "  next: gristmill show /data/docs@1b2c3d4e5f607182; mend the source and clear the task that made it, or mend the suite and clear each.validate, or: gristmill reject /data/docs@1b2c3d4e5f607182",
        "  log: http://airflow/log",
    ]


def test_the_text_of_other_tasks() -> None:
    plan = GristmillPlanOperator(task_id="plan", pipeline="docs.yaml")
    assert "next: gristmill plan docs.yaml" in failure_text(context(plan, None))
    other = SimpleNamespace(task_id="pipelines")
    text = failure_text(context(other, KeyError("x")))
    assert "next: clear pipelines in Airflow's UI" in text and "it ran" not in text
    verify = GristmillVerifyOperator(task_id="v", dataset="d")
    assert "next: gristmill verify d; " in failure_text(context(verify, None))


def test_operators_of_others_may_have_names_like_ours() -> None:
    other = type("TriggerDagRunValidateOperator", (), {"task_id": "t"})()
    assert "next: clear t in" in failure_text(context(other, None))


def test_a_version_is_rolled_back_not_rejected() -> None:
    suite = GristmillValidateOperator(task_id="t", data="/d@12", suite="s")
    drift = GristmillCheckOperator(task_id="t", check="drift", data="/d@12")
    for task, mend in ((suite, ", or mend the suite and clear t"), (drift, "")):
        said = f"next: gristmill show /d@12; mend the source and run its pipeline again{mend}, or: gristmill rollback /d VERSION"
        assert said in failure_text(context(task, None))
    files = GristmillValidateOperator(task_id="t", data="a.csv", suite="s")
    assert "show" not in failure_text(context(files, None))


def test_the_tasks_to_clear_are_named() -> None:
    with DAG("d"):
        run = GristmillRunOperator(task_id="run", pipeline="docs.yaml", candidate=True)
        validate = GristmillValidateOperator(task_id="validate", data="/d@1b2c3d4e5f607182", suite="s")
        pin = EmptyOperator(task_id="pin")
        stream = GristmillStreamCheckOperator(task_id="stream", mix="m.json")
        [run, pin] >> validate
        pin >> stream
    assert "mend the source and clear run, or mend the suite and clear validate" in failure_text(
        context(validate, None)
    )
    assert "next: mend the mix, or the datasets, and clear pin" in failure_text(context(stream, None))
    plan = GristmillPlanOperator(task_id="plan", pipeline="docs.yaml", settings=["output.path=x y"])
    assert "next: gristmill plan docs.yaml --set 'output.path=x y'; mend what it says and clear plan" in failure_text(
        context(plan, None)
    )


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[Any]]]:
    """A web hook on loopback: its address and what it got."""
    got: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_text_goes_to_the_connection(webhook: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    address, got = webhook
    plan = GristmillPlanOperator(task_id="plan", pipeline="docs.yaml")
    alert(context(plan, None))  # no such Connection: the log has it
    assert got == []
    host, _, port = address.partition(":")
    made = {"conn_type": "http", "host": host, "port": int(port), "schema": "http", "extra": {"path": "/hook"}}
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONNECTION.upper()}", json.dumps(made))
    alert(context(plan, ValueError("no pipeline file")))
    assert len(got) == 1 and "ValueError: no pipeline file" in got[0]["text"]


def test_an_alert_that_can_not_be_sent_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for host in ("http://127.0.0.1:9/t0ken", "nonsense://127.0.0.1/t0ken", "http://127.0.0.1:x/t0ken"):
        caplog.clear()
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONNECTION.upper()}", json.dumps({"conn_type": "http", "host": host}))
        alert(context(GristmillPlanOperator(task_id="plan", pipeline="docs.yaml"), None))
        assert f"could not be sent to Connection '{CONNECTION}'" in caplog.text and "t0ken" not in caplog.text
