"""Small SVG pictures for the report: a histogram, bars of categories, a line over versions. Plain text, no network, no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from gristmill.validators.profile import ColumnProfile, Numbers
from gristmill.validators.sketches import F64, share_below

BINS = 30
WIDTH, HEIGHT = 300, 84
BARS = 6


def column_chart(column: ColumnProfile, before: ColumnProfile | None = None) -> str:
    """The picture of a column: its most frequent values where it is a category, else how its numbers, times or lengths lie."""
    if (
        column.kind in ("text", "boolean")
        and column.top
        and (column.distinct or 0) <= max(column.present // 2, BARS)
        and not column.distinct_error
    ):
        return bars(column, before)
    if column.numbers is None or not column.numbers.count:
        return ""
    return histogram(column, column.numbers, before.numbers if before is not None else None)


def histogram(column: ColumnProfile, numbers: Numbers, before: Numbers | None) -> str:
    """Shares of the rows in equal bins; the line is the version before. Values far outside the quartiles are left out of the picture and counted."""
    windows = [_window(each) for each in (numbers, before) if each is not None and each.count]
    low, high = min(window[0] for window in windows), max(window[1] for window in windows)
    edges = _edges(low, high, whole=column.kind in ("text", "list", "binary") or "int" in column.type)
    now = _shares(numbers.points, edges)
    old = _shares(before.points, edges) if before is not None and before.count else None
    top = max(float(now.max()), float(old.max()) if old is not None else 0.0) or 1.0
    step = WIDTH / len(now)
    body = "".join(
        f'<rect x="{i * step:.1f}" y="{HEIGHT * (1 - share / top):.1f}" width="{step - 1:.1f}" height="{HEIGHT * share / top:.1f}" class="now"/>'
        for i, share in enumerate(now)
        if share
    )
    if old is not None:
        body += f'<path d="{_outline(old / top, step)}" class="old"/>'
    outside = share_below(numbers.points, low) + 1 - share_below(numbers.points, high, inclusive=True)
    note = f"{_number(column, low)}</span><span>{f'{outside:.1%} outside' if outside >= 0.0005 else ''}</span><span>{_number(column, high)}"
    label = f"distribution of {column.name}"
    return f'{_svg(body, WIDTH, HEIGHT, label)}<div class="axis"><span>{note}</span></div>'


def bars(column: ColumnProfile, before: ColumnProfile | None) -> str:
    """The most frequent values with their shares; the mark is the version before."""
    shown = column.top[:BARS]
    known = {value: count / max(before.present, 1) for value, count in before.top} if before is not None else {}
    shares = [count / max(column.present, 1) for _, count in shown]
    top = max([*shares, *[known.get(value, 0.0) for value, _ in shown]]) or 1.0
    rows = []
    for (value, _), share in zip(shown, shares, strict=True):
        mark = f'<i style="left:{100 * known[value] / top:.1f}%"></i>' if value in known else ""
        text = escape(str(value)[:40]) if str(value) else "<em>empty</em>"
        rows.append(
            f'<div class="bar"><b title="{escape(str(value)[:200])}">{text}</b><span><u style="width:{100 * share / top:.1f}%"></u>{mark}</span><q>{share:.1%}</q></div>'
        )
    more = (column.distinct or 0) - len(shown)
    return "".join(rows) + (f'<div class="axis"><span>and {more:,} more values</span></div>' if more > 0 else "")


def line(values: Sequence[float | None], *, width: int = 120, height: int = 26) -> str:
    """A line over versions; the last point is marked."""
    known = [(i, value) for i, value in enumerate(values) if value is not None and math.isfinite(value)]
    if len(known) < 2:
        return ""
    low, high = min(value for _, value in known), max(value for _, value in known)
    span = high - low or 1.0
    step = (width - 8) / max(len(values) - 1, 1)
    points = [(4 + i * step, height - 4 - (height - 8) * (value - low) / span) for i, value in known]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    return _svg(
        f'<polyline points="{path}" class="trend"/><circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="last"/>',
        width,
        height,
        "trend",
    )


def _window(numbers: Numbers) -> tuple[float, float]:
    """From the least to the greatest value, but no further than 3 interquartile ranges beyond the quartiles."""
    assert numbers.low is not None
    assert numbers.high is not None
    low, high = numbers.low, numbers.high
    if numbers.fences is not None:
        reach = (numbers.fences[1] - numbers.fences[0]) / 4  # 1 IQR
        if reach > 0:
            low, high = max(low, numbers.fences[0] - 1.5 * reach), min(high, numbers.fences[1] + 1.5 * reach)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _edges(low: float, high: float, *, whole: bool) -> F64:
    """The edges of at most BINS equal bins; of whole numbers each has as many."""
    if not whole:
        return np.linspace(low, high, BINS + 1)
    low, high = math.floor(low), math.ceil(high)
    width = -(-(high - low + 1) // BINS)
    return low - 0.5 + width * np.arange(-(-(high - low + 1) // width) + 1, dtype=np.float64)


def _shares(points: tuple[F64, F64], edges: F64) -> F64:
    below = np.array(
        [share_below(points, float(edge)) for edge in edges[:-1]]
        + [share_below(points, float(edges[-1]), inclusive=True)]
    )
    return np.maximum(np.diff(below), 0)


def _outline(shares: F64, step: float) -> str:
    parts = [f"M0,{HEIGHT}"]
    for i, share in enumerate(shares):
        y = HEIGHT * (1 - share)
        parts.append(f"L{i * step:.1f},{y:.1f}L{(i + 1) * step:.1f},{y:.1f}")
    return "".join(parts)


def _number(column: ColumnProfile, value: float) -> str:
    if column.kind == "time":
        shown = column.value(value)
        return escape(shown.isoformat(sep=" ", timespec="minutes") if hasattr(shown, "hour") else str(shown))
    return short(value) + (" characters" if column.kind == "text" else "")


def short(value: object) -> str:
    """A number as people read it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return escape(str(value))
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.4g}" if abs(value) < 1e6 else f"{value:.4g}"


def _svg(body: str, width: int, height: int, label: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{escape(label)}" preserveAspectRatio="none">{body}</svg>'
