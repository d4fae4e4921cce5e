"""Dask and Spark frames: each partition is evaluated where it is, and only its states come back. A second pass and look-ups fetch one partition at a time."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa

from gristmill.validators.accumulators import Accumulator, Fields
from gristmill.validators.checked import Parts
from gristmill.validators.columns import View
from gristmill.validators.expectations.base import Setting
from gristmill.validators.formats import ResultFormat
from gristmill.validators.inputs import Data, Objects, Shard, of_tables, open_data
from gristmill.validators.passes import States, merge, scan
from gristmill.validators.plan import Key, Task, plan_suite, tasks_of
from gristmill.validators.spill import Spill
from gristmill.validators.suites import Suite

Saved = dict[Key, Fields | BaseException]


class Described(NamedTuple):
    """A partition: its rows, the types of its columns, all columns in order, and pandas' dtypes where it is a pandas frame."""

    rows: int
    schema: pa.Schema
    columns: list[str]
    dtypes: dict[str, str]


class Partitions:
    """A frame in partitions. `each(function)` calls it on every partition where that is, and gives the results in order; `fetch(i)` brings one here."""

    def __init__(
        self, each: Callable[[Callable[[Any], Any]], list[Any]], fetch: Callable[[int], Any], name: str
    ) -> None:
        self.each, self.fetch, self.name = each, fetch, name

    def open(self) -> Data:
        """The frame as data, a shard a partition. It is computed once to count its rows."""
        found: list[Described] = self.each(describe) or [Described(0, pa.schema([]), [], {})]
        fields: dict[str, pa.Field] = {}
        lacking = {name for part in found for name in part.columns if name not in part.schema.names}
        for part in found:
            for field in part.schema:
                if field.name not in lacking and (
                    field.name not in fields or pa.types.is_null(fields[field.name].type)
                ):
                    fields[field.name] = field
        shards = [Shard(f"{self.name}[{i}]", part.rows, _Reader(self, i, part.rows)) for i, part in enumerate(found)]
        first = found[0]
        schema = pa.schema([fields[name] for name in first.columns if name in fields])
        return Data(self.name, schema, shards, first.columns, dtypes=first.dtypes, partitions=self)


class _Reader:
    def __init__(self, partitions: Partitions, number: int, rows: int) -> None:
        self._partitions, self._number, self._rows = partitions, number, rows

    def pieces(self, rows: int) -> list[tuple[int, tuple[int, ...]]]:
        return [(self._rows, (0,))] if self._rows else []

    def read(self, groups: tuple[int, ...], columns: Sequence[str]) -> Iterator[tuple[pa.Table, Objects]]:
        for batch in _local(self._partitions.fetch(self._number)).batches(columns):
            yield batch.table, batch.objects


def _local(partition: Any) -> Data:
    return of_tables([partition], "partition") if isinstance(partition, pa.Table) else open_data(partition)


def describe(partition: Any) -> Described:
    """What a partition is."""
    data = _local(partition)
    return Described(data.num_rows, data.schema, list(data.columns), dict(data.dtypes))


def scan_remotely(data: Data, suite: Suite, setting: Setting, tasks: Sequence[Task]) -> States:
    """The states of all rows, made where the partitions are."""
    plain = Suite(suite.name, [replace(entry, given=None) for entry in suite.entries], {})
    wanted = [task.key for task in tasks]
    work = functools.partial(
        _states,
        suite=plain,
        form=setting.form,
        memory=setting.spill.limit,
        wanted=wanted,
        columns=list(data.columns),
        approximate=setting.approximate,
    )
    known: States = {task.key: task.make() for task in tasks}
    first = 0
    for shard, saved in zip(data.shards, data.partitions.each(work), strict=True):
        found: States = {}
        for task in tasks:
            fields = saved[task.key]
            if isinstance(fields, BaseException):
                found[task.key] = fields
            else:
                state = task.make()
                state.load(fields, first)
                found[task.key] = state
        merge(known, found)
        first += shard.rows
    return known


def _states(
    partition: Any,
    *,
    suite: Suite,
    form: ResultFormat,
    memory: int,
    wanted: Sequence[Key],
    columns: Sequence[str],
    approximate: bool,
) -> Saved:
    """The states of a partition, as fields. Runs where the partition is."""
    data = replace(_local(partition), columns=list(columns))
    setting = Setting(
        data, form, Spill(memory), 1, lambda rows, columns: View.of(data.take(rows, columns)), approximate
    )
    planned = plan_suite(suite, data)
    tasks = [
        task
        for task in tasks_of(planned, setting, lambda one: one.model.needs(setting) if one.model else {})
        if task.key in set(wanted)
    ]
    states: States = {task.key: task.make() for task in tasks}
    for _, some in scan(data, tasks, data.pieces(), 1):
        merge(states, some)
    return {key: _saved(key, states.get(key)) for key in wanted}


def _saved(key: Key, state: Any) -> Fields | BaseException:
    if not isinstance(state, Accumulator):
        error = (
            state if isinstance(state, BaseException) else RuntimeError(f"{key.need}: not worked out in this partition")
        )
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301  just made here
        except Exception:  # noqa: BLE001  an error that can't travel is told in words
            return RuntimeError(f"{type(error).__name__}: {error}")
        return error
    fields = state.save(0)
    if fields is None:
        return TypeError(f"{key.need}: its state can't be sent")
    return {name: value.array() if isinstance(value, Parts) else value for name, value in fields.items()}
