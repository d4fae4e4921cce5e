"""Start-up of each engine: a run of one row without steps, from start to end of its process.

python benchmarks/engines/start.py        # about a minute
"""

from __future__ import annotations

import common_path  # noqa: F401
import common
from launch import ENGINES, empty, launch

REPEATS = 3


def start_up(engine: str, workers: int, repeats: int = REPEATS) -> list[common.Took]:
    """What each of some runs took."""
    model = empty(common.SCRATCH / "start")
    return [launch(model, workers=workers, **ENGINES[engine])[0] for _ in range(repeats)]


def main() -> None:
    common.header("pyarrow", "dask", "distributed", "pyspark")
    rows = []
    for engine, workers in (("threads", 1), ("dask", 1), ("dask", 2), ("spark", 1), ("spark", 2)):
        found = start_up(engine, workers)
        least = common.Took(*map(min, zip(*found, strict=True)))
        rows.append([engine, workers, *least, " ".join(f"{took.seconds:.1f}" for took in found)])
    print(f"one row, no steps; a fresh process each time, best of {REPEATS}")
    common.table(rows, ["engine", "workers", "seconds", "CPU s", "seconds each time"])


if __name__ == "__main__":
    main()
