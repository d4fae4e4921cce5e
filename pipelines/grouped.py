"""Groups of rows that are gone through table by table: which keys repeat, the first row of each group. Memory grows with groups, not with rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.kernels.tally import Tally

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


def repeated(tables: Iterable[pa.Table]) -> tuple[U64, int]:
    """(the values of `key` that more than one row has, sorted; how many rows have the most frequent one)."""
    tally = Tally()
    for table in tables:
        tally.add(table["key"].to_numpy(), np.zeros(table.num_rows, np.int64))
    return tally.repeated()[0], tally.most


def least(keys: I64, values: I64) -> tuple[I64, I64]:
    """(the different keys, sorted; the least value of each)."""
    order = np.lexsort((values, keys))
    starts = heads_of(keys[order])
    return keys[order][starts], values[order][starts]


def distinct_pairs(left: I64, right: I64) -> tuple[I64, I64]:
    """Each different pair once, sorted."""
    order = np.lexsort((right, left))
    left, right = left[order], right[order]
    once = heads_of(left) | heads_of(right)
    return left[once], right[once]


def place_of_pairs(left: I64, right: I64, among: tuple[I64, I64]) -> I64:
    """For each pair the place of an equal one in `among`, -1 where there is none."""
    every = [np.concatenate([others, own]) for others, own in zip(among, (left, right), strict=True)]
    order = np.lexsort((every[1], every[0]))  # stable: those of `among` come first
    starts = np.flatnonzero(heads_of(every[0][order]) | heads_of(every[1][order]))
    place = np.empty(len(order), np.int64)
    place[order] = np.repeat(order[starts], np.diff(np.append(starts, len(order))))
    found = place[len(among[0]) :]
    return np.where(found < len(among[0]), found, -1)


def heads_of(values: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """Where a sorted array has another value than before."""
    starts = np.ones(len(values), bool)
    starts[1:] = values[1:] != values[:-1]
    return starts


def among(table: pa.Table, keys: U64) -> pa.Table:
    """The rows whose `key` is one of these sorted keys."""
    if not len(keys):
        return table.slice(0, 0)
    found = table["key"].to_numpy()
    place = np.minimum(np.searchsorted(keys, found), len(keys) - 1)
    return table.filter(pa.array(keys[place] == found))


def first_of_each(
    tables: Iterable[pa.Table], group: Sequence[str], order: Sequence[tuple[str, str]]
) -> pa.Table | None:
    """The first row, by `order`, of each group of rows that are equal in the columns `group`; sorted by these. None without rows."""
    best: pa.Table | None = None
    by = [*[(name, "ascending") for name in group], *order]
    for table in tables:
        if table.num_rows:
            every = (table if best is None else pa.concat_tables([best, table])).sort_by(by)
            best = every.filter(pa.array(heads(every, group)))
    return best


def heads(table: pa.Table, group: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Where a group begins, in a table sorted by its columns, which hold no nulls."""
    starts = np.zeros(table.num_rows, bool)
    starts[:1] = True
    for name in group:
        column = table[name].combine_chunks()
        starts[1:] |= pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    return starts


def place_in(groups: pa.Table, rows: pa.Table, group: Sequence[str]) -> I64:
    """For each row the number of the row of `groups` that equals it in the columns `group`. There must be one."""
    every = pa.concat_tables([groups.select(group), rows.select(group)])
    order = pc.sort_indices(
        every, [(name, "ascending") for name in group]
    ).to_numpy()  # stable: the group's row comes first
    starts = np.flatnonzero(heads(every.take(pa.array(order)), group))
    place = np.empty(every.num_rows, np.int64)
    place[order] = np.repeat(order[starts], np.diff(np.append(starts, every.num_rows)))
    return place[groups.num_rows :]
