"""Runs on clusters that are there already, started by the commands of docs/clusters.md: one of Dask, one of Spark."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gristmill
from gristmill.errors import InputError, RunError, UsageError
from gristmill.pipelines.engines.dask import DaskEngine
from gristmill.pipelines.explain import explain_row
from gristmill.pipelines.outlook import plan
from gristmill.pipelines.run import RunResult
from tests.pipelines.conftest import STEPS, corpus, write_jsonl

SPLIT = {"train": 0.8, "test": 0.2, "similarity": 0.5}
BIN = Path(sys.executable).parent


class Started:
    """Processes with a log each, ended with all their children."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._running = folder, []

    def start(self, *command: str) -> Path:
        log = self.folder / f"{len(self._running)}.log"
        with log.open("wb") as sink:
            self._running.append(
                subprocess.Popen(
                    command, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True, cwd=self.folder
                )
            )
        return log

    def said(self, log: Path, pattern: str, seconds: float = 300) -> str:
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


def dask_cluster(started: Started, workers: int = 2, within: list[str] | None = None) -> str:
    """The address of a scheduler with workers, each started as a command of `within`."""
    log = started.start(str(BIN / "dask"), "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    address = started.said(log, r"Scheduler at:\s+(tcp://127\.0\.0\.1:\d+)")
    for _ in range(workers):
        started.said(start_dask_worker(started, address, within), r"(Registered to)")
    return address


def start_dask_worker(started: Started, address: str, within: list[str] | None = None) -> Path:
    """The log of a new worker."""
    options = ["--nthreads", "1", "--no-dashboard", "--local-directory", str(started.folder)]
    return started.start(*(within or []), str(BIN / "dask"), "worker", address, *options)


@pytest.fixture
def hidden(tmp_path: Path) -> list[str]:
    """What a command is started with so that it sees an empty folder where this test has its files, as on another machine."""
    within = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        f'mount -t tmpfs tmpfs {tmp_path} && mkdir -p {tmp_path}/logs && exec "$@"',
        "sh",
    ]
    said = subprocess.run([*within, "true"], capture_output=True, text=True)
    if said.returncode:
        pytest.skip(
            f"WORKERS WITHOUT A COMMON FOLDER ARE NOT TESTED: no mount namespace can be had here ({said.stderr.strip()})"
        )
    return within


@pytest.fixture
def bucket(s3_folder, s3_endpoint, tmp_path, monkeypatch) -> str:
    """The URL of an empty folder in S3, reached by environment variables that workers inherit."""
    from gristmill.pipelines import fetched

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "copies"))
    fetched.cache_of.cache_clear()
    yield s3_folder.base
    fetched.cache_of.cache_clear()


@pytest.mark.slow
def test_dask_workers_that_share_only_the_store(started, hidden, bucket, s3_folder, tmp_path, run, monkeypatch):
    """Sources, output and work files are in S3; workers see nothing of the driver's files."""
    write_jsonl(tmp_path / "in", corpus(20), files=5)
    for file in (tmp_path / "in").iterdir():
        s3_folder.write_atomic(f"in/{file.name}", file.read_bytes())
    one = run(tmp_path / "in", split=SPLIT, out="one", in_process=True)
    address = dask_cluster(started, within=hidden)
    cluster = run(f"{bucket}/in", split=SPLIT, output={"path": f"{bucket}/out"}, address=address)
    assert (cluster.fingerprint, cluster.layout, cluster.counts) == (one.fingerprint, one.layout, one.counts)
    assert cluster.dataset.verify() == [] and s3_folder.list("out/_work/items")
    again = run(f"{bucket}/in", split=SPLIT, output={"path": f"{bucket}/out"}, address=address)
    assert again.reused_items > 0 and not again.published
    with pytest.raises(RunError, match=r"folder for work files '.*' is not there on .*--scratch"):
        run(f"{bucket}/in", split=SPLIT, out="local", address=address)
    host = socket.gethostname()
    with pytest.raises(RunError, match=rf"output folder '{tmp_path}/lost' is not there on {host}"):
        run(f"{bucket}/in", out="lost", address=address, scratch=f"{bucket}/scratch")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"input '{tmp_path}/in/part-00.jsonl.gz' is not there on {host}"):
        run("in", output={"path": f"{bucket}/other"}, address=address)


def test_relative_paths_start_where_the_run_was_started(started, tmp_path, monkeypatch):
    """Workers run in another folder; names in keys and in the ledger stay relative, so that a folder that moves is done already."""
    project = tmp_path / "project"
    write_jsonl(project / "in", corpus(10), files=3)
    (project / "own_steps.py").write_text("def same(table):\n    return table\n")
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", [*sys.path])
    steps = [*STEPS, {"step": "python", "function": "own_steps:same"}]

    def go(out: str, **options: Any) -> RunResult:
        model = {
            "name": "t",
            "sources": [{"kind": "jsonl", "path": "in/*.gz"}],
            "steps": steps,
            "output": {"path": out},
        }
        return gristmill.run(model, progress="quiet", **options)

    one = go("one", in_process=True)
    address = dask_cluster(started)
    cluster = go("cluster", address=address)
    assert (cluster.fingerprint, cluster.layout, cluster.counts) == (one.fingerprint, one.layout, one.counts)
    edited = "def same(table):\n    return table.slice(0, 0)\n"
    (project / "own_steps.py").write_text(edited)
    assert go("edited", address=address).counts["kept"] == 0, "workers had loaded the module before it was edited"
    (project / "own_steps.py").write_text("def same(table):\n    return table\n")
    uid = cluster.dataset.to_table()["_uid"][0].as_py()
    assert explain_row("cluster", uid)["origins"][0]["position"].startswith("in/part-")
    project.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    found = plan({"name": "t", "sources": [{"kind": "jsonl", "path": "in/*.gz"}], "output": {"path": "cluster"}})
    assert {item["action"] for item in found["items"]} == {"reuse"}


def test_a_scheduler_that_is_lost_ends_the_run_and_the_next_one_goes_on(started, tmp_path, run):
    import threading

    import dask
    import distributed  # noqa: F401  its settings must be there before one is changed for a while

    write_jsonl(tmp_path / "in", corpus(60), files=30)
    address = dask_cluster(started, 1)

    def kill() -> None:
        while len(list((tmp_path / "cluster").glob("_work/items/??/[!.]*/summary.json"))) < 3:
            time.sleep(0.01)
        os.killpg(started._running[0].pid, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "3s"}),
        pytest.raises(RunError, match="lost the Dask scheduler at tcp"),
    ):
        run(tmp_path / "in", split=SPLIT, out="cluster", address=address)
    one = run(tmp_path / "in", split=SPLIT, out="one", in_process=True)
    found = run(tmp_path / "in", split=SPLIT, out="cluster", in_process=True)
    assert found.reused_items > 0 and (found.fingerprint, found.layout) == (one.fingerprint, one.layout)


@pytest.mark.slow
def test_workers_that_come_late_are_waited_for_and_those_that_never_come_are_given_up(started, tmp_path, run):
    from distributed import Client

    address = dask_cluster(started, 0)
    write_jsonl(tmp_path / "in", corpus(3), files=1)
    with pytest.raises(
        RunError,
        match=rf"waited \d s for workers of the Dask scheduler at {address} \(0 there\).*`dask worker {address}",
    ):
        run(tmp_path / "in", address=address, wait=1.0)
    with Client(address, set_as_default=False) as client:
        with pytest.raises(RunError, match="waited . s for workers"):
            run(tmp_path / "in", engine=client, wait=1.0)
        left = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
        assert left == 0, "nothing of the run is left to do on the user's cluster"
    said: list[str] = []

    def note(text: str) -> None:
        if not said:
            start_dask_worker(started, address)
        said.append(text)

    with DaskEngine(2, address) as engine:
        engine.note = note
        assert engine.map(dict, [[("a", 1)], [("a", 2)]], lambda _: None) == [{"a": 1}, {"a": 2}]
    assert said[0].startswith(f"waiting for workers of the Dask scheduler at {address} (0 there), for 3 s")


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


def test_a_scheduler_that_is_not_there_is_said_after_the_time_that_was_given(tmp_path, run):
    write_jsonl(tmp_path / "in", corpus(3), files=1)
    with pytest.raises(RunError, match=r"can't reach the Dask scheduler at tcp://127.0.0.1:9: .*after 2 s.*--address"):
        run(tmp_path / "in", address="tcp://127.0.0.1:9", wait=2)


@pytest.mark.parametrize("address", ["spark://127.0.0.1:7077", "local[2]", "yarn"])
def test_a_master_of_spark_given_to_dask_is_said(tmp_path, run, address):
    write_jsonl(tmp_path / "in", corpus(3), files=1)
    with pytest.raises(UsageError, match="is a Spark master: add --engine spark"):
        run(tmp_path / "in", address=address)


@pytest.mark.parametrize(
    ("address", "text"), [("nowhere", "missing port number"), ("spam://host:8786", "unknown address scheme 'spam'")]
)
def test_an_address_that_cannot_be_one_is_refused_before_any_work(tmp_path, run, address, text):
    write_jsonl(tmp_path / "in", corpus(3), files=1)
    with pytest.raises(UsageError, match=rf"--address {address}: {text}.*such as tcp://host:8786"):
        run(tmp_path / "in", address=address)


@pytest.mark.slow
def test_spark_executors_with_their_work_in_the_store(java, bucket, s3_folder, tmp_path, run):
    """Executors keep copies in a folder of their own, which this process doesn't look into."""
    write_jsonl(tmp_path / "in", corpus(20), files=5)
    for file in (tmp_path / "in").iterdir():
        s3_folder.write_atomic(f"in/{file.name}", file.read_bytes())
    one = run(tmp_path / "in", split=SPLIT, out="one", in_process=True)
    conf = {
        "spark.executorEnv.GRISTMILL_CACHE": str(tmp_path / "executors"), "spark.executorEnv.PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1",
    }  # fmt: skip
    cluster = run(
        f"{bucket}/in",
        split=SPLIT,
        output={"path": f"{bucket}/out"},
        engine="spark",
        address="local-cluster[2,1,1024]",
        conf=conf,
        in_process=False,
    )
    assert (cluster.fingerprint, cluster.layout, cluster.counts) == (one.fingerprint, one.layout, one.counts)
    assert list((tmp_path / "executors").rglob("rows-*")) and s3_folder.list("out/_work/items")


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
    conf = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1", "spark.executor.memory": "1g"}
    with pytest.raises(RunError, match=rf"waited \d s for executors of {address} \(0 of 2 cores\).*1g of free memory"):
        run(
            tmp_path / "in", split=SPLIT, out="cluster", engine="spark", address=address, conf=conf, workers=2, wait=2.0
        )
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
    cluster = run(tmp_path / "in", split=SPLIT, out="cluster", engine="spark", address=address, conf=conf)
    assert (cluster.fingerprint, cluster.layout, cluster.counts) == (one.fingerprint, one.layout, one.counts)
    assert cluster.dataset.manifest.engine == "spark"
