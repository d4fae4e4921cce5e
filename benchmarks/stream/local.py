"""Local data: rows a second, time to the first batch, memory and quality of the shuffle, beside the plain loop and other loaders."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import table
from benchmarks.stream import data
from benchmarks.stream.measure import OURS, Measured, call, distinct_groups, ideal_groups, run

BATCH = 512
LIMIT = 10.0  # seconds an epoch
PROBE = 2.0  # seconds in which each number of workers is tried
WORKERS = (0, 2)
CONVERT_SECONDS = 400.0
HEAD = ("loader", "rows/s", "2nd epoch", "first batch s", "CPU s/100k", "peak MB", "row groups/batch", "copy: s", "MB")
PEERS = {
    "tokens": ("litdata-tokens", "litdata", "litdata-parquet", "mosaic", "webdataset", "hf-map", "hf-streaming"),
    "tokens-uncompressed": ("litdata-tokens",),
    "text": ("litdata", "litdata-parquet", "mosaic", "webdataset", "hf-map", "hf-streaming"),
    "table": ("litdata", "litdata-parquet", "mosaic", "webdataset", "hf-map", "hf-streaming"),
}


def compare(case: str, peers: str | None, scale: float, only: Sequence[str] = ()) -> None:
    """Prints the table of a case."""
    folder = data.dataset(case, scale)
    groups = data.row_groups(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(
        f"{case}: {groups.sum():,} rows in {len(groups)} row groups, {size / 1e6:.0f} MB of Parquet; batches of {BATCH}; a shuffle of all rows draws on {ideal_groups(groups, BATCH):.1f} row groups a batch"
    )
    rows = Rows()
    try:
        for name, arguments in (
            ("pyarrow, plain loop", ["pyarrow"]),
            *((f"gristmill, {kept} MB", ["gristmill", "--shuffle-bytes", str(kept << 20)]) for kept in (1024, 256, 64)),
        ):
            if not only or arguments[0] in only:
                rows.append(
                    line(
                        name,
                        lambda arguments=arguments: run(OURS, "ours.py", [*arguments, *settings(folder, LIMIT)]),
                        groups,
                    )
                )
        for peer in PEERS[case] if peers else ():
            if not only or peer in only:
                rows.append(of_peer(peers, peer, folder, groups))
    finally:  # what is known, also if the rest is stopped
        table(rows, HEAD)


class Rows(list[list[Any]]):
    """The rows of a table; each is told on stderr as soon as it is there."""

    def append(self, row: list[Any]) -> None:
        super().append(row)
        print("  ...", *row, file=sys.stderr, flush=True)


def settings(folder: Path, limit: float, batch: int = BATCH) -> list[str]:
    """The arguments that all loaders share."""
    return ["--data", str(folder), "--batch", str(batch), "--limit", str(limit)]


def line(name: str, measure: Any, groups: Any, copy: Sequence[Any] = ("", ""), batch: int = BATCH) -> list[Any]:
    """A row of the table, or why there is none."""
    try:
        found: Measured = measure()
    except RuntimeError as error:
        return [name, f"failed: {error}"[:90], *[""] * 6, *copy][: len(HEAD)]
    return [
        name,
        int(found.rate),
        int(found.again),
        found.first,
        found.cpu,
        found.peak // 1_000_000,
        distinct_groups(found.batches, groups, batch),
        *copy,
    ]


def of_peer(
    python: str, peer: str, folder: Path, groups: Any, *, batch: int = BATCH, limit: float = LIMIT
) -> list[Any]:
    """The row of a peer with the number of workers that was fastest in a short trial."""
    try:
        copy, seconds = converted(python, peer, folder)
    except RuntimeError as error:
        return [peer, f"failed: {error}"[:90], *[""] * 7]
    where = ["read", peer, "--copy", str(copy)]
    size = sum(file.stat().st_size for file in copy.rglob("*") if file.is_file())
    workers, _ = max(
        (
            (number, trial(python, [*where, "--workers", str(number), *settings(folder, PROBE, batch)]))
            for number in WORKERS
        ),
        key=lambda pair: pair[1],
    )
    measure = lambda: run(python, "peers.py", [*where, "--workers", str(workers), *settings(folder, limit, batch)])
    return line(f"{peer}, {workers} workers", measure, groups, (round(seconds, 1), size // 1_000_000), batch)


def trial(python: str, arguments: Sequence[str]) -> float:
    """Rows a second in the second of two short epochs; 0 if it fails."""
    try:
        return run(python, "peers.py", arguments, seconds=60).again
    except RuntimeError:
        return 0.0


def converted(python: str, peer: str, folder: Path) -> tuple[Path, float]:
    """(the peer's copy of the rows, how many seconds it took to write)."""
    copy = folder.parent / f"{folder.name.removesuffix('-uncompressed')}-{peer}"
    done = copy.with_suffix(".done")
    if not done.exists():
        shutil.rmtree(copy, ignore_errors=True)
        found, _ = call(
            python, "peers.py", ["convert", peer, "--data", str(folder), "--copy", str(copy)], CONVERT_SECONDS
        )
        done.write_text(str(found["seconds"]))
    return copy, float(done.read_text())
