"""Which positions of the stream a step takes: global batches, epochs, tails, and rows to skip."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gristmill.errors import UsageError, did_you_mean
from gristmill.storage.stream.permute import I64

TAILS = ("carry", "drop", "pad")


Finder = Callable[[I64, int, int], tuple[I64, I64]]


class Taken(NamedTuple):
    """One global batch. positions: (rows,) ascending; next: where the next batch begins."""

    positions: I64
    next: int


@dataclass(frozen=True)
class Skip:
    """Rows that are left out. rows: (row number, from) pairs, left out at all positions >= from. ranges: (start, stop) of positions."""

    rows: tuple[tuple[int, int], ...] = ()
    ranges: tuple[tuple[int, int], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rows or self.ranges)


@dataclass(frozen=True)
class Batching:
    """The cutting of `epochs` epochs of `num_rows` positions into global batches of `size` rows.

    tail: what happens where an epoch ends inside a batch: "carry" fills it up from the next epoch, so that only the very last batch may be short; "drop"
    leaves the rest of the epoch out; "pad" makes a short batch, to be filled up. find: (row numbers, start, stop) -> (which of them, at which position) between two
    positions, for `skip`.
    """

    num_rows: int
    epochs: int
    size: int
    tail: str = "carry"
    skip: Skip = Skip()
    find: Finder | None = None

    def __post_init__(self) -> None:
        if self.tail not in TAILS:
            raise UsageError(f"tail='{self.tail}'.{did_you_mean(str(self.tail), TAILS)}")
        if self.size < 1 or self.epochs < 1:
            raise UsageError(f"global_batch_size={self.size}, epochs={self.epochs}: both must be at least 1")
        if self.num_rows < 1:
            raise UsageError("there are no rows to stream")
        if self.tail == "drop" and self.num_rows < self.size:
            raise UsageError(
                f"tail='drop' with {self.num_rows} rows and global_batch_size={self.size} leaves no step: use tail='carry' or a smaller batch"
            )

    @property
    def end(self) -> int:
        """The position after the last."""
        return self.num_rows * self.epochs

    def take(self, position: int) -> Taken | None:
        """The batch that begins at a position; None at the end."""
        while position < self.end:
            stop = self.end if self.tail == "carry" else self._epoch_end(position)
            found = self._collect(position, stop)
            whole = len(found) == self.size
            after = int(found[-1]) + 1 if whole else stop
            if self.tail != "carry" and not self._of_epoch(self._left(after, stop)):
                after = stop
            if whole or (len(found) and self.tail != "drop"):
                return Taken(found, after)
            position = stop
        return None

    def steps_from(self, position: int) -> int:
        """How many batches there are from a position on."""
        if self.tail == "carry":
            return -(-self._left(position, self.end) // self.size)
        steps = 0
        while position < self.end:
            stop = self._epoch_end(position)
            if not self.skip:  # all later epochs are alike
                steps += self._of_epoch(stop - position) + (self.end - stop) // self.num_rows * self._of_epoch(
                    self.num_rows
                )
                break
            steps += self._of_epoch(self._left(position, stop))
            position = stop
        return steps

    def position_after(self, position: int, steps: int) -> int:
        """Where the batch begins that is `steps` batches after the one that begins at a position."""
        while steps and self.tail != "carry":  # whole epochs first
            stop = self._epoch_end(position)
            here = self._of_epoch(self._left(position, stop))
            if steps < here:
                break
            if not self.skip and stop > position and position % self.num_rows == 0:
                epochs = min(steps // max(1, here), (self.end - position) // self.num_rows)
                steps, position = steps - epochs * here, position + epochs * self.num_rows
                if position >= self.end:
                    return position
                continue
            steps, position = steps - here, stop
            if position >= self.end:
                return position
        if not steps:
            return position
        return self._advance(position, steps * self.size)

    def _of_epoch(self, rows: int) -> int:
        return rows // self.size if self.tail == "drop" else -(-rows // self.size)

    def _epoch_end(self, position: int) -> int:
        return (position // self.num_rows + 1) * self.num_rows

    def _collect(self, position: int, stop: int) -> I64:
        """The first `size` positions from one on that aren't skipped, before `stop`."""
        if not self.skip:
            return np.arange(position, min(position + self.size, stop), dtype=np.int64)
        found: list[I64] = []
        missing = self.size
        while missing and position < stop:
            end = min(position + missing, stop)
            here = np.arange(position, end, dtype=np.int64)
            here = here[~np.isin(here, self._skipped(position, end))]
            found.append(here)
            missing, position = missing - len(here), end
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def _left(self, start: int, stop: int) -> int:
        """Positions in [start, stop) that aren't skipped."""
        if stop <= start:
            return 0
        return stop - start - (self._count_skipped(start, stop) if self.skip else 0)

    def _count_skipped(self, start: int, stop: int) -> int:
        every = self._skipped(start, stop)
        return int(np.searchsorted(every, stop) - np.searchsorted(every, start))

    def _skipped(self, start: int, stop: int) -> I64:
        """The sorted skipped positions of the epochs that [start, stop) touches."""
        parts = [_excluded(self, epoch) for epoch in range(start // self.num_rows, (stop - 1) // self.num_rows + 1)]
        return np.concatenate(parts)

    def _advance(self, position: int, rows: int) -> int:
        """The position after `rows` more rows that aren't skipped."""
        if not self.skip:
            return min(position + rows, self.end)
        low, high = position + rows, self.end
        while low < high:  # the first stop with that many rows before it
            middle = (low + high) // 2
            if self._left(position, middle) >= rows:
                high = middle
            else:
                low = middle + 1
        return min(low, self.end)


@functools.lru_cache(64)
def _excluded(batching: Batching, epoch: int) -> I64:
    """The sorted positions of an epoch that are skipped."""
    low, high = epoch * batching.num_rows, (epoch + 1) * batching.num_rows
    parts = [
        np.arange(max(a, low), min(b, high), dtype=np.int64) for a, b in batching.skip.ranges if a < high and b > low
    ]
    if batching.skip.rows:
        assert batching.find is not None
        rows, since = (np.array(values, np.int64) for values in zip(*batching.skip.rows, strict=True))
        which, positions = batching.find(rows, low, high)
        parts.append(positions[positions >= since[which]])
    return np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int64)


def share(rows: int, rank: int, world_size: int) -> slice:
    """The rows of a batch that a rank gets: a contiguous stretch, floor or ceil of an equal part."""
    return slice(rows * rank // world_size, rows * (rank + 1) // world_size)
