"""The examples train for real: killed in the middle they go on with another number of processes, and see the rows that an uninterrupted run sees."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 120  # seconds, for a machine that does other things


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    rows = [f"row {i} says {'ab' * (i % 40)} and ends" for i in range(240)]
    pq.write_table(
        pa.table({"_uid": [f"u{i}" for i in range(240)], "text": rows}), folder / "a.parquet", row_group_size=20
    )
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder CLASS/*.jpg of 96 images in two colours."""
    import cv2

    folder = tmp_path_factory.mktemp("pictures")
    for i in range(96):
        name, colour = (("blue", (255, 0, 0)), ("red", (0, 0, 255)))[i % 2]
        (folder / name).mkdir(exist_ok=True)
        image = np.full((40, 50, 3), colour, np.uint8)
        cv2.circle(image, (i % 50, 20), 8, (0, 255, 0), -1)
        cv2.imwrite(str(folder / name / f"{i:03d}.jpg"), image)
    return folder


def start(example, data, output, processes, *options):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--local-addr",
        "127.0.0.1",
        "--nproc-per-node",
        str(processes),
        "-m",
        f"examples.{example}",
        str(data),
    ]
    command += ["--output", str(output), "--batch-size", "8", "--checkpoint-every", "4", "--log-rows", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process):
    try:
        out, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, out
    return out


def kill_at(process, output, step):
    """Ends all its processes as soon as rank 0 has logged a step."""
    log, deadline = output / "rows-0.jsonl", time.monotonic() + LIMIT
    while not (log.exists() and len(log.read_text().splitlines()) > step):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.02)
    for child in children(process.pid):
        os.kill(child, signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def children(pid):
    """The workers: torchrun gives each a session of its own."""
    psutil = pytest.importorskip("psutil")
    return [each.pid for each in psutil.Process(pid).children(recursive=True)]


def rows_of(output, from_step, world_size):
    """{step: the uids of its ranks one after another} of the last time that each step was done."""
    found = {}
    for path in sorted(output.glob("rows-*.jsonl")):
        rank = int(path.stem.split("-")[1])
        for entry in map(json.loads, path.read_text().splitlines()):
            if entry["world_size"] == world_size and entry["step"] >= from_step:
                found.setdefault(entry["step"], {})[rank] = entry["uids"]
    return {
        step: list(itertools.chain.from_iterable(ranks[rank] for rank in sorted(ranks)))
        for step, ranks in sorted(found.items())
    }


def loss_in(out):
    return float(out.rpartition("loss ")[2])


CASES = {
    "text": ("train_text", ["--length", "32", "--steps", "18"], 240),
    "images": ("train_images", ["--classes", "2", "--size", "32", "--epochs", "2", "--steps", "18"], 96),
}


@pytest.mark.parametrize("case", ["text", pytest.param("images", marks=pytest.mark.slow)])
def test_killed_and_resumed_with_fewer_processes(case, texts, pictures, tmp_path):
    example, options, rows = CASES[case]
    data = texts if case == "text" else pictures
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = finish(start(example, data, whole, 1, *options))
    assert "done: step 18" in done
    kill_at(process := start(example, data, cut, 2, *options), cut, 9)
    assert process.returncode != 0
    resumed = torch.load(cut / "checkpoint.pt", weights_only=True)["loader"]["step"]
    assert resumed in (8, 12, 16)
    out = finish(start(example, data, cut, 1, *options))
    assert f"going on from step {resumed}" in out and "done: step 18" in out

    expected = rows_of(whole, 0, 1)
    assert list(expected) == list(range(18))
    before = {step: uids for step, uids in rows_of(cut, 0, 2).items() if step < resumed}
    after = rows_of(cut, 0, 1)
    assert list(before) == list(range(resumed)) and list(after) == list(range(resumed, 18))
    assert {**before, **after} == expected
    first_epoch = list(itertools.chain.from_iterable(expected.values()))[: rows // 8 * 8]
    assert len(set(first_epoch)) == len(first_epoch)
    assert loss_in(out) == pytest.approx(loss_in(done), abs=2e-3)  # sums in another order
    if case == "text":
        check_scalars(whole, 18)


def check_scalars(output, steps):
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        warnings.warn("TensorBoard isn't installed: its scalars are not checked", stacklevel=2)
        return
    found = EventAccumulator(str(output / "tensorboard"))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {"loss", "rows_per_second", "wait_ratio"}
    losses = [event.value for event in found.Scalars("loss")]
    assert [event.step for event in found.Scalars("loss")] == list(range(steps))
    assert all(np.isfinite(losses)) and losses[-1] < losses[0]
    assert all(0 <= event.value <= 1 for event in found.Scalars("wait_ratio"))


@pytest.mark.slow
def test_a_batch_that_ranks_cannot_share_equally_is_refused(texts, tmp_path):
    process = start("train_text", texts, tmp_path, 2, "--batch-size", "7")
    out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode != 0 and "no multiple of 2 processes" in out
