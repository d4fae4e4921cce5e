"""The main job on Dask and on Spark with one worker and with two: seconds net of start-up, and scaling efficiency.

    python benchmarks/engines/scale.py                  # the PEP history: about 3 minutes on two idle cores
    python benchmarks/engines/scale.py --variants 9     # 3 GB of text: about 20 minutes

Efficiency is (seconds with one worker) / (2 x seconds with two), both net of an empty run on the same engine with as many workers.
"""

from __future__ import annotations

import argparse
import shutil

import common_path  # noqa: F401
import common
from launch import ENGINES, launch
from start import start_up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1, help="times that each is run, in turn; the best counts")
    parser.add_argument("--engines", nargs="+", default=["dask", "spark"], choices=list(ENGINES))
    chosen = parser.parse_args()
    common.header("pyarrow", "numba", "dask", "distributed", "pyspark")
    source = common.corpus(chosen.variants)
    rows, prints = [], set()
    for engine in chosen.engines:
        net: dict[int, float] = {}
        best: dict[int, common.Took] = {}
        for _ in range(chosen.repeats):
            for workers in (1, 2):
                output = common.SCRATCH / f"scale-{engine}-{workers}"
                took, result, memory = launch(
                    common.pipeline(source, output, common.ALPHA), workers=workers, **ENGINES[engine]
                )
                best[workers] = min(best.get(workers, took), took, key=lambda each: each.seconds)
                prints.add((result["fingerprint"], result["layout"]))
                shutil.rmtree(output)
        for workers, took in best.items():
            begun = min(start_up(engine, workers, 2), key=lambda each: each.seconds)
            net[workers] = took.seconds - begun.seconds
            efficiency = f"{net[1] / (2 * net[2]):.2f}" if workers == 2 else ""
            rows.append([engine, workers, *took, begun.seconds, net[workers], memory.peak / 1e6, efficiency])
    assert len(prints) == 1, "every engine gives the same version"
    print(f"PEP history, {chosen.variants} x 336 MB of text in 16 JSONL.gz files; best of {chosen.repeats}")
    common.table(rows, ["engine", "workers", "seconds", "CPU s", "start-up", "net", "peak MB", "efficiency"])
    print(f"fingerprint and layout the same for all: {next(iter(prints))[0]}\n")


if __name__ == "__main__":
    main()
