"""How far a column's distribution is from an expected one: the Kullback-Leibler divergence."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from gristmill.validators.accumulators import Counts, Histogram
from gristmill.validators.expectations.aggregates import ColumnExpectation
from gristmill.validators.expectations.base import Comparable, Found, Need, Outcome, Setting, need
from gristmill.validators.ordered import Ordered
from gristmill.validators.quantiles import quantile

Weights = npt.NDArray[np.float64]


class KlDivergence(ColumnExpectation):
    """The divergence of the observed from the expected weights, in nats, is at most `threshold`.

    partition_object: {"values", "weights"}, or {"bins", "weights", "tail_weights"}, None for the data's own; then it is 0.
    """

    type: ClassVar[str] = "expect_column_kl_divergence_to_be_less_than"
    partition_object: dict[str, Any] | None = None
    threshold: float | None = None
    internal_weight_holdout: float = Field(default=0, ge=0, le=1)
    tail_weight_holdout: float = Field(default=0, ge=0, le=1)
    bucketize_data: bool = True
    min_value: Comparable = None
    max_value: Comparable = None

    def _categorical(self) -> bool:
        return not self.bucketize_data if self.partition_object is None else _is_categorical(self.partition_object)

    def needs(self, setting: Setting) -> dict[str, Need]:
        if self.threshold is not None and self.threshold < 0:
            raise ValueError("Threshold must be specified, greater than or equal to zero.")
        if self._categorical():
            return {"counts": need(lambda: Counts(self.column), "counts", self.column)}
        if self.partition_object is None:
            return {"ordered": need(lambda: Ordered(self.column, setting.spill), "ordered", self.column)}
        if not _is_continuous(self.partition_object):
            raise ValueError("Invalid partition_object provided")
        return {"histogram": self._histogram(self.partition_object["bins"])}

    def needs_again(self, setting: Setting, found: Found) -> dict[str, Need]:
        return {"histogram": self._histogram(_own_bins(found["ordered"]))} if "ordered" in found else {}

    def _histogram(self, bins: list[float]) -> Need:
        return need(lambda: Histogram(self.column, bins), "histogram", self.column, list(bins))

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        if "counts" in found:
            values, observed, expected = self._discrete(found["counts"].counts)
            divergence = _entropy(observed, expected)
            details = {
                "observed_partition": {"values": values, "weights": observed.tolist()},
                "expected_partition": {"values": values, "weights": expected.tolist()},
            }
        else:
            divergence, details = self._continuous(found["histogram"], found)
        success = self.threshold is None or bool(divergence <= self.threshold)
        shown = None if math.isinf(divergence) or math.isnan(divergence) else divergence
        return Outcome(success, {"observed_value": shown, "details": details})

    def _discrete(self, counts: dict[Any, int]) -> tuple[list[Any], Weights, Weights]:
        """(values, observed weights, expected weights): those expected first, then others in their order."""
        if self.internal_weight_holdout > 0:
            raise ValueError("Internal weight holdout cannot be used for discrete data.")
        total = sum(counts.values())
        try:
            order = sorted(counts)
        except TypeError:
            order = sorted(counts, key=str)
        partition = self.partition_object or {
            "values": order,
            "weights": [counts[value] / total for value in order],
        }
        if self.tail_weight_holdout and "tail_weights" in partition:
            raise ValueError("tail_weight_holdout must be 0 when using tail_weights in partition object")
        expected = dict(zip(partition["values"], partition["weights"], strict=True))
        others = [value for value in order if value not in expected]
        values = [*expected, *others]
        observed = np.array([counts.get(value, 0) / total if total else 0.0 for value in values])
        scale = 1 - self.tail_weight_holdout if others else 1
        rest = self.tail_weight_holdout / len(others) if others else 0
        return values, observed, np.array([expected[value] * scale if value in expected else rest for value in values])

    def _continuous(self, state: Histogram, found: Found) -> tuple[float, dict[str, Any]]:
        partition = self.partition_object
        if partition is not None and not self.bucketize_data:
            raise ValueError(
                "KL Divergence cannot be computed with a continuous partition object and the bucketize_data parameter set to false."
            )
        nonnull = np.float64(state.nonnull) if state.nonnull else np.nan  # no rows: no weights, no divergence
        weights = state.counts / nonnull
        if partition is None:
            tail = (1 - float(weights.sum())) / 2
            partition = {"bins": _own_bins(found["ordered"]), "weights": weights.tolist(), "tail_weights": [tail, tail]}
        if self.tail_weight_holdout and "tail_weights" in partition:
            raise ValueError("tail_weight_holdout must be 0 when using tail_weights in partition object")
        expected = np.array(partition["weights"], float) * (1 - self.tail_weight_holdout - self.internal_weight_holdout)
        if self.internal_weight_holdout > 0 and (expected == 0).any():
            expected[expected == 0] = self.internal_weight_holdout / np.count_nonzero(expected == 0)
        outer, inner = self._tails(partition, expected)
        bins = partition["bins"]
        open_left, open_right = bins[0] == -np.inf, bins[-1] == np.inf
        seen_outer = np.array(
            [
                weights[0] if open_left else state.below / nonnull,
                weights[-1] if open_right else state.above / nonnull,
            ]
        )
        within = slice(1 if open_left else 0, -1 if open_right else None)
        seen_inner = weights[within]
        divergence = _entropy(
            np.concatenate([seen_outer[:1], seen_inner, seen_outer[1:]]), np.concatenate([outer[:1], inner, outer[1:]])
        )
        shown = list(bins)[within]
        details = {
            "observed_partition": {"bins": shown, "weights": seen_inner.tolist(), "tail_weights": seen_outer.tolist()},
            "expected_partition": {"bins": shown, "weights": inner.tolist(), "tail_weights": outer.tolist()},
        }
        return divergence, details

    def _tails(self, partition: dict[str, Any], expected: Weights) -> tuple[Weights, Weights]:
        """(expected weights below and above, those within)."""
        left, right = partition["bins"][0] == -np.inf, partition["bins"][-1] == np.inf
        if (left or right) and "tail_weights" in partition:
            raise ValueError("There can be no tail weights for partitions with one or both endpoints at infinity")
        if left and right:
            if self.tail_weight_holdout > 0:
                raise ValueError("tail_weight_holdout cannot be used for partitions with infinite endpoints.")
            return expected[[0, -1]], expected[1:-1]
        if left:
            return np.array([expected[0], self.tail_weight_holdout]), expected[1:]
        if right:
            return np.array([self.tail_weight_holdout, expected[-1]]), expected[:-1]
        half = self.tail_weight_holdout / 2
        return np.array(partition.get("tail_weights", [half, half]), float), expected


def _is_categorical(partition: dict[str, Any]) -> bool:
    values, weights = partition.get("values"), partition.get("weights")
    return (
        values is not None
        and weights is not None
        and len(values) == len(weights)
        and bool(np.allclose(np.sum(weights), 1))
    )


def _is_continuous(partition: dict[str, Any]) -> bool:
    bins, weights, tails = partition.get("bins"), partition.get("weights"), partition.get("tail_weights", [])
    if bins is None or weights is None or len(tails) not in (0, 2) or len(bins) != len(weights) + 1:
        return False
    return bool(np.all(np.diff(bins) > 0) and np.allclose(np.sum([*tails, *weights]), 1.0))


def _own_bins(ordered: Ordered) -> list[float]:
    """numpy's automatic bins: as many as Sturges' or Freedman and Diaconis' rule says, whichever is more."""
    count = ordered.nonnull
    low, first, third, high = (quantile(ordered, share, "nearest") for share in (0.0, 0.25, 0.75, 1.0))
    if low is None:
        raise ValueError("Invalid partition object.")
    sturges = int(np.ceil(np.log2(count + 1.0)))
    spread = third - first
    bins = sturges
    if spread >= 1e-10:
        bins = max(sturges, int(np.ceil(float(high - low) / (2 * float(spread) / count ** (1 / 3)))))
    return np.linspace(float(low), float(high), bins + 1).tolist()


def _entropy(observed: Weights, expected: Weights) -> float:
    from scipy.stats import entropy

    return float(entropy(observed, expected))


DIVERGENCE = (KlDivergence,)
