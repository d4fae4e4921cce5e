"""`exchange`: rows of many files brought together by key, through files, so that a lost worker costs only what it was doing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.pipelines import parts
from gristmill.pipelines.engines.base import Engine
from gristmill.pipelines.work import WorkStore, finish, key_of

View = Callable[[WorkStore, Any], pa.Table]
"""(store, input) -> the slim table of one input; has a column `key` (uint64)."""

Reduce = Callable[[pa.Table], pa.Table]
"""All rows of some keys -> the result for them. Every row of a key is in the same call; the order of rows is undefined."""

PARTITION_BYTES = 64 << 20


@dataclass(frozen=True)
class _Scatter:
    store: WorkStore
    key: str
    view: View
    source: Any
    partitions: int

    def __str__(self) -> str:
        return f"exchange: rows of {self.source}"


@dataclass(frozen=True)
class _Gather:
    store: WorkStore
    key: str
    reduce: Reduce
    scattered: tuple[str, ...]
    partition: int

    def __str__(self) -> str:
        return f"exchange: partition {self.partition}"


def exchange(
    engine: Engine, store: WorkStore, sources: Sequence[Any], view: View, reduce: Reduce, *, size: int, name: str
) -> tuple[list[pa.Table], list[str]]:
    """(the results of `reduce`, one table a partition; the keys of the work files used).

    `size` estimates the bytes of all views together: up to PARTITION_BYTES the work is done right here, without files. Above, each source is
    scattered into partitions by key and each partition gathered from all of them; both halves are work items like any other: found again when
    done, repeated when lost. A partition is held in memory whole, so a key with more rows than that is the limit of this exchange.

    The result as a whole doesn't depend on the number of partitions; its order does.
    """
    partitions = -(-size // PARTITION_BYTES)
    if partitions <= 1:
        views = [view(store, source) for source in sources]
        return ([reduce(pa.concat_tables(views))] if views else []), []
    tag = key_of("exchange", name, partitions, getattr(reduce, "keywords", {}))
    scatter = [_Scatter(store, key_of("scatter", tag, source.digest), view, source, partitions) for source in sources]
    finish(engine, _scatter, scatter)
    keys = tuple(task.key for task in scatter)
    gather = [_Gather(store, key_of("gather", tag, keys, p), reduce, keys, p) for p in range(partitions)]
    finish(engine, _gather, gather)
    results = [parts.read(store.folder(task.key) / "result.arrow") for task in gather]
    return results, [*keys, *[task.key for task in gather]]


def _scatter(task: _Scatter) -> dict[str, Any]:
    table = task.view(task.store, task.source)
    place = table["key"].to_numpy() % np.uint64(task.partitions)
    order = np.argsort(place, kind="stable")
    cuts = np.searchsorted(place[order], np.arange(task.partitions + 1, dtype=np.uint64))
    table = table.take(pa.array(order)).combine_chunks()
    with task.store.create(task.key) as (folder, summary):
        for p in range(task.partitions):
            parts.write(folder / f"partition-{p:05d}.arrow", table.slice(cuts[p], cuts[p + 1] - cuts[p]), parts.LZ4)
        summary["rows"] = table.num_rows
    return summary


def _gather(task: _Gather) -> dict[str, Any]:
    found = [parts.read(task.store.folder(key) / f"partition-{task.partition:05d}.arrow") for key in task.scattered]
    result = task.reduce(pa.concat_tables(found))
    with task.store.create(task.key) as (folder, summary):
        parts.write(folder / "result.arrow", result)
        summary["rows"] = result.num_rows
    return summary
