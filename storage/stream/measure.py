"""What a loader does on this machine: its speed, and how well it shuffles."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.storage.stream.loader import Stream

SAMPLED_BATCHES = 64


@dataclass(frozen=True)
class Measured:
    """What was measured. rows, bytes, steps: of the batches that came; bytes as tensors and text. first_batch: seconds from the start of iterating; seconds: in all.

    groups: row groups that a global batch draws on, on average; ideal: if its rows were drawn from the whole dataset at random.
    """

    rows: int
    bytes: int
    steps: int
    seconds: float
    first_batch: float
    rows_per_second: float
    bytes_per_second: float
    groups: float
    ideal: float


def measure(loader: Stream, seconds: float) -> Measured:
    """Iterates for so many seconds after the first batch, or to the end, doing nothing with the batches.

    The rates are those after the first batch, whose own time is told apart; of a single batch they are over all.
    """
    groups, ideal = shuffle_quality(loader)
    counts: list[tuple[int, int]] = []
    now = first = 0.0
    started = time.perf_counter()
    for batch in loader:
        now = time.perf_counter() - started
        first = first or now
        counts.append((_rows(batch), _size(batch)))
        if now - first > seconds:
            break
    now = max(now, time.perf_counter() - started)
    loader.close()
    rows, size = (sum(each) for each in zip(*counts, strict=True)) if counts else (0, 0)
    timed, took = (counts[1:], now - first) if len(counts) > 1 else (counts, now)
    return Measured(
        rows=rows,
        bytes=size,
        steps=len(counts),
        seconds=now,
        first_batch=first,
        rows_per_second=sum(each for each, _ in timed) / took if timed else 0.0,
        bytes_per_second=sum(each for _, each in timed) / took if timed else 0.0,
        groups=groups,
        ideal=ideal,
    )


def shuffle_quality(loader: Stream) -> tuple[float, float]:
    """(row groups that a global batch draws on, the same for rows drawn at random from all), on average over some batches of the first epoch."""
    layout, batching, order = loader.layout, loader.batching, loader.order
    steps = max(1, layout.num_rows // batching.size)
    chosen = np.unique(np.linspace(0, steps - 1, min(steps, SAMPLED_BATCHES)).astype(np.int64))
    found = []
    for step in chosen.tolist():
        start = step * batching.size
        positions = np.arange(start, min(start + batching.size, layout.num_rows), dtype=np.int64)
        found.append(len(np.unique(order.locate(positions).group)))
    shares = layout.group_rows / layout.num_rows
    return float(np.mean(found)), float((1 - (1 - shares) ** batching.size).sum())


def _rows(batch: Mapping[str, Any]) -> int:
    value = next(iter(batch.values()), ())
    if isinstance(value, Mapping):
        return _rows(value)
    return len(value.offsets) - 1 if hasattr(value, "offsets") else len(value)


def _size(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(_size(each) for each in value.values())
    if hasattr(value, "element_size"):
        return int(value.numel() * value.element_size())
    if isinstance(value, list | tuple):
        return sum(_size(each) for each in value)
    return len(value) if isinstance(value, str | bytes) else 8
