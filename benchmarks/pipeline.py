"""The whole job on the PEP history over the floor: two plain processes that read the same files and write them as zstd Parquet.

`python benchmarks/pipeline.py`. Both read 16 JSONL.gz files with 336 MB of text; the floor does nothing else with them.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import common

FLOOR = """
import sys
import pyarrow.json, pyarrow.parquet
out, *files = sys.argv[1:]
for file in files:
    with pyarrow.input_stream(file) as stream:
        table = pyarrow.json.read_json(stream)
    name = file.rsplit("/", 1)[-1].replace(".jsonl.gz", ".parquet")
    pyarrow.parquet.write_table(table, f"{out}/{name}", compression="zstd")
"""
REPEATS = 3


def floor(source: Path, out: Path) -> float:
    """Seconds that two processes take to read and write half of the files each."""
    common.fresh(out)
    files = [str(file) for file in sorted(source.glob("*.jsonl.gz"))]
    start = time.perf_counter()
    halves = [subprocess.Popen([sys.executable, "-c", FLOOR, str(out), *files[half::2]]) for half in (0, 1)]
    if any(process.wait() for process in halves):
        raise SystemExit("the floor failed")
    return time.perf_counter() - start


def main() -> None:
    common.header()
    source = common.corpus()
    out = common.SCRATCH / "pipeline"
    floors, runs = [], []
    floor(source, out / "floor")  # reads the files once, so that both find them in memory
    for _ in range(REPEATS):
        floors.append(floor(source, out / "floor"))
        runs.append(common.run_json(source, out / "shards", "--workers", "2"))
    seconds, result = min(runs, key=lambda run: run[0])
    print(f"PEP history, 16 JSONL.gz files; best of {REPEATS}; from start to end of the processes")
    common.table(
        [
            ["floor: read, write zstd Parquet, 2 processes", min(floors), 1.0, " ".join(f"{t:.2f}" for t in floors)],
            ["gristmill run, 2 workers", seconds, seconds / min(floors), " ".join(f"{t:.2f}" for t, _ in runs)],
        ],
        ["", "seconds", "x floor", "each time"],
    )
    common.table(sorted(result["seconds"].items(), key=lambda stage: stage[1]), ["stage", "seconds"])
    print(f"  {result['counts']}, splits {result['splits']}, fingerprint {result['fingerprint']}")
    near = result["steps"]["drop_near_duplicates"]
    print(f"  near duplicates: {near}\n")


if __name__ == "__main__":
    main()
