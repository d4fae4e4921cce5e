"""Rows that two splits share: the same content, or text that is nearly the same, each pair verified."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.errors import ColumnError
from gristmill.kernels.digests import row_digests
from gristmill.kernels.jaccard import pairs
from gristmill.kernels.minhash import band_keys, bands, signatures
from gristmill.kernels.shingles import shingle_sets
from gristmill.validators.inputs import Data

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
EXAMPLES = 20
VERIFIED_ROWS = 4096  # pairs are verified so many rows at a time: their shingles are in memory then
PERMUTATIONS = 112


@dataclass(frozen=True)
class Leak:
    """Rows of `split` that are in `other` too. examples: (row of split, row of other, similarity), numbered from 0 in their splits.

    left_out: comparisons that were not made because too many rows share a bucket; 0: none.
    """

    split: str
    other: str
    rows: int
    of: int
    examples: list[tuple[int, int, float]]
    left_out: int = 0

    @property
    def share(self) -> float:
        """The share of the split's rows that leak."""
        return self.rows / self.of if self.of else 0.0


def shared_rows(splits: Mapping[str, Data], columns: Sequence[str] | None = None) -> list[Leak]:
    """The rows of each smaller split whose content (of the columns; all but those with _ in front for None) is in a larger one, by pair.

    Content is compared by 128-bit digests, 16 bytes a row in memory; null equals null.

    Raises:
        ColumnError: no such column.
    """
    digests = {name: _digests(data, columns) for name, data in splits.items()}
    return [_shared(*_ordered(one, other, digests), digests) for one, other in itertools.combinations(digests, 2)]


def near_duplicates(
    splits: Mapping[str, Data], column: str, threshold: float = 0.8, shingle: int = 5, max_bucket: int = 256
) -> list[Leak]:
    """The rows of each smaller split whose text is at least `threshold` similar (Jaccard of word shingles) to one in a larger split, by pair.

    Candidates come from MinHash bands that find a pair at the threshold with probability .98; each is verified on the full text, which is
    read again. In memory: 8 bytes for each band and row (at .8 104). Rows of a bucket beyond `max_bucket` are not compared, but counted.

    Raises:
        ColumnError: no such column, or one that holds no text.
    """
    for data in splits.values():
        data.check_column(column, data.name)
        if not _is_text(data.schema.field(column).type):
            text = f"{data.name}: column '{column}' is {data.schema.field(column).type}, expected text"
            raise ColumnError(text, column=column)
    count, width = bands(threshold, PERMUTATIONS)
    keys = {name: _band_keys(data, column, shingle, count, width) for name, data in splits.items()}
    found = []
    for one, other in itertools.combinations(splits, 2):
        small, large = _ordered(one, other, {name: rows for name, (rows, _) in keys.items()})
        candidates, left_out = _candidates(keys[small], keys[large], max_bucket)
        similar = _verified(splits[small], splits[large], column, shingle, threshold, candidates)
        rows = np.unique([row for row, _, _ in similar])
        found.append(Leak(small, large, len(rows), splits[small].num_rows, _first_of_each(similar), left_out))
    return found


def _ordered(one: str, other: str, rows: Mapping[str, Any]) -> tuple[str, str]:
    return (one, other) if len(rows[one]) < len(rows[other]) else (other, one)


def _digests(data: Data, columns: Sequence[str] | None) -> U64:
    names = [name for name in data.columns if not name.startswith("_")] if columns is None else list(columns)
    for name in names:
        data.check_column(name, data.name)
    parts = [row_digests(batch.table.select(names)) for batch in data.batches(names)]
    return np.concatenate([np.zeros((0, 2), np.uint64), *parts])


def _shared(small: str, large: str, digests: Mapping[str, U64]) -> Leak:
    mine, theirs = digests[small], digests[large]
    order = np.lexsort((theirs[:, 0], theirs[:, 1]))
    low, high = theirs[order, 1], theirs[order, 0]
    at = np.searchsorted(low, mine[:, 1])
    open_rows = np.arange(len(mine))
    found = np.full(len(mine), -1, np.int64)
    while len(open_rows):  # more than once only where different rows have the same lower half
        place = at[open_rows]
        inside = place < len(low)
        open_rows, place = open_rows[inside], place[inside]
        same = low[place] == mine[open_rows, 1]
        open_rows, place = open_rows[same], place[same]
        hit = high[place] == mine[open_rows, 0]
        found[open_rows[hit]] = order[place[hit]]
        open_rows = open_rows[~hit]
        at[open_rows] += 1
    rows = np.flatnonzero(found >= 0)
    examples = [(int(row), int(found[row]), 1.0) for row in rows[:EXAMPLES]]
    return Leak(small, large, len(rows), len(mine), examples)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _band_keys(data: Data, column: str, shingle: int, count: int, width: int) -> tuple[I64, U64]:
    """(numbers of the rows that have words, their band keys)."""
    rows, keys = [np.zeros(0, np.int64)], [np.zeros((0, count), np.uint64)]
    empty = signatures(pa.array([""]), shingle, PERMUTATIONS)[0]
    for batch in data.batches([column]):
        signature = signatures(batch.table[column], shingle, PERMUTATIONS)
        worded = ~(signature == empty).all(axis=1)
        rows.append(np.flatnonzero(worded) + batch.first)
        keys.append(band_keys(signature[worded], count, width))
    return np.concatenate(rows), np.concatenate(keys)


def _candidates(small: tuple[I64, U64], large: tuple[I64, U64], max_bucket: int) -> tuple[npt.NDArray[np.int64], int]:
    """((pairs, 2): rows of both that share a band; comparisons left out)."""
    found = [np.zeros((0, 2), np.int64)]
    left_out = 0
    for band in range(small[1].shape[1]):
        mine, theirs = small[1][:, band], large[1][:, band]
        order = np.argsort(theirs, kind="stable")
        low = np.searchsorted(theirs[order], mine, side="left")
        sizes = np.searchsorted(theirs[order], mine, side="right") - low
        left_out += int(np.maximum(sizes - max_bucket, 0).sum())
        sizes = np.minimum(sizes, max_bucket)
        which = np.repeat(np.arange(len(mine)), sizes)
        place = np.arange(len(which)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + low[which]
        found.append(np.stack([small[0][which], large[0][order[place]]], axis=1))
    return np.unique(np.concatenate(found), axis=0), left_out


def _verified(
    small: Data, large: Data, column: str, shingle: int, threshold: float, candidates: npt.NDArray[np.int64]
) -> list[tuple[int, int, float]]:
    """(row, row, similarity) of the candidate pairs that are similar enough."""
    found: list[tuple[int, int, float]] = []
    for part in _parts(candidates):
        rows = [np.unique(part[:, side]) for side in (0, 1)]
        texts = [data.take(numbers, [column]).table[column] for data, numbers in zip((small, large), rows, strict=True)]
        both = pa.chunked_array(
            [chunk.cast(pa.large_string()) for text in texts for chunk in text.chunks], pa.large_string()
        )
        values, offsets = shingle_sets(both, shingle)
        left = np.searchsorted(rows[0], part[:, 0])
        right = len(rows[0]) + np.searchsorted(rows[1], part[:, 1])
        similarity = pairs(values, offsets, left, right, threshold)
        found += [(int(a), int(b), float(s)) for (a, b), s in zip(part, similarity, strict=True) if s >= threshold]
    return found


def _parts(candidates: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(candidates), VERIFIED_ROWS):
        yield candidates[start : start + VERIFIED_ROWS]


def _first_of_each(similar: Sequence[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
    """The most similar pair of each of the first rows."""
    best: dict[int, tuple[int, int, float]] = {}
    for pair in similar:
        if pair[0] not in best or pair[2] > best[pair[0]][2]:
            best[pair[0]] = pair
    return [best[row] for row in sorted(best)[:EXAMPLES]]
