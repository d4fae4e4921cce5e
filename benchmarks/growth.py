"""Memory and time as the input grows: the PEP history once, three and nine times (distinct text) under one --memory; and 1,000 rows cold.

`python benchmarks/growth.py [VARIANTS ...] [--memory SIZE] [--processes]`. Needs 12 GB of disk for nine times, 40 for thirty.
"""

from __future__ import annotations

import argparse
import shutil

import common


def growth(sizes: list[int], limit: str, *, processes: bool = False) -> None:
    rows, stages = [], {}
    for variants in sizes:
        source, output = common.corpus(variants), common.SCRATCH / f"growth-{variants}"
        took, result, memory = common.run(
            common.pipeline(source, output, common.ALPHA), "--workers", "2", "--memory", limit, processes=processes
        )
        counts = result["counts"]
        sizes_of = [memory.peak / 1e6, memory.peak_private / 1e6, memory.children / 1e6]
        rows.append([f"{variants} x 336 MB", counts["read"], counts["kept"], *took, took.cpu / variants, *sizes_of])
        stages[variants] = result["seconds"]
        shutil.rmtree(output)
    print(
        f"gristmill run --workers 2 --memory {limit}; peak of the sum of PSS over all processes, sampled every 0.2 s, of what is no file's page, and the sum of "
        "the workers' own peaks (0: threads of the one process)"
    )
    common.table(
        rows, ["text", "rows", "kept", "seconds", "CPU s", "CPU s / 336 MB", "peak MB", "anonymous MB", "workers MB"]
    )
    names = list(stages[sizes[0]])
    common.table(
        [[name, *[stages[v].get(name, 0.0) for v in sizes]] for name in names],
        ["seconds of stage", *[f"{v} x" for v in sizes]],
    )


def cold() -> None:
    """1,000 rows in a fresh process: from start to end."""
    source = common.corpus(rows=1000, files=1)
    runs = [common.run(common.pipeline(source, common.SCRATCH / "cold")) for _ in range(5)]
    took, result, memory = min(runs, key=lambda run: run[0].seconds)
    print("1,000 rows (20 MB of text), a fresh process each time")
    common.table(
        [["gristmill run", *took, " ".join(f"{run[0].seconds:.2f}" for run in runs), memory.peak / 1e6]],
        ["", "seconds", "CPU s", "each time", "peak MB"],
    )
    print(f"  {result['counts']}\n")


def main() -> None:
    common.header()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", type=int, nargs="*", default=[1, 3, 9])
    parser.add_argument("--memory", default="1.5GB")
    parser.add_argument("--processes", action="store_true", help="worker processes also for small inputs")
    chosen = parser.parse_args()
    cold()
    growth(chosen.variants, chosen.memory, processes=chosen.processes)


if __name__ == "__main__":
    main()
