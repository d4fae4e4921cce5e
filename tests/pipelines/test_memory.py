"""A run stays within --memory: all its processes together, measured while it works."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from .conftest import STEPS

LIMIT = 1_200_000_000
WORDS = [f"{a}{b}{c}" for a in ("re", "in", "con", "de", "pro", "ab") for b in ("ter", "lin", "mor", "sta", "que", "vi") for c in ("ous", "ing", "al", "or", "ate", "y")]


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


def tree(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def pss(pid: int) -> int:
    """The process's share of the memory that it has mapped."""
    try:
        line = next(line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0
    return int(line.split()[1]) << 10


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is measured by Linux's /proc")
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
    command = [sys.executable, "-m", "gristmill.cli.main", "run", str(tmp_path / "pipeline.yaml"), "--workers", "2", "--memory", str(LIMIT), "--json"]
    with open(tmp_path / "result.json", "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        peaks, stop = [0], threading.Event()

        def watch() -> None:
            while not stop.wait(0.1):
                peaks.append(sum(pss(pid) for pid in tree(process.pid)))

        watcher = threading.Thread(target=watch)
        watcher.start()
        status = process.wait()
        stop.set()
        watcher.join()
    assert status == 0
    counts = json.loads((tmp_path / "result.json").read_text())["counts"]
    assert counts["read"] == rows and counts["kept"] + counts["dropped"] == rows
    assert counts["kept"] == rows // 6  # one of each family
    assert 300_000_000 < max(peaks) < LIMIT
