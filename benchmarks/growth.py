"""Memory and time as the input grows: the PEP history once, three and nine times (distinct text) under one --memory; and 1,000 rows cold.

`python benchmarks/growth.py [VARIANTS ...]`. Needs 12 GB of disk for nine times.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
from memory import Sampler

MEMORY = "1.5GB"


def watched(source: Path, output: Path, *options: str, alpha: float | None) -> tuple[float, Sampler, dict[str, Any]]:
    """(seconds, memory, result) of `gristmill run`."""
    shutil.rmtree(output, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    file = output.parent / f"{output.name}.yaml"
    file.write_text(json.dumps(common.pipeline(source, output, alpha)))
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        command = [sys.executable, "-m", "gristmill.cli.main", "run", str(file), "--json", *options]
        process = subprocess.Popen(command, stdout=out, stderr=errors)
        with Sampler(process.pid) as memory:
            status = process.wait()
        seconds = time.perf_counter() - start
        out.seek(0), errors.seek(0)
        if status:
            raise SystemExit(f"run failed:\n{errors.read()[-4000:]}")
        return seconds, memory, json.loads(out.read())


def growth(sizes: list[int]) -> None:
    rows, stages = [], {}
    for variants in sizes:
        source, output = common.corpus(variants), common.SCRATCH / f"growth-{variants}"
        seconds, memory, result = watched(source, output, "--workers", "2", "--memory", MEMORY, alpha=common.ALPHA)
        counts = result["counts"]
        rows.append(
            [f"{variants} x 336 MB", counts["read"], counts["kept"], seconds, seconds / variants, memory.peak / 1e6, memory.peak_private / 1e6]
        )
        stages[variants] = result["seconds"]
        shutil.rmtree(output)
    print(f"gristmill run --workers 2 --memory {MEMORY}; peak of the sum of PSS over all processes, sampled every 0.1 s")
    common.table(rows, ["text", "rows", "kept", "seconds", "seconds / 336 MB", "peak MB", "of which anonymous MB"])
    names = list(stages[sizes[0]])
    common.table([[name, *[stages[v].get(name, 0.0) for v in sizes]] for name in names], ["seconds of stage", *[f"{v} x" for v in sizes]])


def cold() -> None:
    """1,000 rows in a fresh process: from start to end."""
    source = common.corpus(rows=1000, files=1)
    times = []
    for _ in range(5):
        seconds, memory, result = watched(source, common.SCRATCH / "cold", alpha=None)
        times.append(seconds)
    print("1,000 rows (20 MB of text), a fresh process each time")
    common.table([["gristmill run", min(times), " ".join(f"{t:.2f}" for t in times), memory.peak / 1e6]], ["", "seconds", "each time", "peak MB"])
    print(f"  {result['counts']}\n")


def main() -> None:
    common.header()
    cold()
    growth([int(size) for size in sys.argv[1:]] or [1, 3, 9])


if __name__ == "__main__":
    main()
