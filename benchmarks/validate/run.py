"""Validation beside others: `python benchmarks/validate/run.py [--peers PYTHON] [--large 10000000 50000000] [--new-shard 2000000] [--data DIR]`.

Twenty expectations on eight columns (`data.py`), from Parquet and from Arrow in memory, no stored states; then a dataset version whose states are kept, and
one with a shard of 1% more. --peers names a Python that has duckdb, pandera, great_expectations and pyspark; each runs in its own process, at most --limit
seconds, and those that it lacks are left out. --large: more rows, gristmill and DuckDB only. --data keeps the rows for the next run. Wall time is the best
of some runs; on a machine that does other work too, compare the CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import signal
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
    if place.is_dir():
        return place
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


def new_shard(folder: Path, rows: int) -> None:
    """A dataset version validated with its states kept, then two with a shard of 1% more each."""
    import gristmill
    from gristmill.kernels.warm import warm
    from gristmill.storage.folder import open_folder
    from gristmill.storage.parquet import ParquetSettings, ShardWriter
    from gristmill.storage.versions import publish

    base = folder / f"dataset-{rows}"
    place = open_folder(str(base))

    def shards(start: int, count: int) -> list:
        made = table(count, start)
        with ShardWriter(place, ParquetSettings(row_group_rows=65536), made.schema, shard_bytes=64 << 20) as writer:
            writer.write(made)
        return writer.files

    if not base.is_dir():
        files = [file for start in range(0, rows, 500_000) for file in shards(start, 500_000)]
        for version in range(3):
            publish(place, files, table(1).schema, expected_parent=version or None)
            files = [*files, *shards(rows + version * (rows // 100), rows // 100)]
    shutil.rmtree(base / "_work", ignore_errors=True)
    warm()  # kernels are loaded, and what is imported when it is used
    gristmill.validate(table(1000), SUITE)
    without = clock(lambda: gristmill.validate(gristmill.open_dataset(place, version=1), SUITE, states=False))
    print(f"a dataset of {rows:,} rows, no states kept {without}", flush=True)
    for what, version in (("all shards, states kept", 1), ("the same again", 1), ("1% more", 2), ("and 1% more", 3)):
        found = clock(lambda version=version: gristmill.validate(gristmill.open_dataset(place, version), SUITE))
        share = ", ".join(f"{found[name] / without[name]:.1%} of {name}" for name in found)
        print(f"  {what:24} {found}   {share}", flush=True)


def clock(call) -> dict:
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    call()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": round(time.perf_counter() - started, 3),
        "CPU": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 3),
    }


def child(limit: int, python: str, script: Path, *arguments: str) -> dict | None:
    command = [python, "-W", "ignore", str(script), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        try:
            out, error = run.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            print(f"  {arguments[0]}: did not end within {limit} s", flush=True)
            return None
    if run.returncode:
        print(f"  {arguments[0]}: {error.strip().splitlines()[-1] if error.strip() else 'failed'}", flush=True)
        return None
    return json.loads(out.strip().splitlines()[-1])


def show(name: str, found: dict | None, ours: dict | None = None) -> None:
    """ours: what it is compared with."""
    if not found:
        return
    cpu = f"{found['cpu']:8.2f}" if "cpu" in found else "       -"
    times = ""
    if ours:
        times = f"{min(found['times']) / min(ours['times']):5.1f} x wall"
        times += f", {found['cpu'] / ours['cpu']:.1f} x CPU   " if "cpu" in found else "   "
    print(
        f"{name:32} {min(found['times']):9.2f} s {cpu} s CPU {found['rss_mb']:6} MB   {times}{found['said']}   {[round(t, 2) for t in found['times']]}",
        flush=True,
    )


def beside(arguments: argparse.Namespace, folder: Path, rows: int, peers: list[tuple[str, int]], runs: int) -> None:
    """Validates rows with gristmill and the peers, in a process each."""
    place = str(write(folder, rows))
    mine = (arguments.limit, sys.executable, Path(__file__), "--one")
    if runs > 1:
        show("gristmill, Arrow in memory", child(*mine, "memory", place, str(runs)))
    ours = child(*mine, "parquet", place, str(runs))
    show(f"gristmill, Parquet, {rows:,} rows", ours)
    for name, times in peers if arguments.peers else []:
        show(f"  {name}", child(arguments.limit, arguments.peers, HERE / "peers.py", name, place, str(times)), ours)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--large", type=int, nargs="*", default=[])
    parser.add_argument("--new-shard", type=int, nargs="*", default=[2_000_000])
    parser.add_argument("--data")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--no-slow-peers", action="store_true")
    parser.add_argument("--one", nargs=3)
    arguments = parser.parse_args()
    if arguments.one:
        what, place, runs = arguments.one
        print(json.dumps(one(what, place, int(runs))))
        return
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, pyarrow {version('pyarrow')}",
        flush=True,
    )
    slow = [] if arguments.no_slow_peers else [("gx_pandas", 2), ("gx_spark", 1)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.data or scratch)
        folder.mkdir(exist_ok=True)
        if arguments.rows:
            beside(arguments, folder, arguments.rows, [("duckdb", 5), ("pandera", 2), *slow], 5)
        for rows in arguments.new_shard:
            new_shard(folder, rows)
        for rows in arguments.large:
            beside(arguments, folder, rows, [("duckdb", 1)], 1)


if __name__ == "__main__":
    main()
