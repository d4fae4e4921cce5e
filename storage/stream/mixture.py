"""Several datasets in one stream, by weight: the same interface as one order, and as exact.

Positions are cut into blocks of 10,000. Each block has every dataset's exact quota, in an order that the key decides; a dataset's rows come in its own
order, epoch after epoch. Weights may change at given positions. Which dataset's how-manieth row stands at a position is found in O(1).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from gristmill.errors import UsageError
from gristmill.storage.stream.order import Order, Places
from gristmill.storage.stream.permute import I64, derive_key, permutation

BLOCK = 10_000
MIX = 4  # what a key is for
TABLES = 32
FAR = 1 << 40  # apart from any lane number

Weights = Sequence[tuple[int, Sequence[int]]]  # (from this position on, quota of each dataset in a block)


def quotas(weights: Sequence[float]) -> tuple[int, ...]:
    """How many of 10,000 rows come from each dataset, by largest remainder; at least 1 for a weight above 0.

    Raises:
        UsageError: negative weights, or none above 0.
    """
    if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise UsageError(
            f"weights {list(weights)}: none may be negative, NaN or infinite, one at least must be above 0"
        )
    exact = [Fraction(weight) * BLOCK / sum(map(Fraction, weights)) for weight in weights]
    found = [max(int(share), 1 if share else 0) for share in exact]
    by_need = sorted(range(len(exact)), key=lambda i: (found[i] - exact[i], i))
    for i in range(BLOCK - sum(found)):
        found[by_need[i]] += 1
    while sum(found) > BLOCK:  # many tiny weights
        found[found.index(max(found))] -= 1
    return tuple(found)


@dataclass(frozen=True, eq=False)
class _Segment:
    """Positions with the same weights. before: rows that each dataset gave before it."""

    start: int
    quota: I64
    before: I64


class _Block(NamedTuple):
    source: I64  # (BLOCK,) the dataset at each place
    nth: I64  # (BLOCK,) how many of the same dataset are before it in the block


class Mixture:
    """Several orders in one. weights: from which positions on they hold, ascending, the first at 0."""

    def __init__(self, orders: Sequence[Order], weights: Weights, seed: int) -> None:
        self.orders = tuple(orders)
        self.num_rows = sum(order.num_rows for order in orders)
        self._seed = seed
        self._first_group = np.concatenate([[0], np.cumsum([len(order.group_rows) for order in orders])]).astype(
            np.int64
        )
        self._segments: list[_Segment] = []
        self._block = functools.lru_cache(TABLES)(self._make_block)
        for start, quota in weights:
            for order, share in zip(orders, quota, strict=True):
                if share and not order.num_rows:
                    raise UsageError("a dataset of the mix has no rows")
            before = self._given(start) if self._segments else np.zeros(len(orders), np.int64)
            self._segments.append(_Segment(start, np.array(quota, np.int64), before))
        self._starts = np.array([segment.start for segment in self._segments])

    def split(self, positions: I64) -> tuple[I64, I64]:
        """(dataset, position in the dataset's own stream) of each position."""
        source, own = np.empty_like(positions), np.empty_like(positions)
        number = np.searchsorted(self._starts, positions, "right") - 1
        block = (positions - self._starts[number]) // BLOCK
        for which, at in np.unique(np.stack([number, block]), axis=1).T.tolist():
            here = np.flatnonzero((number == which) & (block == at))
            segment, table = self._segments[which], self._block(which, at)
            place = positions[here] - segment.start - at * BLOCK
            source[here] = table.source[place]
            own[here] = segment.before[source[here]] + at * segment.quota[source[here]] + table.nth[place]
        return source, own

    def lane_of(self, positions: I64) -> I64:
        """What sorts a batch so that neighbours are likely in one row group."""
        source, own = self.split(positions)
        out = np.empty_like(positions)
        for each in np.unique(source):
            here = source == each
            out[here] = each * FAR + self.orders[each].lane_of(own[here])
        return out

    def locate(self, positions: I64) -> Places:
        """The rows at some positions; row groups are numbered through all datasets."""
        source, own = self.split(positions)
        group, row = np.empty_like(positions), np.empty_like(positions)
        for each in np.unique(source):
            here = source == each
            places = self.orders[each].locate(own[here])
            group[here], row[here] = places.group + self._first_group[each], places.row
        return Places(group, row)

    def epoch_of(self, positions: I64) -> I64:
        """The epoch of each position's own dataset."""
        source, own = self.split(positions)
        return own // np.maximum(1, np.array([order.num_rows for order in self.orders]))[source]

    def epochs(self, position: int) -> list[float]:
        """How many epochs each dataset has given before a position."""
        return [
            float(given) / max(1, order.num_rows)
            for given, order in zip(self._given(position), self.orders, strict=True)
        ]

    def occurrences(self, group: I64, row: I64, start: int, stop: int) -> tuple[I64, I64]:
        """(which of the rows, at which position) for every time that rows stand in the positions [start, stop)."""
        low, high = self._given(start), self._given(stop)
        source = np.searchsorted(self._first_group, group, "right") - 1
        which: list[I64] = []
        found: list[I64] = []
        for each in np.unique(source[low[source] < high[source]]).tolist():
            here = np.flatnonzero(source == each)
            picked, own = self.orders[each].occurrences(
                group[here] - self._first_group[each], row[here], int(low[each]), int(high[each])
            )
            which.append(here[picked])
            found.append(np.array([self._position(each, int(one)) for one in own], np.int64))
        return (np.concatenate(which), np.concatenate(found)) if which else (group[:0], group[:0])

    def needed_until(self, positions: I64, group: I64) -> I64:
        """A position from which on the row group at each position is surely not needed in its dataset's epoch."""
        source, own = self.split(positions)
        out = np.empty_like(positions)
        for each in np.unique(source):
            here = source == each
            last = self.orders[each].needed_until(own[here], group[here] - self._first_group[each])
            segment = self._segment_of(int(each), int(own[here].max()))
            blocks = (last - segment.before[each]) // max(1, int(segment.quota[each])) + 1
            out[here] = segment.start + blocks * BLOCK  # the end of the block it is in, if the weights stay
        return out

    def _given(self, position: int) -> I64:
        """Rows that each dataset gives before a position."""
        segment_number = max(0, int(np.searchsorted([s.start for s in self._segments], position, "right")) - 1)
        segment = self._segments[segment_number]
        block, place = divmod(position - segment.start, BLOCK)
        inside = self._block(segment_number, block).source[:place]
        result: I64 = segment.before + block * segment.quota + np.bincount(inside, minlength=len(self.orders))
        return result

    def _segment_of(self, source: int, own: int) -> _Segment:
        """The segment that has the dataset's `own`-th row."""
        return next(s for s in reversed(self._segments) if s.quota[source] and s.before[source] <= own)

    def _position(self, source: int, own: int) -> int:
        """Where the dataset's `own`-th row stands."""
        segment = self._segment_of(source, own)
        block, nth = divmod(own - int(segment.before[source]), int(segment.quota[source]))
        table = self._block(self._segments.index(segment), block)
        return segment.start + block * BLOCK + int(np.flatnonzero(table.source == source)[nth])

    def _make_block(self, segment: int, block: int) -> _Block:
        quota = self._segments[segment].quota
        source = np.repeat(np.arange(len(quota)), quota)[
            permutation(BLOCK, derive_key(self._seed, MIX, segment, block))
        ]
        nth = np.empty(BLOCK, np.int64)
        for each in range(len(quota)):
            here = np.flatnonzero(source == each)
            nth[here] = np.arange(len(here))
        return _Block(source, nth)
