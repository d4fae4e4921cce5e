"""Real processes by torchrun: killed with SIGKILL in mid-epoch, resumed with another number of them, the rows of the run are those of one that was never stopped."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import gristmill.storage.stream as gs
from tests.storage.stream.helpers import ids_of

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = Path(__file__).with_name("train_rank.py")


def torchrun(processes, *arguments):
    """The exit status; the group it runs in is its own, so that all of it can be killed."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        "--local-addr=127.0.0.1",
        str(SCRIPT),
        *map(str, arguments),
    ]
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    }
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, text=True
    ) as process:
        try:
            _, errors = process.communicate(timeout=150)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            raise
    return process.returncode, errors


def uids_of(out):
    """The uids that count, by step: those of a step that was run again after a kill replace the first ones, and must equal them."""
    found = {}
    for line in (out / "log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        assert len(entry["uids"]) == entry["rows"]
        assert found.setdefault(entry["step"], entry["uids"]) == entry["uids"]
    assert list(sorted(found)) == list(range(len(found)))
    return [found[step] for step in sorted(found)]


def uninterrupted(folder, batch):
    return [
        batch["_uid"]
        for batch in gs.stream(
            folder, global_batch_size=batch, seed=11, epochs=2, shuffle_bytes=20_000, rank=0, world_size=1
        )
    ]


def leftovers():
    return {name for name in os.listdir("/dev/shm")} if os.path.isdir("/dev/shm") else set()


def test_killed_and_resumed_with_another_number_of_processes(folder, tmp_path):
    before = leftovers()
    status, _ = torchrun(2, folder, tmp_path, 60, 7)
    assert status != 0 and (tmp_path / "state.json").exists()
    assert json.loads((tmp_path / "state.json").read_text())["step"] == 4
    status, errors = torchrun(1, folder, tmp_path, 60, -1)
    assert status == 0, errors
    assert uids_of(tmp_path) == uninterrupted(folder, 60)
    assert {name for name in leftovers() - before if "gristmill" in name} == set()
    assert not [path for path in Path(folder).rglob("*") if path.suffix != ".parquet"]


@pytest.mark.slow
def test_killed_again_and_again_on_2_4_and_3_processes(folder, tmp_path):
    for processes, kill_at in ((4, 6), (2, 9), (3, 21), (4, -1)):
        status, errors = torchrun(processes, folder, tmp_path, 50, kill_at)
        assert (status == 0) == (kill_at < 0), errors
    assert uids_of(tmp_path) == uninterrupted(folder, 50)


@pytest.mark.slow
def test_another_batch_size_after_the_kill_neither_repeats_nor_loses_a_row(folder, tmp_path):
    assert torchrun(2, folder, tmp_path, 60, 14)[0] != 0
    (tmp_path / "log.jsonl").write_text(
        "".join((tmp_path / "log.jsonl").read_text().splitlines(keepends=True)[:12])
    )  # what the checkpoint has
    status, errors = torchrun(4, folder, tmp_path, 37, -1)
    assert status == 0, errors
    flat = [uid for uids in uids_of(tmp_path) for uid in uids]
    assert sorted(flat[:1003]) == sorted(flat[1003:]) == sorted(f"u{i}" for i in range(1003))


@pytest.mark.slow
def test_tensor_parallel_peers_of_a_device_mesh_get_equal_rows(folder, tmp_path):
    assert torchrun(4, folder, tmp_path, 60, 6, 2)[0] != 0
    status, errors = torchrun(2, folder, tmp_path, 60, -1, 2)
    assert status == 0, errors
    assert uids_of(tmp_path) == uninterrupted(folder, 60)
