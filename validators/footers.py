"""States that a Parquet footer gives exactly, so that no row is read for them."""

from __future__ import annotations

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
    place, dtype = shard.footer_columns.get(state.columns[0], (-1, None))
    kind = kind_of(dtype)
    if place < 0 or kind in ("float", "object"):
        return None
    chunks = [footer.row_group(i).column(place).statistics for i in range(footer.num_row_groups)]
    if any(chunk is None for chunk in chunks):
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
