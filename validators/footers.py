"""States that a Parquet footer gives exactly, so that no row is read for them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from gristmill.validators.accumulators import Accumulator, Rows
from gristmill.validators.columns import kind_of
from gristmill.validators.inputs import Shard
from gristmill.validators.numbers import Extremes


def from_footer(state: Accumulator, shard: Shard) -> Accumulator | None:
    """The state of all rows of a shard, or None where its footer doesn't say.

    Counts of nulls, but not of floats, whose NaN count as null; least and greatest integers, dates and times; rows that must not be null where none is.
    """
    footer = shard.footer
    if footer is None or len(state.columns) > 1:
        return None
    if not state.columns:
        if isinstance(state, Rows):
            state.count = state.nonnull = shard.rows
            return state
        return None
    kind, chunks = _statistics(footer, state.columns[0])
    if chunks is None or kind in ("float", "object"):
        return None
    if isinstance(state, Rows) and all(chunk.has_null_count for chunk in chunks):
        state.count = shard.rows
        state.nonnull = shard.rows - sum(chunk.null_count for chunk in chunks)
        return state
    if isinstance(state, Extremes) and kind in ("int", "timestamp", "date"):
        for chunk in chunks:
            if not chunk.has_min_max:
                if not chunk.has_null_count or chunk.num_values:
                    return None
                continue
            state.take(chunk.min, chunk.max)
        return state
    return None


def _statistics(footer: Any, name: str) -> tuple[str, list[Any] | None]:
    """(family of the column's type, the statistics of each row group or None where some has none)."""
    schema = footer.schema.to_arrow_schema()
    place = schema.get_field_index(name)
    if place < 0 or any(pa.types.is_nested(field.type) for field in schema):
        return "object", None
    found = [footer.row_group(i).column(place).statistics for i in range(footer.num_row_groups)]
    return kind_of(schema.field(place).type), None if any(each is None for each in found) else found
