"""Datasets in S3 (moto's HTTP server on loopback) with the credentials of a Connection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gristmill.airflow import (
    GristmillOperator,
    GristmillPublishOperator,
    GristmillRunOperator,
    GristmillVersionSensor,
    operators,
)
from gristmill.storage.folder import Folder

from .test_operators import execute


@pytest.fixture
def output(s3_endpoint: str, s3_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> str:
    """A dataset to be made in an empty bucket that is reached by the Connection `lake` alone."""
    extra = {"endpoint_url": s3_endpoint, "region_name": "us-east-1"}
    monkeypatch.setenv(
        "AIRFLOW_CONN_LAKE", json.dumps({"conn_type": "aws", "login": "test", "password": "test", "extra": extra})
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    return s3_folder.url()


@pytest.mark.slow
def test_run_publish_and_look(output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps({"text": f"note {number}"}) + "\n" for number in range(9)))
    (tmp_path / "p.yaml").write_text(
        "name: p\nsources: [{kind: jsonl, path: raw.jsonl, name: raw}]\noutput: {path: '%s'}\n" % output
    )
    env = {"XDG_CACHE_HOME": str(tmp_path / "scratch")}
    common: dict[str, Any] = {"task_id": "t", "cwd": str(tmp_path), "conn_id": "lake", "env": env}
    found = execute(GristmillRunOperator(pipeline="p.yaml", candidate=True, **common))
    assert found["target"].startswith(f"{output}@") and found["report"].startswith("s3://")
    assert list((tmp_path / "scratch/gristmill").iterdir()), "work files are on this disk"
    events: list[Any] = []
    monkeypatch.setattr(operators, "emit", lambda *arguments: events.append(arguments))
    published = execute(GristmillPublishOperator(target=found["target"], **common))
    assert (published["dataset"], published["version"], published["rows"]) == (output, 1, 9) and events[0][2] == output
    assert execute(GristmillOperator(arguments=["show", output], **common))["fingerprint"] == found["fingerprint"]
    sensor = GristmillVersionSensor(task_id="w", dataset=output, after=0, conn_id="lake")
    seen = sensor._look()
    assert seen is not None and seen["version"] == 1
