"""Speed and quality of the near-duplicate kernels, one process and one thread: `python benchmarks/minhash.py`.

Real text is read from `../shared/data` beside the checkout; without it the parts that need it say so and are left out.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.kernels.buffers import slices
from gristmill.kernels.jaccard import pairs
from gristmill.kernels.minhash import band_keys, bands, candidate_probability, signatures, sketches
from gristmill.kernels.resolve import links, resolve
from gristmill.kernels.shingles import shingle_sets

DATA = Path(__file__).resolve().parents[1] / "../shared/data/text"
THRESHOLDS = (0.9, 0.8, 0.7, 0.5)
STATED = {
    0.9: 131,
    0.8: 316,
    0.7: 533,
    0.5: 886,
    0.3: 1457,
}  # pairs of licences that the data's README counts, lower bounds
COLD = """
import sys, time
import pyarrow as pa
start = time.perf_counter()
from gristmill.kernels.minhash import band_keys, sketches
from gristmill.kernels.resolve import components, links, resolve
from gristmill.kernels.jaccard import pairs
import numpy as np
text, none = pa.array(["one two three"] * 2), np.zeros(1, np.int64)
found = sketches(text)
keys = band_keys(found.signatures, 13, 6)
resolve(keys, found.values, found.offsets, 0.8), components(none, none, 1), pairs(found.values, found.offsets, none, none)
links(keys, found.values, found.offsets, 0.5)
print(f"{time.perf_counter() - start:.1f}")
"""


def main() -> None:
    print(f"command    {' '.join([Path(sys.executable).name, *sys.argv])}")
    print(f"machine    {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(
        f"versions   Python {platform.python_version()}, numba {numba.__version__}, numpy {np.__version__}, pyarrow {pa.__version__}"
    )
    cold_start()
    for name, part in {
        "peps_history/peps.parquet": speed,
        "spdx_licences": licences,
        "onestop": reading_levels,
    }.items():
        if (DATA / name).exists():
            part(DATA / name)
        else:
            print(f"\n{name}: left out, no such data beside the checkout (../shared/data/text)")


def cold_start() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for state in ("cold", "warm"):
            ran = subprocess.run(
                [sys.executable, "-c", COLD],
                env={**os.environ, "NUMBA_CACHE_DIR": folder},
                capture_output=True,
                text=True,
                check=True,
            )
            print(f"{state} start of all kernels {ran.stdout.strip()} s")


def best(function: Callable[[], Any], times: int = 5) -> tuple[float, Any]:
    """(seconds of the fastest call, its result)."""
    least, result = float("inf"), None
    for _ in range(times):
        start = time.perf_counter()
        result = function()
        least = min(least, time.perf_counter() - start)
    return least, result


def speed(path: Path) -> None:
    table = pq.read_table(path, columns=["text", "doc"])
    table = table.take(np.random.default_rng(7).permutation(len(table)))
    text = table["text"].cast(pa.large_string()).combine_chunks()
    rows = slices(text)
    size = (rows.offsets[-1] - rows.offsets[0]) / 1e6
    print(f"\nPEP history, shuffled: {len(text)} documents, {size:.0f} MB of text; best of 5, one thread")
    for name, call in {
        "signatures, 112 permutations": lambda: signatures(rows),
        "shingle sets": lambda: shingle_sets(rows),
        "signatures and shingle sets": lambda: sketches(rows),
    }.items():
        seconds, found = best(call)
        print(f"  {name:30s}{seconds:7.2f} s {size / seconds:6.0f} MB/s")
    for threshold, act in ((0.8, resolve), (0.5, resolve), (0.5, links)):
        count, width = bands(threshold)
        taken, keys = best(lambda: band_keys(found.signatures, count, width))
        more, result = best(lambda: act(keys, found.values, found.offsets, threshold))
        what = (
            f"removed {(result.kept_by >= 0).sum()}"
            if act is resolve
            else f"components {len(np.unique(result.labels))}"
        )
        print(
            f"  {act.__name__} at {threshold}, {count} bands of {width}: keys {taken:.2f} s, {act.__name__} {more:.2f} s, with sketches "
            f"{seconds + taken + more:.2f} s; {what}, comparisons {result.comparisons}, capped {result.capped}"
        )
    history_recall(found, table["doc"].to_numpy(), 0.8)


def history_recall(found: Any, family: np.ndarray, threshold: float) -> None:
    """All pairs of kept rows are compared; all pairs of versions of one PEP stand for all similar pairs, of which there are more."""
    kept_by = resolve(band_keys(found.signatures, *bands(threshold)), found.values, found.offsets, threshold).kept_by
    kept = np.flatnonzero(kept_by < 0)
    left, right = np.triu_indices(len(kept), 1)
    missed = int((pairs(found.values, found.offsets, kept[left], kept[right], threshold) > 0).sum())
    every = 0
    for members in np.split(np.argsort(family), np.cumsum(np.unique(family, return_counts=True)[1])[:-1]):
        left, right = np.triu_indices(len(members), 1)
        every += int((pairs(found.values, found.offsets, members[left], members[right], threshold) > 0).sum())
    print(
        f"  at {threshold}: of at least {every} similar pairs {missed} are both kept, recall {1 - missed / every:.5f}"
    )


def texts(folder: Path) -> tuple[list[str], pa.Array]:
    """(names, texts) of the files of a folder; what is not UTF-8 is replaced."""
    files = sorted(folder.glob("*.txt"))
    return [file.stem for file in files], pa.array([file.read_bytes().decode("utf-8", "replace") for file in files])


def licences(folder: Path) -> None:
    names, text = texts(folder)
    found = sketches(text)
    left, right = np.triu_indices(len(text), 1)
    exact = pairs(found.values, found.offsets, left, right)
    counts = ", ".join(f"J >= {t}: {(exact >= t).sum()} (README {stated})" for t, stated in STATED.items())
    print(f"\nSPDX licences: {len(names)} texts, brute force over all pairs; pairs {counts}")
    print(
        "  threshold  bands x entries  pairs  P(.) at it  expected  candidates found  false candidates  removed  both kept  recall"
    )
    for threshold in THRESHOLDS:
        count, width = bands(threshold)
        keys = band_keys(found.signatures, count, width)
        candidate = (keys[left] == keys[right]).any(axis=1)
        like = exact >= threshold
        kept = resolve(keys, found.values, found.offsets, threshold).kept_by < 0
        missed = int((like & kept[left] & kept[right]).sum())
        at = float(candidate_probability(threshold, count, width))
        expected = float(candidate_probability(exact[like], count, width).mean())
        print(
            f"  {threshold:9}  {f'{count} x {width}':>15s}  {like.sum():5d}  {at:10.4f}  {expected:8.4f}  {(like & candidate).sum() / like.sum():16.4f}"
            f"  {(candidate & ~like).sum():16d}  {(~kept).sum():7d}  {missed:9d}  {1 - missed / like.sum():.4f}"
        )


def reading_levels(folder: Path) -> None:
    levels = {name: texts(folder / name) for name in ("adv", "int", "ele", "int_copy")}
    labels = [f"{level}/{name.rsplit('-', 1)[0]}" for level, (names, _) in levels.items() for name in names]
    text = pa.concat_arrays([found for _, found in levels.values()])
    found = sketches(text)
    left, right = np.triu_indices(len(text), 1)
    exact = pairs(found.values, found.offsets, left, right)
    count, width = bands(0.8)
    result = resolve(band_keys(found.signatures, count, width), found.values, found.offsets, 0.8)
    gone = np.flatnonzero(result.kept_by >= 0)
    merged = [(labels[row], labels[result.kept_by[row]], round(float(result.similarity[row]), 3)) for row in gone]
    copies = [pair for pair in merged if pair[0].startswith("int_copy/")]
    others = [pair for pair in merged if not pair[0].startswith("int_copy/")]
    level = np.array([label.split("/")[0] for label in labels])
    across = (level[left] != level[right]) & (level[left] != "int_copy") & (level[right] != "int_copy") & (exact >= 0.8)
    like = exact >= 0.8
    kept = result.kept_by < 0
    near = [
        (exact[k], labels[left[k]], labels[right[k]])
        for k in np.flatnonzero(level[right] == "int_copy")
        if level[left[k]] == "int"
    ]
    near = [j for j, one, other in near if one.split("/")[1] == other.split("/")[1]]
    print(
        f"\nOneStopEnglish at .8: {len(text)} texts; int_copy {len(levels['int_copy'][0])}, of which {sum(j >= 0.8 for j in near)} have J >= .8 with their original"
    )
    print(
        f"  copies removed {len(copies)}; pairs of reading levels with J >= .8 by brute force {across.sum()}; rows of a level removed {len(others)} {others[:5]}"
    )
    print(f"  pairs with J >= .8: {like.sum()}, both kept {(like & kept[left] & kept[right]).sum()}")


if __name__ == "__main__":
    main()
