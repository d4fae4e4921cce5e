"""Validation beside others: `python benchmarks/validate/run.py [--peers PYTHON] [--rows 2000000] [--large 10000000 50000000]`.

Twenty expectations on eight columns (`data.py`), from Parquet and from Arrow in memory, no stored states. --peers names a Python that has duckdb, pandera,
great_expectations and pyspark; each runs in its own process, and those that it lacks are left out. --large: more rows, gristmill and DuckDB only. --rows 0: only these. Wall time is the
best of some runs; on a machine that does other work too, compare the CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from benchmarks.validate.data import SUITE, table  # noqa: E402


def write(folder: Path, rows: int, per_file: int = 1_000_000) -> Path:
    import pyarrow.parquet as pq

    place = folder / str(rows)
    place.mkdir()
    for start in range(0, rows, per_file):
        pq.write_table(
            table(min(per_file, rows - start), start),
            place / f"{start:012d}.parquet",
            compression="zstd",
            compression_level=1,
            row_group_size=65536,
        )
    return place


class Held:
    """The most memory of its own that this process holds, in MB, looked at every 20 ms: pages of mapped files, which the system may drop, aside."""

    def __init__(self) -> None:
        self.most = 0
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    self.most = max(self.most, int(line.split()[1]) // 1024)
            time.sleep(0.02)


def one(what: str, place: str, runs: int) -> dict:
    """In this process: times of `runs` validations, CPU seconds of the best, peak memory."""
    from gristmill.validators.api import validate

    data: object = place
    if what == "memory":
        import pyarrow.parquet as pq

        data = pq.read_table(place).combine_chunks()
    found = []
    held = Held()
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_SELF)
        started = time.perf_counter()
        verdict = validate(data, SUITE)
        seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_SELF)
        found.append((seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    return {
        "times": [seconds for seconds, _ in found],
        "cpu": min(cpu for _, cpu in found),
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "said": f"{verdict.statistics['successful_expectations']} of 20 met; {held.most} MB without mapped files",
    }


def new_shard(folder: Path, rows: int) -> dict:
    """A dataset version validated with its states kept, then one with a shard of 1% more."""
    import gristmill
    from gristmill.storage.folder import open_folder
    from gristmill.storage.parquet import ParquetSettings, ShardWriter
    from gristmill.storage.versions import publish

    place = open_folder(str(folder / "dataset"))

    def shards(start: int, count: int) -> list:
        made = table(count, start)
        with ShardWriter(place, ParquetSettings(row_group_rows=65536), made.schema, shard_bytes=64 << 20) as writer:
            writer.write(made)
        return writer.files

    files = [file for start in range(0, rows, 500_000) for file in shards(start, 500_000)]
    publish(place, files, table(1).schema, expected_parent=None)
    cold = clock(lambda: gristmill.validate(gristmill.open_dataset(place), SUITE))
    again = clock(lambda: gristmill.validate(gristmill.open_dataset(place), SUITE))
    files += shards(rows, rows // 100)
    publish(place, files, table(1).schema, expected_parent=1)
    more = clock(lambda: gristmill.validate(gristmill.open_dataset(place), SUITE))
    return {"all": cold, "again": again, "one percent more": more}


def clock(call) -> dict:
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    call()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": round(time.perf_counter() - started, 3),
        "cpu": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 3),
    }


def child(python: str, script: Path, *arguments: str) -> dict | None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run([python, "-W", "ignore", str(script), *arguments], capture_output=True, text=True, check=False)
    if run.returncode:
        print(
            f"  {arguments[0]}: {run.stderr.strip().splitlines()[-1] if run.stderr.strip() else 'failed'}", flush=True
        )
        return None
    found = json.loads(run.stdout.strip().splitlines()[-1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found["process_cpu"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found


def show(name: str, found: dict | None) -> None:
    if found:
        cpu = f"{found['cpu']:8.2f}" if "cpu" in found else "       -"
        print(
            f"{name:32} {min(found['times']):9.2f} s {cpu} s CPU {found['rss_mb']:6} MB   {found['said']}   {[round(t, 2) for t in found['times']]}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--large", type=int, nargs="*", default=[])
    parser.add_argument("--no-slow-peers", action="store_true")
    parser.add_argument("--one", nargs=3)
    arguments = parser.parse_args()
    if arguments.one:
        what, place, runs = arguments.one
        print(json.dumps(one(what, place, int(runs))))
        return
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, pyarrow {version('pyarrow')}, {arguments.rows:,} rows",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        if arguments.rows:
            place = write(Path(folder), arguments.rows)
            show(
                "gristmill, Arrow in memory", child(sys.executable, Path(__file__), "--one", "memory", str(place), "5")
            )
            show("gristmill, Parquet", child(sys.executable, Path(__file__), "--one", "parquet", str(place), "5"))
            if arguments.peers:
                peers = [("duckdb", 5), ("pandera", 2)] + (
                    [] if arguments.no_slow_peers else [("gx_pandas", 2), ("gx_spark", 1)]
                )
                for name, runs in peers:
                    show(name, child(arguments.peers, HERE / "peers.py", name, f"{place}", str(runs)))
            print("a new shard of 1%:", new_shard(Path(folder), arguments.rows), flush=True)
        for rows in arguments.large:
            place = write(Path(folder), rows)
            ours = child(sys.executable, Path(__file__), "--one", "parquet", str(place), "1")
            show(f"gristmill, Parquet, {rows:,} rows", ours)
            if arguments.peers:
                show(f"duckdb, {rows:,} rows", child(arguments.peers, HERE / "peers.py", "duckdb", f"{place}", "1"))


if __name__ == "__main__":
    main()
