"""Quantiles of the values of a column, as numpy and pandas interpolate them."""

from __future__ import annotations

import math
from typing import Any, Literal

from gristmill.validators.ordered import Ordered

Interpolation = Literal["linear", "lower", "higher", "midpoint", "nearest"]


def quantile(ordered: Ordered, share: float, interpolation: Interpolation) -> Any:
    """The quantile at a share of 0 to 1; None for no values. `nearest` takes the even rank half-way, as numpy does."""
    count = ordered.nonnull
    if not count:
        return None
    place = share * (count - 1)
    low, high = math.floor(place), math.ceil(place)
    if interpolation in ("lower", "higher", "nearest"):
        rank = {"lower": low, "higher": high, "nearest": round(place)}[interpolation]
        return ordered.at([rank])[rank]
    values = ordered.at([low, high])
    below, above = values[low], values[high]
    if interpolation == "midpoint":
        return (below + above) / 2 if low != high else below
    part = place - low
    if below == above:
        return float(below)
    return above - (above - below) * (1 - part) if part >= 0.5 else below + (above - below) * part
