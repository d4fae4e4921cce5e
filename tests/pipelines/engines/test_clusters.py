"""Runs on clusters that are there already, started by the commands of docs/clusters.md: one of Dask, one of Spark."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.errors import RunError, UsageError
from tests.pipelines.conftest import STEPS, corpus, write_jsonl

SPLIT = {"train": 0.8, "test": 0.2, "similarity": 0.5}
BIN = Path(sys.executable).parent


class Started:
    """Processes with a log each, ended with all their children."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._running = folder, []

    def start(self, *command: str) -> Path:
        log = self._folder / f"{len(self._running)}.log"
        with log.open("wb") as sink:
            self._running.append(
                subprocess.Popen(
                    command, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True, cwd=self._folder
                )
            )
        return log

    def said(self, log: Path, pattern: str, seconds: float = 90) -> str:
        """The first group of the pattern in the log, as soon as it is there."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := re.search(pattern, log.read_text(errors="replace")):
                return found[1]
            time.sleep(0.1)
        raise AssertionError(
            f"{pattern!r} is not in the log after {seconds} s:\n{log.read_text(errors='replace')[-2000:]}"
        )

    def stop(self) -> None:
        for process in reversed(self._running):
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait(10)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    folder = tmp_path / "logs"
    folder.mkdir()
    processes = Started(folder)
    yield processes
    processes.stop()


def dask_cluster(started: Started, workers: int = 2) -> str:
    log = started.start(str(BIN / "dask"), "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    address = started.said(log, r"Scheduler at:\s+(tcp://127\.0\.0\.1:\d+)")
    for _ in range(workers):
        worker = started.start(
            str(BIN / "dask"),
            "worker",
            address,
            "--nthreads",
            "1",
            "--no-dashboard",
            "--local-directory",
            str(log.parent),
        )
        started.said(worker, r"(Registered to)")
    return address


def test_a_dask_cluster_by_its_address(started, tmp_path, run):
    write_jsonl(tmp_path / "in", corpus(20), files=5)
    one = run(tmp_path / "in", split=SPLIT, out="one", in_process=True)
    address = dask_cluster(started)
    cluster = run(tmp_path / "in", split=SPLIT, out="cluster", address=address)
    assert (cluster.fingerprint, cluster.layout, cluster.counts) == (one.fingerprint, one.layout, one.counts)
    model = {
        "name": "t",
        "sources": [{"kind": "jsonl", "path": str(tmp_path / "in"), "name": "web"}],
        "steps": STEPS,
        "split": SPLIT,
        "output": {"path": str(tmp_path / "cli")},
    }
    (tmp_path / "p.yaml").write_text(json.dumps(model))
    command = [str(BIN / "gristmill"), "run", str(tmp_path / "p.yaml"), "--address", address, "--json"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(said.stdout)["fingerprint"] == one.fingerprint


def test_a_running_client_is_used_and_stays_open(tmp_path, run):
    from distributed import Client, LocalCluster

    write_jsonl(tmp_path / "in", corpus(10), files=3)
    one = run(tmp_path / "in", out="one", in_process=True)
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        threads = run(tmp_path / "in", out="threads", engine=client)
        assert client.submit(sum, [1, 2]).result() == 3
    assert threads.fingerprint == one.fingerprint and threads.layout == one.layout


def test_a_scheduler_that_is_not_there_is_said(tmp_path, run, monkeypatch):
    monkeypatch.setattr("gristmill.pipelines.engines.dask.CONNECT", "2s")
    write_jsonl(tmp_path / "in", corpus(3), files=1)
    with pytest.raises(RunError, match=r"can't reach the Dask scheduler at tcp://127.0.0.1:9: .*--address"):
        run(tmp_path / "in", address="tcp://127.0.0.1:9")


@pytest.mark.parametrize(
    ("address", "text"), [("nowhere", "missing port number"), ("spam://host:8786", "unknown address scheme 'spam'")]
)
def test_an_address_that_cannot_be_one_is_refused_before_any_work(tmp_path, run, address, text):
    write_jsonl(tmp_path / "in", corpus(3), files=1)
    with pytest.raises(UsageError, match=rf"--address {address}: {text}.*such as tcp://host:8786"):
        run(tmp_path / "in", address=address)


@pytest.mark.slow
def test_a_spark_standalone_cluster_by_its_address(java, started, tmp_path, run, monkeypatch):
    write_jsonl(tmp_path / "in", corpus(20), files=5)
    one = run(tmp_path / "in", split=SPLIT, out="one", in_process=True)
    import pyspark

    monkeypatch.setenv("SPARK_HOME", str(Path(pyspark.__file__).parent))
    spark_class = str(Path(pyspark.__file__).parent / "bin" / "spark-class")
    log = started.start(
        spark_class, "org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0"
    )
    address = started.said(log, r"Starting Spark master at (spark://127\.0\.0\.1:\d+)")
    for _ in range(2):
        worker = started.start(
            spark_class,
            "org.apache.spark.deploy.worker.Worker",
            address,
            "--host",
            "127.0.0.1",
            "-c",
            "1",
            "-m",
            "1g",
            "--webui-port",
            "0",
            "-d",
            str(tmp_path / "work"),
        )
        started.said(worker, r"(Successfully registered with master)")
    conf = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1", "spark.executor.memory": "1g"}
    cluster = run(tmp_path / "in", split=SPLIT, out="cluster", engine="spark", address=address, conf=conf)
    assert (cluster.fingerprint, cluster.layout, cluster.counts) == (one.fingerprint, one.layout, one.counts)
    assert cluster.dataset.manifest.engine == "spark"
