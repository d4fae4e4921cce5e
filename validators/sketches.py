"""Mergeable summaries of one column in bounded memory: how often each value comes, how many there are, where the quantiles lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.kernels.digests import cell_digests

F64 = npt.NDArray[np.float64]
Numbers = npt.NDArray[Any]
REGISTER_BITS = 14
MAX_LEVELS = 48


class HyperLogLog:
    """How many different hashes there were (Flajolet et al. 2007), by 2^14 registers."""

    error = 1.04 / math.sqrt(1 << REGISTER_BITS)  # relative standard error

    def __init__(self) -> None:
        self.registers = np.zeros(1 << REGISTER_BITS, np.uint8)

    def add(self, hashes: npt.NDArray[np.uint64]) -> None:
        """Takes 64-bit hashes, of which all bits are even."""
        places = (hashes >> np.uint64(64 - REGISTER_BITS)).astype(np.int64)
        # 52 bits: exact as a float, whose exponent is the highest set bit
        rest = (hashes << np.uint64(REGISTER_BITS)) >> np.uint64(12)
        ranks = np.where(rest == 0, 64 - REGISTER_BITS + 1, 53 - np.frexp(rest.astype(np.float64))[1]).astype(np.uint8)
        np.maximum.at(self.registers, places, ranks)

    def merge(self, other: HyperLogLog) -> None:
        """Adds what another has seen."""
        np.maximum(self.registers, other.registers, out=self.registers)

    def estimate(self) -> int:
        """How many."""
        m = 1 << REGISTER_BITS
        estimate = 0.7213 / (1 + 1.079 / m) * m * m / np.exp2(-self.registers.astype(np.float64)).sum()
        empty = int((self.registers == 0).sum())
        if estimate <= 2.5 * m and empty:
            estimate = m * math.log(m / empty)
        return round(estimate)


class Counts:
    """How often each value comes. Exact while there are at most `capacity` values; then the frequent ones with `error`, and a distinct count
    with a relative standard error of 0.8 %.

    Frequent values: Misra-Gries counters, merged as in Agarwal et al., "Mergeable Summaries" (PODS 2012): no count is more than `error` too
    low, none is too high. Distinct: HyperLogLog (Flajolet et al. 2007) over XXH3 digests, 2^14 registers.
    """

    def __init__(self, kind: pa.DataType, capacity: int) -> None:
        self.capacity = capacity
        self.kept = max(capacity // 8, 64)  # counters, once it is a sketch
        self.error = 0
        self.values = pa.array([], kind)
        self.counts = np.zeros(0, np.int64)
        self._estimate: HyperLogLog | None = None

    @property
    def exact(self) -> bool:
        """Whether every value is still counted."""
        return self._estimate is None

    def update(self, values: pa.Array) -> None:
        """Counts values without nulls, of the type that the sketch was made for."""
        found = pc.value_counts(values)
        self.add(found.field("values"), found.field("counts").to_numpy())

    def add(self, values: pa.Array, counts: npt.NDArray[np.int64], *, repeated: bool = False) -> None:
        """Counts each of the values so many times. repeated: a value may be there more than once."""
        values = values.cast(self.values.type)
        if repeated:
            encoded = values.dictionary_encode()
            values = encoded.dictionary
            counts = np.bincount(encoded.indices.to_numpy(), counts, len(values)).astype(np.int64)
        self._add(values, counts)

    def merge(self, other: Counts) -> None:
        """Adds what another sketch of the same column has counted."""
        self.error += other.error
        if other._estimate is not None:
            self._begin().merge(other._estimate)
        self._add(other.values, other.counts)

    def distinct(self) -> tuple[int, float]:
        """(number of values, relative standard error); the error is 0 where the number is exact."""
        if self._estimate is None:
            return len(self.values), 0.0
        return self._estimate.estimate(), HyperLogLog.error

    def top(self, n: int) -> list[tuple[object, int]]:
        """The n most frequent values with their counts, most frequent first; ties in order of the value."""
        least = np.partition(self.counts, -n)[-n] if len(self.counts) > n else 0
        often = self.counts >= least
        table = pa.table({"value": self.values.filter(pa.array(often)), "count": self.counts[often]})
        table = table.sort_by([("count", "descending"), ("value", "ascending")]).slice(0, n)
        return list(zip(table["value"].to_pylist(), table["count"].to_pylist(), strict=True))

    def _add(self, values: pa.Array, counts: npt.NDArray[np.int64]) -> None:
        """Takes in values that differ from each other."""
        self._register(values)
        places = pc.fill_null(pc.index_in(values, value_set=self.values), -1).to_numpy()
        known = places >= 0
        self.counts[places[known]] += counts[known]
        self.counts = np.concatenate([self.counts, counts[~known]])
        self.values = pa.concat_arrays([self.values, values.filter(pa.array(~known))])
        if len(self.values) > self.capacity or (self._estimate is not None and len(self.values) > self.kept):
            self._begin()
            cut = int(np.partition(self.counts, -(self.kept + 1))[-(self.kept + 1)])
            self.error += cut
            stay = self.counts > cut
            self.values, self.counts = self.values.filter(pa.array(stay)), self.counts[stay] - cut

    def _begin(self) -> HyperLogLog:
        if self._estimate is None:
            self._estimate = HyperLogLog()
            self._register(self.values)
        return self._estimate

    def _register(self, values: pa.Array) -> None:
        if self._estimate is not None and len(values):
            self._estimate.add(cell_digests(values)[:, 1])


class Quantiles:
    """The order of a column's numbers. Exact while there are at most `capacity` of them; then with a stated bound on the error of every rank.

    A stack of sorted buffers (Munro and Paterson 1980): a full one is halved by keeping every other value at twice the weight. Each halving
    moves a rank by at most the weight that was; `error` adds these up, so that the bound holds always, not just probably.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.count = 0
        self.moved = 0
        self.levels: list[Numbers] = []
        self._odd = False

    @property
    def error(self) -> float:
        """No rank is off by more than this share of the count; 0 where it is exact."""
        return self.moved / self.count if self.count else 0.0

    def update(self, values: Numbers) -> None:
        """Takes finite numbers."""
        self.count += len(values)
        for start in range(0, len(values), self.capacity):
            self._put(0, values[start : start + self.capacity])

    def merge(self, other: Quantiles) -> None:
        """Adds what another sketch has taken."""
        self.count += other.count
        self.moved += other.moved
        for level, values in enumerate(other.levels):
            self._put(level, values)

    def condense(self) -> None:
        """Halves buffers, the lowest first, until all together hold no more than one may."""
        for level in range(MAX_LEVELS):
            if sum(map(len, self.levels)) <= self.capacity:
                return
            self._halve(level)

    def points(self) -> tuple[Numbers, F64]:
        """(values in order, how many rows each stands for)."""
        if not self.levels:
            return np.zeros(0), np.zeros(0)
        values = np.concatenate(self.levels)
        weights = np.concatenate([np.full(len(held), float(1 << level)) for level, held in enumerate(self.levels)])
        order = np.argsort(values, kind="stable")
        return values[order], weights[order]

    def _put(self, level: int, values: Numbers) -> None:
        while len(self.levels) <= level:
            self.levels.append(values[:0])
        self.levels[level] = np.concatenate([self.levels[level], values])
        if len(self.levels[level]) > self.capacity:
            self._halve(level)

    def _halve(self, level: int) -> None:
        held = np.sort(self.levels[level])
        even = len(held) // 2 * 2
        self.levels[level] = held[even:]
        self._odd = not self._odd  # in turn, so that errors cancel rather than add
        self.moved += 1 << level
        self._put(level + 1, held[int(self._odd) : even : 2])


def quantile(points: tuple[F64, F64], share: float) -> float:
    """The smallest value with at least this share of the weight at or below it; NaN without values."""
    return float(quantiles_at(points, [share])[0])


def quantiles_at(points: tuple[F64, F64], shares: Sequence[float] | F64) -> F64:
    """(shares,) the quantile at each."""
    values, weights = points
    if not len(values):
        return np.full(len(shares), math.nan)
    ranks = np.cumsum(weights)
    places = np.searchsorted(ranks, np.asarray(shares) * ranks[-1] * (1 - 1e-12))
    return np.asarray(values[np.minimum(places, len(values) - 1)], np.float64)


def share_below(points: tuple[F64, F64], value: float, *, inclusive: bool = False) -> float:
    """The share of the weight under the value (at or under it, if inclusive)."""
    values, weights = points
    if not len(values):
        return 0.0
    at = int(np.searchsorted(values, value, side="right" if inclusive else "left"))
    return float(weights[:at].sum() / weights.sum())
