"""Recall of near-duplicates against brute force over all pairs, on texts with known relatives: licences, news at three levels, film reviews, PEPs.

`python benchmarks/recall.py`. Recall is 1 - (pairs at or above the threshold of which both rows were kept) / (all such pairs).
"""

from __future__ import annotations

from pathlib import Path

import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.kernels.jaccard import pairs
from gristmill.kernels.minhash import Sketches, band_keys, bands, candidate_probability, sketches
from gristmill.kernels.resolve import resolve

THRESHOLDS = (0.9, 0.8, 0.7, 0.5)


def texts(folder: Path, pattern: str = "*.txt") -> tuple[list[str], pa.Array]:
    """(names, texts) of the files of a folder; what is not UTF-8 is replaced."""
    files = sorted(folder.glob(pattern))
    return [str(file.relative_to(folder)) for file in files], pa.array(
        [file.read_bytes().decode("utf-8", "replace") for file in files], pa.large_string()
    )


def kept_by(found: Sketches, threshold: float) -> np.ndarray:
    return resolve(band_keys(found.signatures, *bands(threshold)), found.values, found.offsets, threshold).kept_by


def every_pair(found: Sketches) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(left, right, exact similarity) of all pairs."""
    left, right = np.triu_indices(len(found.offsets) - 1, 1)
    return left, right, pairs(found.values, found.offsets, left, right)


def licences() -> None:
    names, text = texts(common.TEXT / "spdx_licences")
    found = sketches(text)
    left, right, exact = every_pair(found)
    rows = []
    for threshold in THRESHOLDS:
        count, width = bands(threshold)
        keys = band_keys(found.signatures, count, width)
        like, candidate = exact >= threshold, (keys[left] == keys[right]).any(axis=1)
        kept = kept_by(found, threshold) < 0
        missed = int((like & kept[left] & kept[right]).sum())
        expected = float(candidate_probability(exact[like], count, width).mean())
        wrong = int((candidate & ~like).sum())
        rows.append(
            [
                threshold,
                f"{count} x {width}",
                int(like.sum()),
                f"{expected:.4f}",
                f"{(like & candidate).sum() / like.sum():.4f}",
                wrong,
                missed,
                f"{1 - missed / like.sum():.4f}",
            ]
        )
    print(f"SPDX licences: {len(names)} texts")
    common.table(
        rows, ["threshold", "bands", "pairs", "expected candidates", "candidates", "false ones", "both kept", "recall"]
    )


def reading_levels() -> None:
    names, text = texts(common.TEXT / "onestop", "*/*.txt")
    found = sketches(text)
    left, right, exact = every_pair(found)
    level = np.array([name.split("/")[0] for name in names])
    by = kept_by(found, 0.8)
    gone = np.flatnonzero(by >= 0)
    levels_merged = [
        (names[row], names[by[row]])
        for row in gone
        if "int_copy" not in (level[row], level[by[row]]) and level[row] != level[by[row]]
    ]
    copies = [k for k in np.flatnonzero(exact >= 0.8) if {level[left[k]], level[right[k]]} == {"int", "int_copy"}]
    found_copies = sum(by[left[k]] >= 0 or by[right[k]] >= 0 for k in copies)
    print(
        f"OneStopEnglish at .8: {len(names)} texts; texts of different reading levels merged: {len(levels_merged)} {levels_merged[:3]}"
    )
    print(
        f"  pairs of a text and its near-copy with J >= .8: {len(copies)}, found {found_copies}; all pairs {int((exact >= 0.8).sum())}, ",
        end="",
    )
    kept = by < 0
    print(f"both kept {int(((exact >= 0.8) & kept[left] & kept[right]).sum())}\n")


def film_reviews() -> None:
    names, text = texts(common.TEXT / "movie_reviews", "*/*.txt")
    found = sketches(text)
    left, right, exact = every_pair(found)
    by = kept_by(found, 0.8)
    like = np.flatnonzero(exact >= 0.8)
    told = sum(by[left[k]] >= 0 or by[right[k]] >= 0 for k in like)
    rest = np.sort(exact[exact < 0.8])[-1]
    print(
        f"film reviews at .8: {len(names)} texts, {len(like)} pairs with J >= .8 (least {exact[like].min():.2f}, the next {rest:.2f}); found {told}, removed {(by >= 0).sum()}\n"
    )


def history() -> None:
    """All pairs of kept rows are compared; all pairs of versions of one PEP stand for all similar pairs, of which there are more."""
    table = pq.read_table(common.TEXT / "peps_history/peps.parquet", columns=["text", "doc"])
    found = sketches(table["text"].cast(pa.large_string()).combine_chunks())
    family = table["doc"].to_numpy()
    kept = np.flatnonzero(kept_by(found, 0.8) < 0)
    left, right = np.triu_indices(len(kept), 1)
    missed = int((pairs(found.values, found.offsets, kept[left], kept[right], 0.8) > 0).sum())
    every = 0
    for members in np.split(
        np.argsort(family, kind="stable"), np.cumsum(np.unique(family, return_counts=True)[1])[:-1]
    ):
        left, right = np.triu_indices(len(members), 1)
        every += int((pairs(found.values, found.offsets, members[left], members[right], 0.8) > 0).sum())
    print(
        f"PEP history at .8: {table.num_rows} texts, {len(kept)} kept; of at least {every} similar pairs {missed} are both kept: recall {1 - missed / every:.5f}\n"
    )


def main() -> None:
    common.header("pyarrow", "numpy", "numba")
    licences()
    reading_levels()
    film_reviews()
    history()


if __name__ == "__main__":
    main()
