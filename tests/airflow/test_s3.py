"""Datasets in S3 (moto's HTTP server on loopback) with the credentials of a Connection."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
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
from gristmill.storage.folder import open_folder

from .test_operators import execute

OUTPUT = "s3://lake/notes"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server with an empty bucket, and the Connection `lake` to it."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'gristmill[s3]'")
    server_module = pytest.importorskip("moto.server", reason="moto's server is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    options = {"endpoint_url": url, "key": "test", "secret": "test"}
    open_folder(OUTPUT, options)._client.call_s3("create_bucket", Bucket="lake")
    extra = {"endpoint_url": url, "region_name": "us-east-1"}
    monkeypatch.setenv(
        "AIRFLOW_CONN_LAKE", json.dumps({"conn_type": "aws", "login": "test", "password": "test", "extra": extra})
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    yield url
    server.stop()


def test_run_publish_and_look(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps({"text": f"note {number}"}) + "\n" for number in range(9)))
    (tmp_path / "p.yaml").write_text(
        "name: p\nsources: [{kind: jsonl, path: raw.jsonl, name: raw}]\noutput: {path: '%s'}\n" % OUTPUT
    )
    env = {"XDG_CACHE_HOME": str(tmp_path / "scratch")}
    common: dict[str, Any] = {"task_id": "t", "cwd": str(tmp_path), "conn_id": "lake", "env": env}
    found = execute(GristmillRunOperator(pipeline="p.yaml", candidate=True, **common))
    assert found["target"].startswith(f"{OUTPUT}@") and found["report"].startswith("s3://")
    assert list((tmp_path / "scratch/gristmill").iterdir()), "work files are on this disk"
    events: list[Any] = []
    monkeypatch.setattr(operators, "emit", lambda *arguments: events.append(arguments))
    published = execute(GristmillPublishOperator(target=found["target"], **common))
    assert (published["dataset"], published["version"], published["rows"]) == (OUTPUT, 1, 9) and events[0][2] == OUTPUT
    assert execute(GristmillOperator(arguments=["show", OUTPUT], **common))["fingerprint"] == found["fingerprint"]
    sensor = GristmillVersionSensor(task_id="w", dataset=OUTPUT, after=0, conn_id="lake")
    seen = sensor._look()
    assert seen is not None and seen["version"] == 1
