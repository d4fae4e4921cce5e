"""Summaries as fields to keep, and back: every attribute by its path, such as `numbers.quantiles.count`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.validators.accumulators import Fields
from gristmill.validators.sketches import Counts, HyperLogLog, Quantiles
from gristmill.validators.summaries import ColumnState, NumberState, TextState

NESTED = (ColumnState, NumberState, TextState, Counts, Quantiles, HyperLogLog)
PLAIN = (int, float, str, type(None))
MADE = {"_estimate": HyperLogLog}  # what a new state may lack


def freeze(state: Any, prefix: str = "") -> Fields:
    """{path: plain value or array}. Types, which a new state of the same column has too, are left out."""
    fields: Fields = {}
    for name, value in vars(state).items():
        path = prefix + name
        if isinstance(value, NESTED):
            fields |= freeze(value, f"{path}.")
        elif name == "levels":
            fields |= {f"{path}.{number}": array for number, array in enumerate(value)}
        elif isinstance(value, np.generic):
            fields[path] = value.item()
        elif isinstance(value, (*PLAIN, list, np.ndarray, pa.Array)):
            fields[path] = value
        elif not isinstance(value, pa.DataType):
            fields[path] = pa.array([value])  # a date, time or decimal
    return fields


def thaw(state: Any, fields: Fields, prefix: str = "") -> None:
    """Makes a new state of the same column what it was. Raises KeyError for fields of another kind of state."""
    for name, value in vars(state).items():
        path = prefix + name
        made = MADE[name]() if value is None and name in MADE and f"{path}.registers" in fields else value
        if isinstance(made, NESTED):
            setattr(state, name, made)
            thaw(made, fields, f"{path}.")
        elif name == "levels":
            state.levels = []
            while (each := f"{path}.{len(state.levels)}") in fields:
                state.levels.append(np.array(fields[each]))
        elif name not in MADE and not isinstance(value, pa.DataType):
            kept = fields[path]
            one = isinstance(kept, pa.Array) and not isinstance(value, pa.Array)
            setattr(state, name, kept[0].as_py() if one else np.array(kept) if isinstance(kept, np.ndarray) else kept)
