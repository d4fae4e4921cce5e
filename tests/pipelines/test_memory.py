"""A run stays within --memory, by the peak that the kernel notes."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from .conftest import STEPS

LIMIT = 1_200_000_000
WORDS = [
    f"{a}{b}{c}"
    for a in ("re", "in", "con", "de", "pro", "ab")
    for b in ("ter", "lin", "mor", "sta", "que", "vi")
    for c in ("ous", "ing", "al", "or", "ate", "y")
]


def write_corpus(folder: Path, size: int) -> int:
    """Rows of documents in families of near-copies, in two plain files; returns how many."""
    folder.mkdir()
    rng = random.Random(3)
    rows = 0
    for number in range(2):
        with open(folder / f"part-{number}.jsonl", "w", encoding="utf-8") as out:
            written = 0
            while written < size // 2:
                words = rng.choices(WORDS, k=3000)
                for copy in range(6):
                    words[rng.randrange(len(words))] = f"copy{copy}"
                    line = json.dumps({"id": rows, "text": " ".join(words)}) + "\n"
                    written += out.write(line)
                    rows += 1
    return rows


RUN = """
import resource, sys
from gristmill.cli.main import main
try:
    main()
finally:
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(int(peak.split()[1]) << 10, children, file=sys.stderr)
"""


WORKERS = """
import json, sys
import gristmill

if __name__ == "__main__":
    result = gristmill.run(sys.argv[1], workers=2, memory=int(sys.argv[2]), in_process=False, progress="quiet")
    print(json.dumps({"counts": result.counts, "steps": result.steps}))
"""


def model(tmp_path: Path, **output: Any) -> Path:
    """A pipeline file over the corpus."""
    content = {
        "name": "memory",
        "sources": [{"kind": "jsonl", "path": str(tmp_path / "raw"), "name": "web"}],
        "steps": STEPS,
        "split": {"train": 0.9, "test": 0.1, "similarity": 0.5},
        "output": {"path": str(tmp_path / "out"), **output},
    }
    (tmp_path / "pipeline.yaml").write_text(json.dumps(content))
    return tmp_path / "pipeline.yaml"


def peaks(process: subprocess.Popen[str]) -> tuple[list[int], int]:
    """(the peak of each worker process, as the kernel notes it; the most that all processes of the run but the first held at a time, a page that some
    share counted once), when the run has ended. Workers are forked from one process that the first one starts.
    """
    found: dict[int, int] = {}
    together = 0
    while process.poll() is None:
        held = 0
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(OSError, StopIteration, psutil.Error):
                if child.ppid() != process.pid:
                    found[child.pid] = noted(child.pid, "status", "VmHWM:")
                held += noted(child.pid, "smaps_rollup", "Pss:")
        together = max(together, held)
        time.sleep(0.1)
    return list(found.values()), together


def noted(pid: int, file: str, name: str) -> int:
    """Bytes, from the kernel's notes about a process."""
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) << 10


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured by Linux's /proc")
def test_three_hundred_megabytes_within_memory(tmp_path: Path) -> None:
    rows = write_corpus(tmp_path / "raw", 300_000_000)
    command = [
        sys.executable,
        "-c",
        RUN,
        "run",
        str(model(tmp_path)),
        "--workers",
        "2",
        "--memory",
        str(LIMIT),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)["counts"]
    assert counts["read"] == rows and counts["kept"] + counts["dropped"] == rows
    assert counts["kept"] == rows // 6  # one of each family
    peak, children = map(int, done.stderr.splitlines()[-1].split())
    assert children == 0, "threads of one process, whose peak the kernel keeps"
    assert 300_000_000 < peak < LIMIT


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured by Linux's /proc")
@pytest.mark.parametrize("order", ["source", "shuffled"])
def test_worker_processes_together_within_memory(tmp_path: Path, order: str) -> None:
    """The sum of the peaks of two worker processes, pages of mapped files and all, though they need not come at once."""
    rows = write_corpus(tmp_path / "raw", 300_000_000)
    (tmp_path / "run.py").write_text(WORKERS)
    command = [sys.executable, str(tmp_path / "run.py"), str(model(tmp_path, order=order)), str(LIMIT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        workers, together = peaks(process)
        out, errors = process.communicate()
    assert process.returncode == 0, errors[-3000:]
    counts = json.loads(out)["counts"]
    assert counts["read"] == rows and counts["kept"] == rows // 6
    assert len(workers) == 2 and min(workers) > 150_000_000 and sum(workers) < LIMIT, workers
    assert max(workers) < together < LIMIT, together
