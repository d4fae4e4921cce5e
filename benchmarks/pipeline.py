"""The whole job on the PEP history over the floor: two plain processes that read the same files and write them as zstd Parquet.

`python benchmarks/pipeline.py`. The floor does nothing else with them: no identity, no ledger, no filter, no de-duplication.
"""

from __future__ import annotations

import subprocess
import sys
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


def floor(source: Path, out: Path) -> common.Took:
    """What two processes take that read and write half of the files each."""
    common.fresh(out)
    files = [str(file) for file in sorted(source.glob("*.jsonl.gz"))]
    with common.Clock() as clock:
        halves = [subprocess.Popen([sys.executable, "-c", FLOOR, str(out), *files[half::2]]) for half in (0, 1)]
        if any([process.wait() for process in halves]):
            raise SystemExit("the floor failed")
    return clock.took


def main() -> None:
    common.header()
    source, out = common.corpus(), common.SCRATCH / "pipeline"
    floor(source, out / "floor")  # reads the files once, so that all find them in memory
    cases = {"as it is": None, f"words without letters at {common.ALPHA}": common.ALPHA}
    floors, runs = [], {name: [] for name in cases}
    for _ in range(REPEATS):
        floors.append(floor(source, out / "floor"))
        for name, alpha in cases.items():
            runs[name].append(common.run(common.pipeline(source, out / "shards", alpha), "--workers", "2"))
    least = common.Took(*map(min, zip(*floors, strict=True)))
    print(
        f"PEP history, 16 JSONL.gz files, 336 MB of text; best of {REPEATS}, taken in turn; from start to end of the processes"
    )
    rows = [["floor: read and write zstd Parquet, 2 processes", *least, 1.0, 1.0, each(floors)]]
    for name, found in runs.items():
        took = common.Took(*map(min, zip(*[run[0] for run in found], strict=True)))
        ratios = [took.seconds / least.seconds, took.cpu / least.cpu]
        rows.append([f"gristmill run --workers 2, gopher {name}", *took, *ratios, each([run[0] for run in found])])
    common.table(rows, ["", "seconds", "CPU s", "x floor", "x floor's CPU", "seconds each time"])
    for name, found in runs.items():
        _, result, memory = min(found, key=lambda run: run[0].seconds)
        print(f"gopher {name}: {result['counts']}, splits {result['splits']}, peak {memory.peak / 1e6:.0f} MB")
        print(f"  {result['steps']['drop_near_duplicates']}, fingerprint {result['fingerprint']}")
        common.table([[stage, seconds] for stage, seconds in result["seconds"].items()], ["stage", "seconds"])


def each(times: list[common.Took]) -> str:
    return " ".join(f"{took.seconds:.2f}" for took in times)


if __name__ == "__main__":
    main()
