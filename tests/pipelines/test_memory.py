"""A run stays within --memory, by the peak that the kernel notes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured by Linux's /proc")
def test_three_hundred_megabytes_within_memory(tmp_path: Path) -> None:
    rows = write_corpus(tmp_path / "raw", 300_000_000)
    model = {
        "name": "memory",
        "sources": [{"kind": "jsonl", "path": str(tmp_path / "raw"), "name": "web"}],
        "steps": STEPS,
        "split": {"train": 0.9, "test": 0.1, "similarity": 0.5},
        "output": {"path": str(tmp_path / "out")},
    }
    (tmp_path / "pipeline.yaml").write_text(json.dumps(model))
    command = [
        sys.executable,
        "-c",
        RUN,
        "run",
        str(tmp_path / "pipeline.yaml"),
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
