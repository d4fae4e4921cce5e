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


def peaks(process: subprocess.Popen[str]) -> list[int]:
    """The peak of each worker process, as the kernel notes it, once the run has ended."""
    found: dict[int, int] = {}
    while process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(OSError, StopIteration, psutil.Error):
                status = Path(f"/proc/{child.pid}/status").read_text().splitlines()
                found[child.pid] = int(next(line for line in status if line.startswith("VmHWM:")).split()[1]) << 10
        time.sleep(0.1)
    return list(found.values())


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
        found = peaks(process)
        out, errors = process.communicate()
    assert process.returncode == 0, errors[-3000:]
    counts = json.loads(out)["counts"]
    assert counts["read"] == rows and counts["kept"] == rows // 6
    workers = [peak for peak in found if peak > 150_000_000]  # the others start them, or hold their semaphores
    assert len(workers) == 2 and sum(workers) < LIMIT, found
