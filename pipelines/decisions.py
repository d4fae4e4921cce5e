"""The decisions table: what a step did to which row and why. Every step returns one; the ledger is made of them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa

Action = Literal["drop", "edit", "quarantine", "create"]

SCHEMA = pa.schema(
    [
        pa.field("uid", pa.large_string(), nullable=False),
        pa.field("action", pa.string(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("value", pa.float64()),  # what was measured; null where the rule measures nothing
        pa.field("threshold", pa.float64()),  # what it was compared with
        pa.field(
            "other_uid", pa.large_string()
        ),  # the row that this one was compared with: for a duplicate, the kept one
        pa.field("similarity", pa.float64()),  # verified Jaccard similarity to `other_uid`
    ]
)


def decide(
    uids: pa.Array | pa.ChunkedArray,
    action: Action,
    rule: str,
    *,
    value: Any = None,
    threshold: float | None = None,
    other_uid: pa.Array | None = None,
    similarity: Any = None,
) -> pa.Table:
    """One decision a uid, in the order given. `value` and `similarity` are arrays as long as `uids` (or None)."""
    n = len(uids)
    columns = [
        _column(uids, pa.large_string()),
        pa.repeat(pa.scalar(action), n),
        pa.repeat(pa.scalar(rule), n),
        _floats(value, n),
        pa.repeat(pa.scalar(threshold, pa.float64()), n),
        pa.nulls(n, pa.large_string()) if other_uid is None else _column(other_uid, pa.large_string()),
        _floats(similarity, n),
    ]
    return pa.table(columns, schema=SCHEMA)


def none() -> pa.Table:
    """No decisions."""
    return SCHEMA.empty_table()


def _column(array: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    return array if array.type == kind else array.cast(kind)


def _floats(values: Any, n: int) -> pa.Array:
    if values is None:
        return pa.nulls(n, pa.float64())
    return (
        values.cast(pa.float64())
        if isinstance(values, (pa.Array, pa.ChunkedArray))
        else pa.array(np.asarray(values, np.float64))
    )
