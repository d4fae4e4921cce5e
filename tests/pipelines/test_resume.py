"""A run, or a worker of it, is killed -9 at any moment; the same command then finishes, and redoes only what was in flight."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from gristmill.storage.dataset import open_dataset
from gristmill.storage.parquet import read_table

from .conftest import STEPS, corpus, write_jsonl
from .moments import HANG, PROCESSES, finished, leftovers, run_in_child

SPLIT = {"train": 0.7, "test": 0.3, "similarity": 0.5}
STEPS_TWICE = [*STEPS, {"step": "filter", "where": "score < 10"}]  # a stage after the wide steps


def pipeline(tmp_path: Path, steps=STEPS_TWICE) -> dict:
    return {
        "name": "killed", "sources": [{"kind": "jsonl", "path": str(tmp_path / "raw"), "name": "web"}], "id": "id", "steps": steps, "split": SPLIT,
        "output": {"path": str(tmp_path / "out"), "shard_bytes": "12KB", "row_group_bytes": "4KB"},
    }  # fmt: skip


def ledger(out: Path) -> dict[str, list[dict]]:
    """The ledger's files by name, without the run's own folder."""
    dataset = open_dataset(out)
    return {
        name.rsplit("/", 1)[1]: read_table(dataset.folder, name).to_pylist()
        for name, *_ in dataset.folder.list(dataset.manifest.ledger)
    }


def check_whole(out: Path, reference: dict, found: dict) -> None:
    assert (found["fingerprint"], found["layout"], found["counts"]) == (
        reference["fingerprint"],
        reference["layout"],
        reference["counts"],
    )
    dataset = open_dataset(out)
    assert dataset.version == 1 and dataset.verify() == [] and dataset.layout == reference["layout"]
    assert leftovers(out) == []


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(folder, what an uninterrupted run came to, its ledger)."""
    folder = tmp_path_factory.mktemp("killed")
    rows = corpus(20)
    write_jsonl(folder / "raw", rows, files=3)
    with open(folder / "raw" / "part-03.jsonl", "w") as out:
        out.write("{broken\n")
    found = run_in_child(pipeline(folder))
    assert (
        found is not None and found["published"] and found["reused_items"] == 0 and found["counts"]["quarantined"] == 1
    )
    return folder, found, ledger(folder / "out")


def killed_at(uninterrupted, moment: int) -> None:
    folder, reference, entries = uninterrupted
    out = folder / "out"
    shutil.rmtree(out)
    assert run_in_child(pipeline(folder), kill_at=moment) is None
    before = finished(out)
    done = sum(key in before for key in reference["keys"])
    published = (out / "manifests" / "v00000001.json").exists()
    if published:
        assert open_dataset(out).verify() == [], "what is visible is whole"
    found = run_in_child(pipeline(folder))
    check_whole(out, reference, found)
    assert found["reused_items"] == done and found["published"] != published
    after = finished(out)
    assert {key: after[key] for key in before} == before, "nothing that was finished has been done again"
    assert ledger(out) == entries


def test_killed_at_moments_of_every_stage(uninterrupted):
    every = uninterrupted[1]["moments"]
    assert every > 60
    for moment in sorted({*range(1, every + 1, every // 8), every - 3, every - 1, every}):
        killed_at(uninterrupted, moment)


@pytest.mark.slow
def test_killed_at_every_moment(uninterrupted):
    every = uninterrupted[1]["moments"]
    assert every > 60
    for moment in range(1, every + 1):
        killed_at(uninterrupted, moment)


def test_killed_again_and_again(uninterrupted):
    folder, reference, entries = uninterrupted
    shutil.rmtree(folder / "out")
    kills = 0
    while (found := run_in_child(pipeline(folder), kill_at=13)) is None:
        kills += 1
    assert kills >= 5
    check_whole(folder / "out", reference, found)
    assert ledger(folder / "out") == entries


def test_killed_while_a_second_version_is_made(uninterrupted, tmp_path):
    folder = tmp_path
    shutil.copytree(uninterrupted[0] / "raw", folder / "raw")
    first = run_in_child(pipeline(folder))
    changed = pipeline(folder, steps=STEPS)
    reference = run_in_child({**changed, "output": {**changed["output"], "path": str(tmp_path / "reference")}})
    for moment in (1, 9, 14, 20, 25):
        assert run_in_child(changed, kill_at=moment) is None
        assert (
            open_dataset(folder / "out").version == 1
            and open_dataset(folder / "out").fingerprint == first["fingerprint"]
        )
        assert open_dataset(folder / "out").verify() == []
    found = run_in_child(changed)
    assert (found["version"], found["fingerprint"], found["layout"]) == (
        2,
        reference["fingerprint"],
        reference["layout"],
    )
    assert leftovers(folder / "out") == []


def test_two_runs_at_once_one_wins_and_one_is_told(uninterrupted, tmp_path):
    """Both are at work in one folder, on different inputs; the slower one is told, and finishes when it is run again."""
    shutil.copytree(uninterrupted[0] / "raw", tmp_path / "raw")
    write_jsonl(tmp_path / "other" / "raw", corpus(20, seed=3), files=3)
    model = pipeline(tmp_path)
    other = {**pipeline(tmp_path / "other"), "output": model["output"]}
    found: list[dict] = []
    meet = PROCESSES.Barrier(2)  # both have seen the empty folder when they begin
    threads = [
        threading.Thread(target=lambda model=model: found.append(run_in_child(model, meet=meet)))
        for model in (model, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [one for one in found if "error" in one]
    assert [(one["error"], one["exit"]) for one in told] == [("CommitConflictError", 3)], found
    won = next(one for one in found if "error" not in one)
    assert (
        won["version"] == 1
        and open_dataset(tmp_path / "out").fingerprint == won["fingerprint"]
        and open_dataset(tmp_path / "out").verify() == []
    )
    again = {run_in_child(one)["version"] for one in (model, other)}
    assert again == {1, 2} or again == {2, 3}
    assert open_dataset(tmp_path / "out").verify() == [] and leftovers(tmp_path / "out") == []
    assert uninterrupted[1]["fingerprint"] in {
        version["fingerprint"] for version in open_dataset(tmp_path / "out").history()
    }


CLUSTER = """
import contextlib, json, os, sys, time
from pathlib import Path

import gristmill
from gristmill.pipelines.sources import items
from gristmill.pipelines.work import WorkStore

if __name__ == "__main__":
    items.SMALL_BYTES = 0  # planning is done here
    result = gristmill.run(json.loads(sys.argv[1]), workers=2, in_process=False, progress="lines")
    print(json.dumps(result.to_json_dict()))
else:  # a worker process, which imports this file: once HOLD items are done it stops in the middle of the next one until the gate is open
    hold, gate, create = int(os.environ["HOLD"]), Path(os.environ["GATE"]), WorkStore.create

    @contextlib.contextmanager
    def held(self, key):
        with create(self, key) as made:
            yield made
            if len(list(Path(self.root).glob("items/??/[!.]*/summary.json"))) >= hold:
                (gate / str(os.getpid())).touch()
                while not (gate / "open").exists():
                    time.sleep(0.01)

    WorkStore.create = held
"""
NEVER = 10**9


def start(model: dict, folder: Path, hold: int = NEVER) -> subprocess.Popen:
    """A run on two worker processes, which stop in the middle of an item once `hold` are done; see `held`."""
    (folder / "main.py").write_text(CLUSTER)
    shutil.rmtree(folder / "gate", ignore_errors=True)
    (folder / "gate").mkdir()
    environment = {**os.environ, "HOLD": str(hold), "GATE": str(folder / "gate")}
    command = [sys.executable, str(folder / "main.py"), json.dumps(model)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def held(process: subprocess.Popen, folder: Path) -> list[psutil.Process]:
    """Both workers, each in the middle of an item."""
    assert wait_for(lambda: len(list((folder / "gate").iterdir())) == 2, process), process.communicate()[1][-3000:]
    assert len(leftovers(folder / "out")) == 2, "what they are at is half-written"
    return [psutil.Process(int(path.name)) for path in (folder / "gate").iterdir()]


def workers_of(pid: int) -> list[psutil.Process]:
    """Those of a run's process; on Linux they are forked from one that it has started."""
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            said = " ".join(child.cmdline())
            if child.ppid() != pid or ("resource_tracker" not in said and "forkserver" not in said):
                found.append(child)
    return found


def end(process: subprocess.Popen) -> dict:
    out, errors = process.communicate(timeout=HANG)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(out)


def wait_for(condition, process: subprocess.Popen) -> bool:
    """Whether it came true before the process ended."""
    last = time.monotonic() + HANG
    while time.monotonic() < last:
        if condition():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.01)
    raise AssertionError("it never came true")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """(folder, what an uninterrupted run in one process came to): 24 files, so that workers are busy for a while."""
    folder = tmp_path_factory.mktemp("workers")
    rows = [{**row, "text": row["text"] * 20} for row in corpus(150)]
    write_jsonl(folder / "raw", rows, files=24)
    return folder, run_in_child(pipeline(folder))


def test_a_worker_is_killed(large):
    folder, reference = large
    shutil.rmtree(folder / "out")
    process = start(pipeline(folder), folder, hold=30)
    victim, _ = held(process, folder)
    before = finished(folder / "out")
    victim.send_signal(signal.SIGKILL)
    (folder / "gate" / "open").touch()
    found = end(process)
    check_whole(folder / "out", reference, found)
    assert not victim.is_running()
    after = finished(folder / "out")
    assert {key: after[key] for key in before if key in after} == {
        key: value for key, value in before.items() if key in after
    }


def test_the_run_is_killed_while_workers_are_at_work(large):
    folder, reference = large
    shutil.rmtree(folder / "out")
    process = start(pipeline(folder), folder, hold=60)
    workers = held(process, folder)
    process.kill()
    process.communicate()
    gone, left = psutil.wait_procs(workers, timeout=HANG)
    assert not left, "workers end with their run"
    before = finished(folder / "out")
    found = end(start(pipeline(folder), folder))
    check_whole(folder / "out", reference, found)
    after = finished(folder / "out")
    assert {key: after[key] for key in before if key in after} == before
    assert found["reused_items"] == sum(key in before for key in reference["keys"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_runs_and_workers_killed_at_any_time(large, seed):
    """Each attempt loses workers, or the whole run, at a time by chance; the last one is left alone. What is checked holds whenever that was."""
    folder, reference = large
    shutil.rmtree(folder / "out")
    rng = random.Random(seed)
    for _ in range(3):
        process = start(pipeline(folder), folder)
        target = rng.randrange(1, 320)
        wait_for(lambda: len(finished(folder / "out")) >= target, process)
        time.sleep(rng.random() * 0.2)
        if rng.random() < 0.5:
            for worker in workers_of(process.pid)[: rng.randrange(1, 3)]:
                worker.send_signal(signal.SIGKILL)
            time.sleep(rng.random() * 2)
        workers = workers_of(process.pid)
        process.kill()
        process.communicate()
        psutil.wait_procs(workers, timeout=HANG)
        if (folder / "out" / "manifests").exists():
            assert open_dataset(folder / "out").verify() == []
    before = finished(folder / "out")
    found = end(start(pipeline(folder), folder))
    check_whole(folder / "out", reference, found)
    after = finished(folder / "out")
    assert {key: after[key] for key in before if key in after} == {
        key: value for key, value in before.items() if key in after
    }
    assert not list(Path(tempfile.gettempdir()).glob(f"gristmill-dask-{process.pid}-*")), (
        "workers' own files are gone too"
    )
