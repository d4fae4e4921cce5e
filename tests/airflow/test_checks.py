"""Drift against the last good version and leakage between splits, as the command that the DAG runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import gristmill
from gristmill.airflow import accepted
from gristmill.airflow.answers import answer
from gristmill.airflow.data_checks import drift, last_good, leakage
from gristmill.airflow.example import suite_text
from gristmill.airflow.reports import report_path
from gristmill.airflow.stream_check import check
from gristmill.errors import GristmillError
from gristmill.validators.gate import judge


def publish(path: Path, rows: list[dict[str, Any]], split: dict[str, Any] | None = None) -> gristmill.Dataset:
    model: dict[str, Any] = {
        "name": "t",
        "sources": [{"kind": "frame", "name": "rows"}],
        "id": "id",
        "output": {"path": str(path)},
    }
    if split:
        model["split"] = split
    return gristmill.run(model, inputs={"rows": pa.Table.from_pylist(rows)}, progress="quiet").dataset


def rows(count: int, shift: float = 0.0) -> list[dict[str, Any]]:
    return [
        {"id": str(number), "value": number / count + shift, "text": f"row {number} of a set that has {count} of them"}
        for number in range(count)
    ]


def command(*arguments: str) -> tuple[int, Any, str]:
    done = subprocess.run(
        [sys.executable, "-m", "gristmill.airflow.data_checks", *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stderr


def test_drift_is_against_the_last_version_that_passed(tmp_path: Path) -> None:
    suite = tmp_path / "suite.json"
    suite.write_text(
        suite_text("s", [("expect_column_values_to_be_between", {"column": "value", "min_value": 0, "max_value": 2})])
    )
    first = publish(tmp_path / "d", rows(500))
    assert drift(f"{first.path}@1") == {"check": "drift", "verdict": "unverified", "against": None, "found": []}
    judge(first, str(suite))
    bad = publish(tmp_path / "d", rows(500, shift=5.0))
    judge(bad, str(suite))  # fails: it is not what later ones are compared with
    third = publish(tmp_path / "d", rows(500, shift=0.001))
    before = last_good(third)
    assert before is not None and before.version == 1
    assert drift(f"{third.path}@3")["verdict"] == "passed"
    shifted = publish(tmp_path / "d", rows(500, shift=0.9))
    status, found, _ = command("drift", f"{shifted.path}@4")
    assert status == 1 and found["against"] == 1
    judge(shifted, str(suite))  # its suite has nothing against it
    again = publish(tmp_path / "d", rows(500, shift=0.901))
    assert drift(f"{again.path}@5")["verdict"] == "passed", "against version 4: nobody has accepted any"
    accepted.accept(tmp_path, {"dataset": first.path, "fingerprint": first.fingerprint})
    status, found, _ = command("drift", f"{again.path}@5", str(tmp_path))
    assert status == 1 and found["against"] == 1 and any(line.startswith("column 'value'") for line in found["found"])


def test_leakage_between_splits(tmp_path: Path) -> None:
    same = [
        {
            "id": str(number),
            "text": f"the same few words, text {number % 40} of forty that are repeated again and again here",
        }
        for number in range(400)
    ]
    leaking = publish(tmp_path / "leaking", same, {"train": 0.5, "test": 0.5, "similarity": None})
    status, found, _ = command("leakage", f"{leaking.path}@1")
    assert status == 0 and found["found"] == [], "ids differ, so no row is the same"
    told = publish(tmp_path / "told", same, {"train": 0.5, "test": 0.5, "similarity": None, "column": "text"})
    status, found, _ = command("leakage", f"{told.path}@1")
    assert status == 1 and "nearly the same 'text'" in found["found"][0]
    assert leakage(publish(tmp_path / "whole", rows(10)).path)["verdict"] == "unverified"


def test_errors_are_those_of_gristmill(tmp_path: Path) -> None:
    status, found, said = command("drift", str(tmp_path / "absent"))
    assert (status, found) == (2, None) and said.startswith("gristmill: ") and "Traceback" not in said


def test_an_error_that_nobody_foresaw_is_no_finding(capsys: pytest.CaptureFixture[str]) -> None:
    """Python's own status for it is 1, which says that something was found."""

    def fail(data: str) -> dict[str, Any]:
        raise ZeroDivisionError(data)

    with pytest.raises(SystemExit) as caught:
        answer(fail, "d")
    said = capsys.readouterr()
    assert caught.value.code == 3 and said.out == "" and "Traceback" in said.err
    assert said.err.splitlines()[-1] == "gristmill: ZeroDivisionError: d"


def test_the_stream_check(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'gristmill[torch]'")
    path = publish(tmp_path / "d", rows(100)).path
    assert check(path, 2, {"global_batch_size": 8, "columns": ["value"]}) == {
        "data": path,
        "steps": 13,
        "rows_read": 16,
        "columns": {"value": "torch.float64"},
    }
    with pytest.raises(GristmillError, match="vlaue|value"):
        check(path, 2, {"columns": ["vlaue"]})


def test_only_reports_of_datasets_are_shown(tmp_path: Path) -> None:
    run = gristmill.run(
        {"name": "t", "sources": [{"kind": "frame", "name": "rows"}], "output": {"path": str(tmp_path / "d")}},
        inputs={"rows": pa.table({"a": [1]})},
        progress="quiet",
    )
    assert report_path(run.report_path) == Path(run.report_path).resolve()
    outside = tmp_path / "secret.html"
    outside.write_text("x")
    link = tmp_path / "d/reports/link.html"
    link.symlink_to(outside)
    for path in (
        "/etc/passwd",
        str(outside),
        str(link),
        f"{tmp_path}/d/reports/../../secret.html",
        str(tmp_path / "d/reports/absent.html"),
        run.report_path.replace(".html", ".json"),
    ):
        assert report_path(path) is None


def test_the_report_page_asks_for_a_login(tmp_path: Path) -> None:
    """The page alone; tests of the scheduler ask the real server with a real token."""
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi.testclient import TestClient

    from gristmill.airflow.reports import GristmillPlugin

    report = tmp_path / "d/reports/x/validation.html"
    report.parent.mkdir(parents=True)
    (tmp_path / "d/manifests").mkdir()
    report.write_text("<p>rows read</p>")
    (found,) = GristmillPlugin().fastapi_apps
    assert found["url_prefix"] == "/gristmill"
    client = TestClient(found["app"])
    assert client.get("/report", params={"path": str(report)}).status_code == 401
    found["app"].dependency_overrides[get_user] = lambda: object()
    answer = client.get("/report", params={"path": str(report)})
    assert (answer.status_code, answer.text) == (200, "<p>rows read</p>") and answer.headers[
        "content-security-policy"
    ].startswith("sandbox;")
    assert client.get("/report", params={"path": "/etc/passwd"}).status_code == 404


def test_airflow_finds_the_page() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "plugins", "-o", "json"], capture_output=True, text=True, check=False
    )
    assert "EntryPoint(name='gristmill'" in done.stdout, done.stderr[-1000:]
