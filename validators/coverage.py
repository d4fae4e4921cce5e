"""Whether there is enough of everything: rows by slice or combination of values, and the balance of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pyarrow as pa

from gristmill.errors import UsageError, capped
from gristmill.validators.inputs import Data

SLICES = 1 << 20  # combinations counted at most


def slice_counts(data: Data, columns: Sequence[str]) -> dict[tuple[Any, ...], int]:
    """The rows of each combination of values that occurs, nulls among them. One pass over these columns.

    Raises:
        ColumnError: no such column.
        UsageError: more than 2^20 combinations: no columns to slice by.
    """
    for name in columns:
        data.check_column(name, data.name)
    total: pa.Table | None = None
    for batch in data.batches(list(columns)):
        table = pa.table({str(i): _plain(batch.table[name]) for i, name in enumerate(columns)})
        found = table.group_by(table.column_names, use_threads=False).aggregate([([], "count_all")])
        if total is not None:
            both = pa.concat_tables([total, found])
            found = both.group_by(table.column_names, use_threads=False).aggregate([("count_all", "sum")])
            found = found.rename_columns([*table.column_names, "count_all"])
        total = found
        if total.num_rows > SLICES:
            raise UsageError(
                f"{data.name}: {capped(columns)} have over {SLICES:,} combinations of values; slice by columns with fewer"
            )
    if total is None:
        return {}
    keys = zip(*[total[str(i)].to_pylist() for i in range(len(columns))], strict=True)
    return dict(zip(keys, total["count_all"].to_pylist(), strict=True))


def thin_slices(
    counts: Mapping[tuple[Any, ...], int], least: int, expected: Sequence[Sequence[Any]] | None = None
) -> list[tuple[tuple[Any, ...], int]]:
    """The combinations with under `least` rows, fewest first. expected: for each column the values whose combinations must all be there."""
    combinations = list(product(*expected)) if expected is not None else list(counts)
    thin = [(values, counts.get(values, 0)) for values in combinations if counts.get(values, 0) < least]
    return sorted(thin, key=lambda pair: (pair[1], str(pair[0])))


def class_shares(counts: Mapping[tuple[Any, ...], int]) -> dict[Any, float]:
    """The share of each class among the rows that have one, largest first."""
    known = {values[0]: count for values, count in counts.items() if values[0] is not None}
    total = sum(known.values())
    return {value: count / total for value, count in sorted(known.items(), key=lambda pair: (-pair[1], str(pair[0])))}


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
