"""Faults in real processes, in each phase of a run: afterwards the same version, nothing half-written, nothing left running."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gristmill.storage.dataset import open_dataset
from gristmill.storage.parquet import read_table
from tests.pipelines.conftest import STEPS, corpus, write_jsonl
from tests.pipelines.moments import finished, leftovers

from .faults import COOKIE, counted, running

ROOT = Path(__file__).resolve().parents[3]
HANG = 900
STEPS_TWICE = [*STEPS, {"step": "filter", "where": "score < 10"}]  # a stage after the wide steps
SPLIT = {"train": 0.7, "test": 0.3, "similarity": 0.5}
DASK = {"workers": 2, "in_process": False}
SPARK = {
    "engine": "spark", "address": "local-cluster[2,1,1024]", "in_process": False,
    "conf": {"spark.executorEnv.PYTHONPATH": str(ROOT), "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"},
}  # fmt: skip


def pipeline(folder: Path) -> dict[str, Any]:
    return {
        "name": "faults", "sources": [{"kind": "jsonl", "path": str(folder / "raw"), "name": "web"}], "id": "id", "steps": STEPS_TWICE, "split": SPLIT,
        "output": {"path": str(folder / "out"), "shard_bytes": "12KB", "row_group_bytes": "4KB"},
    }  # fmt: skip


class Runs:
    """Runs in processes of their own, each with a cookie in its environment that all its children have too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cookie = uuid.uuid4().hex
        (folder / "marks").mkdir(exist_ok=True)

    def start(self, **asked: Any) -> subprocess.Popen[str]:
        asked = {"model": pipeline(self.folder), "folder": str(self.folder / "marks"), **asked}
        environment = {**os.environ, COOKIE: self.cookie, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.pipelines.engines.faulty_run", json.dumps(asked)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )

    def run(self, **asked: Any) -> dict[str, Any] | None:
        """What it came to; None where it was killed. Nothing of it runs any more."""
        process = self.start(**asked)
        out, self.said = process.communicate(timeout=HANG)
        assert process.returncode in (0, -9), self.said[-4000:]
        self.check_nothing_runs()
        return json.loads(out) if process.returncode == 0 else None

    def check_nothing_runs(self) -> None:
        last = time.monotonic() + 60
        while (left := running(self.cookie)) and time.monotonic() < last:
            time.sleep(0.1)
        assert not left, [process.cmdline() for process in left]

    def stop(self) -> None:
        for process in running(self.cookie):
            process.kill()


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, int], dict[str, list[Any]]]:
    """(folder of the input, what an undisturbed run came to, how many tasks of each phase it had, its ledger)."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_jsonl(folder / "raw", corpus(25), files=4)
    with open(folder / "raw" / "part-04.jsonl", "w") as out:
        out.write("{broken\n")
    found = Runs(folder).run(options={"in_process": True})
    assert found is not None and found["published"], found
    phases = counted(folder / "marks")
    assert {"Ingest", "Segment", "Shard", "Ledger"} < set(phases) and len(phases) >= 8
    return folder, found, phases, ledger(folder / "out")


@pytest.fixture
def runs(raw: Any, tmp_path: Path) -> Iterator[Runs]:
    shutil.copytree(raw[0] / "raw", tmp_path / "raw")
    made = Runs(tmp_path)
    yield made
    made.stop()


def ledger(out: Path) -> dict[str, list[Any]]:
    """The ledger's files by name, positions by the name of the input file alone."""
    dataset = open_dataset(out)
    found = {}
    for name, *_ in dataset.folder.list(dataset.manifest.ledger):
        rows = read_table(dataset.folder, name).to_pylist()
        found[name.rsplit("/", 1)[1]] = [{**row, "position": str(row["position"]).rsplit("/", 1)[-1]} for row in rows]
    return found


def check_same(runs: Runs, raw: Any, found: dict[str, Any] | None) -> None:
    """The same version as undisturbed, whole, with the same ledger, and nothing else in the folder."""
    _, reference, _, entries = raw
    assert found is not None and "error" not in found, found
    names = ("fingerprint", "layout", "counts", "splits", "version")
    assert {name: found[name] for name in names} == {name: reference[name] for name in names}
    dataset = open_dataset(runs.folder / "out")
    assert dataset.verify() == [] and ledger(runs.folder / "out") == entries
    assert leftovers(runs.folder / "out") == []


def check_visible(runs: Runs) -> None:
    """What is visible after a fault is a whole version, or none."""
    if (runs.folder / "out" / "manifests" / "v00000001.json").exists():
        assert open_dataset(runs.folder / "out").verify() == []


def middle(phases: dict[str, int]) -> dict[str, int]:
    """For each phase a task in the middle of it."""
    return {phase: count // 2 + 1 for phase, count in phases.items()}


def in_order(folder: Path) -> list[str]:
    """The phases in the order in which their first tasks came."""
    first: dict[str, float] = {}
    for path in folder.iterdir():
        phase, _, number = path.name.rpartition("-")
        if number == "1":
            first[phase] = path.stat().st_mtime
    return sorted(first, key=lambda phase: first[phase])


def test_a_worker_is_killed_and_the_version_is_the_same(raw, runs):
    """The quick representative of those below."""
    found = runs.run(kind="worker", at={"Segment": 3}, options=DASK)
    assert counted(runs.folder / "marks")["Segment"] > raw[2]["Segment"]
    check_same(runs, raw, found)


@pytest.mark.slow
def test_a_dask_worker_is_killed_in_each_phase(raw, runs):
    found = runs.run(kind="worker", at=middle(raw[2]), options=DASK)
    came = counted(runs.folder / "marks")
    assert all(came[phase] > count for phase, count in raw[2].items()), "each phase was struck"
    check_same(runs, raw, found)


@pytest.mark.slow
def test_a_spark_executor_is_killed_in_each_phase(java, raw, runs):
    found = runs.run(kind="executor", at=middle(raw[2]), options=SPARK)
    came = counted(runs.folder / "marks")
    assert all(came[phase] > count for phase, count in raw[2].items()), "each phase was struck"
    check_same(runs, raw, found)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["dask", "spark"])
def test_the_run_is_killed_in_each_phase(raw, runs, engine, request):
    """Again and again, each time in the next phase; what it had started ends with it, and the last attempt finds what is finished."""
    if engine == "spark":
        request.getfixturevalue("java")
    options = {"dask": DASK, "spark": SPARK}[engine]
    for phase in in_order(raw[0] / "marks"):
        shutil.rmtree(runs.folder / "marks")
        (runs.folder / "marks").mkdir()
        assert runs.run(kind="driver", at={phase: 1}, options=options) is None, phase
        check_visible(runs)
    found = runs.run(options={"in_process": True})
    check_same(runs, raw, found)
    assert found["reused_items"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["threads", "dask", "spark"])
@pytest.mark.parametrize("phase", ["Segment", "Shard"])
def test_an_item_that_always_fails(raw, runs, engine, phase, request):
    """It fails the run after its tries, named, when all others are done; mended, the run goes on."""
    if engine == "spark":
        request.getfixturevalue("java")
    options = {"threads": {"in_process": True}, "dask": DASK, "spark": SPARK}[engine]
    failed = runs.run(kind="fail", at={phase: 2}, options=options)
    assert failed is not None and (failed["error"], failed["exit"]) == ("WorkItemError", 3)
    named = {"Segment": r"steps of .*part-0\d", "Shard": "shard of "}[phase]
    assert re.match(named + r".* failed 3 times: OSError: the disk hiccuped", failed["text"]), failed
    assert (runs.folder / "marks" / "tries").read_text() == "xxx"
    done = len(finished(runs.folder / "out"))
    check_visible(runs)
    (runs.folder / "marks" / "mended").touch()
    found = runs.run(kind="fail", at={phase: 2}, options=options)
    check_same(runs, raw, found)
    assert counted(runs.folder / "marks")[phase] == raw[2][phase], "each was done once"
    assert 0 < found["reused_items"] <= done


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["dask", "spark"])
def test_a_slow_item_is_reported_and_keeps_nobody_waiting(raw, runs, engine, request):
    if engine == "spark":
        request.getfixturevalue("java")
    options = {"dask": DASK, "spark": SPARK}[engine]
    found = runs.run(kind="slow", at={"Ingest": 1}, others=raw[2]["Ingest"], slow=1.0, options=options)
    check_same(runs, raw, found)
    assert re.search(r"still at work after \d+ s: ingest of .*part-0\d", runs.said), runs.said


class SmallDisk:
    """A file system in memory that can be made larger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def size(self, kilobytes: int) -> None:
        mounted = os.path.ismount(self.folder)
        options = f"{'remount,' if mounted else ''}size={kilobytes}k"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        said = subprocess.run(command, capture_output=True, text=True)
        if said.returncode:
            pytest.skip(f"A FULL DISK IS NOT TESTED: no file system can be mounted here ({said.stderr.strip()})")

    def close(self) -> None:
        if os.path.ismount(self.folder):
            subprocess.run(["umount", "-l", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    made = SmallDisk(tmp_path / "disk")
    yield made
    made.close()


def filled(runs: Runs, disk: SmallDisk, sizes: Iterable[int], **asked: Any) -> tuple[set[str], dict[str, Any] | None]:
    """(the phases in which the disk was full, what the run came to on the last disk): the disk grows from attempt to attempt."""
    struck = set()
    for size in sizes:
        shutil.rmtree(runs.folder / "marks")
        (runs.folder / "marks").mkdir()
        disk.size(size)
        found = runs.run(**asked)
        if found is None or "error" not in found:
            return struck, found
        assert (found["error"], found["exit"]) == ("RunError", 3) and "no space left" in found["text"], found
        assert str(disk.folder) in found["text"], "it says which disk"
        assert leftovers(disk.folder) == [] and leftovers(runs.folder / "out") == []
        came = in_order(runs.folder / "marks")
        struck.add(came[-1] if came else "planning")
    raise AssertionError("the last disk is large enough")


@pytest.mark.parametrize("options", [{"in_process": True}, pytest.param(DASK, marks=pytest.mark.slow)])
def test_a_full_scratch_disk(raw, runs, disk, options):
    work = sum(path.stat().st_size + 4096 for path in (raw[0] / "out" / "_work").rglob("*") if path.is_file()) >> 10
    parts = 10 if options is not DASK else 5
    sizes = [*(16 + work * part // parts for part in range(parts)), 64 << 10]
    struck, found = filled(runs, disk, sizes, options={**options, "scratch": str(disk.folder)})
    assert {"Ingest", "Segment"} <= struck and len(struck) >= 4, struck
    check_same(runs, raw, found)


@pytest.mark.slow
def test_a_full_output_disk(raw, runs, disk):
    out = disk.folder / "out"
    model = pipeline(runs.folder)
    model["output"]["path"] = str(out)
    size = sum(path.stat().st_size for path in (raw[0] / "out" / "data").rglob("*.parquet")) >> 10
    sizes = [*range(16, 3 * size, max(size // 4, 8)), 64 << 10]
    options = {"in_process": True, "scratch": str(runs.folder / "scratch")}
    struck, found = filled(runs, disk, sizes, model=model, options=options)
    assert {"Shard", "Ledger"} <= struck, struck
    shutil.copytree(out, runs.folder / "out")
    check_same(runs, raw, found)
