"""Where every row stands in the stream: a pure function of (seed, position) over the row groups, and its inverse.

A position is a row's place in the stream, counted from 0 over all epochs: position = epoch * num_rows + p. In each epoch the row groups are
permuted and laid end to end: the *virtual* order. It is cut into `lanes` stretches of equal length, which the stream visits in turn, so that a
batch draws on as many row groups as there are lanes. Neighbouring lanes run in opposite directions, away from a common edge or towards it: a row
group that an edge cuts is used by both at the same time, so it is read once and no more than `lanes` groups are open at a time. Inside a lane
every `window` row groups in a row are shuffled together.

Nothing here depends on ranks, batches, threads or random generators, and nothing is kept per row.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gristmill.storage.stream.permute import I64, derive_key, derive_keys, permutation, scramble

MIN_GROUPS_IN_LANE = 8  # at an epoch's ends lanes share row groups in pairs: it must be a small part of a lane
EPOCHS_KEPT = 3  # whose tables are in memory: at a boundary two are in use
GROUPS, ROWS, PHASE = 1, 2, 3  # what a key is for


class Shuffle(NamedTuple):
    """How far rows are mixed. lanes: row groups that a batch draws on; window: row groups of a lane that are shuffled together."""

    lanes: int
    window: int


class Places(NamedTuple):
    """Where some positions are, each (n,): row group (its number in the layout), row inside it."""

    group: I64
    row: I64


def fit_shuffle(group_rows: I64, row_bytes: float, shuffle_bytes: int) -> Shuffle:
    """The best shuffle that has at most about `shuffle_bytes` of row groups open at a time, over all ranks together."""
    filled = group_rows[group_rows > 0].astype(np.float64)
    if not len(filled):
        return Shuffle(1, 1)
    typical = float((filled**2).sum() / filled.sum())  # rows of the group that a random row is in
    open_groups = max(1, int(shuffle_bytes / (typical * max(row_bytes, 1.0))))
    most = max(1, min(open_groups, len(filled) // MIN_GROUPS_IN_LANE))
    if open_groups >= len(filled):  # everything fits: each lane is one window
        return Shuffle(most, len(filled))
    window = -(-open_groups // most)
    most = max(1, open_groups // window)
    return Shuffle(
        max(range(most, most - most // 10 - 1, -1), key=lambda lanes: _phase_gap(len(filled), lanes)), window
    )


def _phase_gap(groups: int, lanes: int) -> float:
    """How evenly pairs of lanes start inside groups of equal size, from 0 (all at once, so that all change group at once) to 1."""
    starts = np.sort(np.arange(max(1, lanes // 2)) * (2 * groups / lanes) % 1)
    gaps = np.diff(np.append(starts, starts[0] + 1))
    return round(float(1 / (gaps.max() * len(gaps))), 1)


class Order:
    """The stream's order over row groups of the given sizes. shuffle None: the rows as they lie.

    Memory O(row groups). A first look into an epoch costs O(row groups), then a position O(log row groups).
    """

    def __init__(self, group_rows: npt.ArrayLike, seed: int = 0, shuffle: Shuffle | None = None) -> None:
        self.group_rows = np.asarray(group_rows, np.int64)
        self.num_rows = int(self.group_rows.sum())
        self.seed = seed
        self.shuffle = shuffle
        self.lanes = max(1, min(shuffle.lanes, self.num_rows)) if shuffle else 1
        self._visits = _spread(self.lanes)  # turn in a cycle -> lane
        self._turn = np.argsort(self._visits)
        quotient, rest = divmod(self.num_rows, self.lanes)
        self._length = quotient + (self._turn < rest)
        self._start = np.concatenate([[0], np.cumsum(self._length)[:-1]]).astype(np.int64)
        self._backward = (np.arange(self.lanes) % 2 == 0) & (shuffle is not None)
        self._epoch = functools.lru_cache(EPOCHS_KEPT)(self._make_epoch)
        self._last = functools.lru_cache(EPOCHS_KEPT)(self._last_use)

    def lane_of(self, positions: I64) -> I64:
        """The lane of each position, counted on over epochs: it sorts a batch so that neighbours are likely in one row group."""
        epoch, p = np.divmod(positions, max(1, self.num_rows))
        return epoch * self.lanes + self._visits[p % self.lanes]

    def locate(self, positions: I64) -> Places:
        """The rows at some positions, which need no order."""
        epoch, p = np.divmod(positions, max(1, self.num_rows))
        step, turn = np.divmod(p, self.lanes)
        virtual = self._walk(self._visits[turn], step)
        group, row = np.empty_like(virtual), np.empty_like(virtual)
        for each in np.unique(epoch):
            here = np.flatnonzero(epoch == each)
            tables = self._epoch(int(each))
            found = self._shuffled(int(each), tables, virtual[here])
            at = np.searchsorted(tables.starts, found, "right") - 1
            group[here], row[here] = tables.groups[at], found - tables.starts[at]
        return Places(group, row)

    def position_of(self, group: I64, row: I64, epoch: int) -> I64:
        """The positions in an epoch of rows given by row group and row inside it: the inverse of `locate`."""
        tables = self._epoch(epoch)
        virtual = self._shuffled(epoch, tables, tables.starts[tables.ranks[group]] + row, inverse=True)
        lane = np.searchsorted(self._start, virtual, "right") - 1
        step = np.where(
            self._backward[lane], self._start[lane] + self._length[lane] - 1 - virtual, virtual - self._start[lane]
        )
        return epoch * self.num_rows + step * self.lanes + self._turn[lane]

    def occurrences(self, group: I64, row: I64, start: int, stop: int) -> tuple[I64, I64]:
        """(which of the rows, at which position) for every time that rows stand in the positions [start, stop)."""
        epochs = range(start // self.num_rows, -(-stop // self.num_rows))
        positions = np.stack([self.position_of(group, row, epoch) for epoch in epochs])
        inside = (positions >= start) & (positions < stop)
        return np.nonzero(inside)[1], positions[inside]

    def epoch_of(self, positions: I64) -> I64:
        """The epoch of each position."""
        return positions // max(1, self.num_rows)

    def epochs(self, position: int) -> list[float]:
        """How many epochs were given before a position."""
        return [position / max(1, self.num_rows)]

    def needed_until(self, positions: I64, group: I64) -> I64:
        """The last position of its epoch at which the row group at each position may be needed."""
        epochs = positions // self.num_rows
        out = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            out[here] = self._last(int(epoch))[group[here]]
        return out

    def _walk(self, lane: I64, step: I64) -> I64:
        """The virtual rows that lanes have reached after some steps."""
        return self._start[lane] + np.where(self._backward[lane], self._length[lane] - 1 - step, step)

    def _shuffled(self, epoch: int, tables: _Epoch, virtual: I64, *, inverse: bool = False) -> I64:
        """Each virtual row after the shuffle of its window; before it, if `inverse`."""
        if self.shuffle is None:
            return virtual
        window = np.searchsorted(tables.windows, virtual, "right") - 1
        start = tables.windows[window]
        keys = derive_keys(derive_key(self.seed, epoch, ROWS), window)
        return start + scramble(virtual - start, tables.windows[window + 1] - start, keys, inverse=inverse)

    def _make_epoch(self, epoch: int) -> _Epoch:
        count = len(self.group_rows)
        groups = permutation(count, derive_key(self.seed, epoch, GROUPS)) if self.shuffle else np.arange(count)
        starts = np.concatenate([[0], np.cumsum(self.group_rows[groups])]).astype(np.int64)
        ranks = np.empty(count, np.int64)
        ranks[groups] = np.arange(count)
        edges = starts[(starts > 0) & (starts < self.num_rows)]
        cuts = (
            edges
            if not self.shuffle or self.shuffle.window == 1
            else self._window_cuts(edges, self.shuffle.window, epoch)
        )
        windows = np.append(_distinct(np.concatenate([self._start[self._length > 0], cuts])), self.num_rows)
        return _Epoch(groups, starts, ranks, windows.astype(np.int64))

    def _window_cuts(self, edges: I64, window: int, epoch: int) -> I64:
        """The row group edges at which windows end: in each lane every `window`-th, from a phase of its own."""
        cuts = [edges[:0]]
        for lane in range(self.lanes):
            begin, end = np.searchsorted(edges, [self._start[lane] + 1, self._start[lane] + self._length[lane]])
            inside = np.unique(edges[begin:end])
            if len(inside) >= window:
                inside = inside[::-1] if self._backward[lane] else inside
                cuts.append(inside[derive_key(self.seed, epoch, PHASE, lane) % window :: window])
        return np.concatenate(cuts)

    def _last_use(self, epoch: int) -> I64:
        """(row groups,) the last position of an epoch at which each row group may be needed; below 0 for one without rows."""
        tables = self._epoch(epoch)
        windows, starts = tables.windows, tables.starts
        lane = np.searchsorted(self._start, windows[:-1], "right") - 1
        ends = np.where(
            self._backward[lane], windows[:-1], windows[1:] - 1
        )  # the row of each window that is reached last
        step = np.where(
            self._backward[lane], self._start[lane] + self._length[lane] - 1 - ends, ends - self._start[lane]
        )
        last = np.append(step * self.lanes + self._turn[lane], -1)
        first = np.searchsorted(windows, starts[:-1], "right") - 1
        after = np.maximum(np.searchsorted(windows, starts[1:], "left"), first + 1)
        bounds = np.minimum(np.stack([first, after], axis=1).ravel(), len(last) - 1)
        out = np.full(len(self.group_rows), -1, np.int64)
        if self.num_rows:
            out[tables.groups] = np.maximum.reduceat(last, bounds)[::2] + epoch * self.num_rows
        out[self.group_rows == 0] = -1
        return out


@dataclass(frozen=True)
class _Epoch:
    groups: I64  # row groups in virtual order
    starts: I64  # their first virtual rows, and the end
    ranks: I64  # row group -> its place in virtual order
    windows: I64  # first virtual rows of windows, and the end


def _distinct(values: I64) -> I64:
    """The distinct values, sorted. numpy's `unique` hashes first, which is ten times slower on two sorted runs."""
    ordered = np.sort(values, kind="stable")
    return ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]


def _spread(lanes: int) -> I64:
    """The lanes in an order whose every stretch is spread evenly over them: bit-reversed counting (van der Corput)."""
    bits = max(1, (lanes - 1).bit_length())
    numbers = np.arange(2**bits)
    reverse = np.zeros_like(numbers)
    for bit in range(bits):
        reverse |= ((numbers >> bit) & 1) << (bits - 1 - bit)
    return reverse[reverse < lanes]
