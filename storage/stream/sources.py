"""What a stream is made of: one dataset, or several with weights."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.errors import InputError, InputNotFoundError, UsageError, capped
from gristmill.storage.stream.layout import Layout, join_layouts, open_layout
from gristmill.storage.stream.mixture import Mixture, Weights, quotas
from gristmill.storage.stream.order import Order, Shuffle, fit_shuffle
from gristmill.storage.stream.permute import derive_key

SOURCE = 5  # what a key is for


@dataclass(frozen=True)
class Mix:
    """Datasets and their weights, one for each, or pairs (from this position on, weights) that change on the way.

    datasets: anything that `stream` takes, or pairs (data, split).
    """

    datasets: Sequence[Any]
    weights: Sequence[float] | Sequence[tuple[int, Sequence[float]]]

    @property
    def schedule(self) -> Weights:
        """The quotas of each dataset in a block, by position."""
        given: list[Any] = list(self.weights)
        pairs = given if given and isinstance(given[0], list | tuple) else [(0, given)]
        try:
            found = [(int(start), quotas(weights)) for start, weights in pairs]
        except UsageError:
            raise
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"a mix's weights are numbers, one for each dataset, or pairs (from this position on, weights); got {capped(map(repr, given))}"
            ) from error
        starts = [start for start, _ in found]
        if not found or starts[0] != 0 or starts != sorted(set(starts)):
            raise UsageError(f"a mix's weights begin at position 0 and at rising positions; got {starts}")
        for _, each in found:
            if len(each) != len(self.datasets):
                raise UsageError(f"{len(self.datasets)} datasets, but {len(each)} weights")
        return found


@dataclass(frozen=True)
class Sources:
    """Opened data. parts: the number of row groups of each dataset; mix: the quotas, empty for one dataset; datasets: Dataset or None for each."""

    layout: Layout
    parts: tuple[int, ...]
    mix: Weights
    datasets: tuple[Any, ...]


def open_sources(data: Any, split: str | None, options: Mapping[str, Any] | None) -> Sources:
    """The layout of the data. A mapping {data: weight}, a `Mix` or a mix file (.json: {"datasets": [{"data", "split", "weight"}], "schedule": [[position, weights]]}) is a mix."""
    mix = as_mix(data, split)
    if mix is None:
        layout, dataset = open_layout(data, split, options)
        return Sources(layout, (len(layout.group_rows),), (), (dataset,))
    schedule = mix.schedule
    pairs = [each if isinstance(each, tuple) else (each, split) for each in mix.datasets]
    opened = [open_layout(each, part, options) for each, part in pairs]
    layouts = [layout for layout, _ in opened]
    return Sources(
        join_layouts(layouts),
        tuple(len(layout.group_rows) for layout in layouts),
        schedule,
        tuple(dataset for _, dataset in opened),
    )


def fit_shuffles(sources: Sources, shuffle_bytes: int) -> tuple[Shuffle, ...]:
    """The shuffle of each dataset; in a mix they share the bytes by their largest weights."""
    shares = [max(quota[i] for _, quota in sources.mix) for i in range(len(sources.parts))] if sources.mix else [1]
    return tuple(
        fit_shuffle(rows, sources.layout.row_bytes, int(shuffle_bytes * each / sum(shares)))
        for rows, each in zip(_split(sources.layout, sources.parts), shares, strict=True)
    )


def make_order(
    layout: Layout, parts: Sequence[int], seed: int, shuffles: Sequence[Shuffle], mix: Weights
) -> Order | Mixture:
    """The order of a stream. shuffles: of each dataset, empty for none."""
    rows = _split(layout, parts)
    if not mix:
        return Order(rows[0], seed, shuffles[0] if shuffles else None)
    orders = [
        Order(each, derive_key(seed, SOURCE, i), shuffles[i] if shuffles else None) for i, each in enumerate(rows)
    ]
    return Mixture(orders, mix, seed)


def _split(layout: Layout, parts: Sequence[int]) -> list[Any]:
    ends = [sum(parts[: i + 1]) for i in range(len(parts))]
    return [layout.group_rows[end - count : end] for end, count in zip(ends, parts, strict=True)]


def as_mix(data: Any, split: str | None = None) -> Mix | None:
    """The mix that data means: a Mix, {data: weight} or a mix file, whose datasets have `split` where they name none; None for other data."""
    if isinstance(data, Mix):
        return data
    if isinstance(data, Mapping):
        return Mix(list(data), list(data.values()))
    if not isinstance(data, str | os.PathLike) or not os.fspath(data).endswith((".json", ".yaml", ".yml")):
        return None
    path = os.fspath(data)
    values = _read_mix_file(path)
    try:
        datasets = [(entry["data"], entry.get("split", split)) for entry in values["datasets"]]
        weights = values.get("schedule") or [entry["weight"] for entry in values["datasets"]]
    except (TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"'{path}' is not a mix file: it needs datasets, each with data and weight ({error!r})"
        ) from error
    return Mix(datasets, weights)


def _read_mix_file(path: str) -> Any:
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file) if path.endswith(".json") else yaml.safe_load(file)
    except OSError as error:
        raise InputNotFoundError(f"can't read the mix file '{path}': {error.strerror}", path=path) from error
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"the mix file '{path}' can't be read: {error}", path=path) from error
