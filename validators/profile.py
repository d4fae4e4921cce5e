"""What a dataset holds, learnt in one bounded pass: types, nulls, distinct and frequent values, quantiles, outliers, lengths, shapes of text."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.validators.accumulators import Fields
from gristmill.validators.bundles import UNREADABLE, digest, keep, recall
from gristmill.validators.frozen import freeze, thaw
from gristmill.validators.inputs import Data, open_data
from gristmill.validators.sketches import F64, quantile, quantiles_at, share_below
from gristmill.validators.summaries import ColumnState, Limits, NumberState, TextState, from_float

VERSION = 1
"""To be raised whenever what is learnt of a shard changes."""
BATCH_ROWS = 1 << 16
SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
TOP = 200  # frequent values that are kept
POINTS = 257  # of a distribution, where it is stored
ORDERED = 24  # number or time columns whose order by pairs is watched
THREADS = 2


@dataclass(frozen=True)
class Numbers:
    """The numbers of a column, or the lengths of its texts and lists. Quantiles are by rank share; a share is off by at most `rank_error`.

    fences: Tukey's, Q1 - 1.5 IQR and Q3 + 1.5 IQR; outliers: how many lie under and over them. std: of a sample.
    """

    count: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    zeros: int
    negative: int
    infinite: int
    quantiles: dict[str, float]
    rank_error: float
    fences: tuple[float, float] | None
    outliers: tuple[int, int]
    points: tuple[F64, F64] = field(repr=False, compare=False)

    def at(self, share: float) -> float:
        """The quantile at a share."""
        return quantile(self.points, share)


@dataclass(frozen=True)
class Text:
    """The texts of a column. shapes: 9 for a digit, A and a for letters, ¤ beyond ASCII; runs: the same with each run as one sign.

    shaped: values whose shape was looked at: all up to 64 characters, or every so many of them where they are very many; unshaped: longer ones. padded: with white space at an end. damaged: that look like UTF-8 read in another encoding.
    """

    empty: int
    padded: int
    non_ascii: int
    damaged: int
    unshaped: int
    shaped: int
    prefix: str
    suffix: str
    shapes: list[tuple[str, int]]
    shapes_error: int
    runs: list[tuple[str, int]]
    runs_error: int


@dataclass(frozen=True)
class ColumnProfile:
    """One column. low and high: in the column's own type. distinct_error: relative standard error, 0 if exact. top_error: no count of `top`
    is more than this too low.
    """

    name: str
    type: str
    kind: str
    rows: int
    nulls: int
    nans: int
    low: Any
    high: Any
    distinct: int | None
    distinct_error: float
    top: list[tuple[Any, int]]
    top_error: int
    numbers: Numbers | None
    text: Text | None

    @property
    def present(self) -> int:
        """Values that are neither null nor NaN."""
        return self.rows - self.nulls - self.nans

    def value(self, number: float) -> Any:
        """A quantile or bound in the column's own type."""
        return from_float(number, self.kind, self.type)


@dataclass(frozen=True)
class Profile:
    """A table. orders: pairs of columns where the first is never less than the second, with the rows that have both."""

    rows: int
    columns: dict[str, ColumnProfile]
    orders: list[tuple[str, str, int]]

    def to_json_dict(self) -> dict[str, Any]:
        """Plain values; distributions as at most 257 points."""
        columns = [_plain(asdict(_condensed(column))) for column in self.columns.values()]
        return {"rows": self.rows, "columns": columns, "orders": [list(order) for order in self.orders]}

    @staticmethod
    def from_json_dict(values: Mapping[str, Any]) -> Profile:
        """The inverse of `to_json_dict`; times and decimals stay text."""
        columns = {}
        for column in values["columns"]:
            numbers, text = column["numbers"], column["text"]
            if numbers is not None:
                points = tuple(np.array(part, np.float64) for part in numbers["points"])
                fences = tuple(numbers["fences"]) if numbers["fences"] else None
                numbers = Numbers(
                    **{**numbers, "points": points, "fences": fences, "outliers": tuple(numbers["outliers"])}
                )
            if text is not None:
                text = Text(**{**text, **{name: [tuple(pair) for pair in text[name]] for name in ("shapes", "runs")}})
            top = [tuple(pair) for pair in column["top"]]
            columns[column["name"]] = ColumnProfile(**{**column, "numbers": numbers, "text": text, "top": top})
        return Profile(values["rows"], columns, [(a, b, rows) for a, b, rows in values["orders"]])


class Profiler:
    """Takes batches, gives a `Profile`. Memory is bounded by the number of columns and one batch, whatever the number of rows."""

    def __init__(self, schema: pa.Schema) -> None:
        limits = Limits.of(len(schema))
        self._schema = schema
        self._states = {each.name: ColumnState(each.type, limits) for each in schema}
        kinds: dict[str, list[str]] = {"number": [], "time": []}
        for name, state in self._states.items():
            if state.kind in kinds and not name.startswith("_"):
                kinds[state.kind].append(name)
        self._orders = {
            pair: [0, True, True] for names in kinds.values() for pair in itertools.combinations(names[:ORDERED], 2)
        }
        self.rows = 0

    def update(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Takes the next rows, which have the columns of the schema."""
        table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
        with ThreadPoolExecutor(THREADS) as threads:
            for start in range(0, table.num_rows, BATCH_ROWS):
                part = table.slice(start, BATCH_ROWS)
                arrays = {name: _joined(part[name]) for name in self._states}
                list(threads.map(lambda name: self._states[name].update(arrays[name]), self._states))  # noqa: B023  done before it changes
                self._compare(arrays)
        self.rows += table.num_rows

    def save(self) -> Fields:
        """What it has learnt, as fields; sketches of numbers are condensed to one buffer a column."""
        orders = [[*pair, *seen] for pair, seen in self._orders.items()]
        fields: Fields = {"rows": self.rows, "orders": orders}
        for number, state in enumerate(self._states.values()):
            if state.numbers is not None:
                state.numbers.quantiles.condense()
            fields |= freeze(state, f"{number}.")
        return fields

    def load(self, fields: Fields) -> None:
        """Becomes what `save` was called on, a profiler of the same schema. Raises KeyError for one of another."""
        self.rows = fields["rows"]
        self._orders = {(a, b): seen for a, b, *seen in fields["orders"]}
        for number, state in enumerate(self._states.values()):
            thaw(state, fields, f"{number}.")

    def merge(self, other: Profiler) -> None:
        """Adds what another one of the same schema has seen."""
        for name, state in self._states.items():
            state.merge(other._states[name])
        for pair, seen in other._orders.items():
            held = self._orders.get(pair)
            if held is not None:
                self._orders[pair] = [held[0] + seen[0], held[1] and seen[1], held[2] and seen[2]]
        gone = [pair for pair in self._orders if pair not in other._orders]
        for pair in gone:
            del self._orders[pair]
        self.rows += other.rows

    def finish(self) -> Profile:
        """The profile of all that was taken."""
        columns = {name: _finished(name, state) for name, state in self._states.items()}
        orders = []
        for (a, b), (rows, never_less, never_more) in self._orders.items():
            if rows and never_less != never_more:
                orders.append((a, b, rows) if never_less else (b, a, rows))
        return Profile(self.rows, columns, orders)

    def _compare(self, arrays: Mapping[str, pa.Array]) -> None:
        """Watches which of two columns is never less; pairs that are seen in both orders are watched no more."""
        for pair, seen in list(self._orders.items()):
            a, b = (arrays[name] for name in pair)
            if pa.types.is_decimal(a.type) or pa.types.is_decimal(b.type):
                a, b = a.cast(pa.float64(), safe=False), b.cast(pa.float64(), safe=False)
            try:
                less, more = pc.any(pc.less(a, b)).as_py(), pc.any(pc.greater(a, b)).as_py()
            except (
                pa.ArrowNotImplementedError,
                pa.ArrowInvalid,
            ):  # types without a common one, such as with and without a time zone
                del self._orders[pair]
                continue
            seen[0] += len(a) - pc.or_(pc.is_null(a), pc.is_null(b)).true_count
            seen[1], seen[2] = seen[1] and not less, seen[2] and not more
            if not seen[1] and not seen[2]:
                del self._orders[pair]


def profile(data: Any, *, columns: Sequence[str] | None = None, split: str | None = None) -> Profile:
    """The profile of anything that `open_data` takes, or of some of its columns. One pass; memory as of `Profiler`.

    Columns of mixed Python objects, which have no Arrow type, are left out.

    Raises:
        ColumnError: no such column.
        InputError: a shard that can't be read, named.
    """
    opened = open_data(data, split=split)
    for name in columns or ():
        opened.check_column(name, opened.name)
    chosen = [name for name in (opened.columns if columns is None else columns) if name in opened.schema.names]
    schema = pa.schema([opened.schema.field(name) for name in chosen])
    if opened.dataset is not None and columns is None:
        return _by_shards(opened, schema)
    return profile_batches(schema, (batch.table for batch in opened.batches(chosen)))


def _by_shards(data: Data, schema: pa.Schema) -> Profile:
    """The profile of a dataset: what was learnt of each shard is kept beside it, so that of the next version only new shards are read."""
    assert data.dataset is not None
    folder, name = data.dataset.folder, digest(["profile", VERSION, str(schema)])
    whole, keeps = Profiler(schema), True
    for number, shard in enumerate(data.shards):
        part = _recalled(schema, recall(folder, shard, name))
        if part is None:
            part = Profiler(schema)
            for batch in data.batches(schema.names, [number]):
                part.update(batch.table)
            fields = part.save()
            keeps = keeps and keep(data.dataset, shard, name, fields)
        whole.merge(part)
    return whole.finish()


def _recalled(schema: pa.Schema, fields: Fields | None) -> Profiler | None:
    part = Profiler(schema)
    with contextlib.suppress(*UNREADABLE):
        if fields is not None:
            part.load(fields)
            return part
    return None


def profile_batches(schema: pa.Schema, batches: Iterable[pa.RecordBatch | pa.Table]) -> Profile:
    """The profile of some batches with this schema."""
    profiler = Profiler(schema)
    for batch in batches:
        profiler.update(batch)
    return profiler.finish()


def _joined(column: pa.ChunkedArray) -> pa.Array:
    return (
        column.chunk(0)
        if column.num_chunks == 1
        else pa.concat_arrays(column.chunks)
        if column.num_chunks
        else pa.array([], column.type)
    )


def _finished(name: str, state: ColumnState) -> ColumnProfile:
    distinct: int | None = None
    error, top, top_error = 0.0, [], 0
    if state.counts is not None:
        (distinct, error), top, top_error = state.counts.distinct(), state.counts.top(TOP), state.counts.error
        distinct = min(distinct, state.rows - state.nulls - state.nans)
    return ColumnProfile(
        name,
        str(state.type),
        state.kind,
        state.rows,
        state.nulls,
        state.nans,
        state.low,
        state.high,
        distinct,
        error,
        top,
        top_error,
        _numbers(state.numbers) if state.numbers is not None else None,
        _text(state.text) if state.text is not None else None,
    )


def _numbers(state: NumberState) -> Numbers | None:
    if not state.count:
        return (
            None
            if not state.infinite
            else Numbers(
                0, None, None, None, None, 0, 0, state.infinite, {}, 0.0, None, (0, 0), (np.zeros(0), np.zeros(0))
            )
        )
    points = state.quantiles.points()
    first, third = quantiles_at(points, [0.25, 0.75]).tolist()
    fences = (first - 1.5 * (third - first), third + 1.5 * (third - first))
    outliers = (share_below(points, fences[0]), 1 - share_below(points, fences[1], inclusive=True))
    return Numbers(
        state.count,
        state.mean if math.isfinite(state.mean) else None,
        state.std if math.isfinite(state.std) else None,
        state.low,
        state.high,
        state.zeros,
        state.negative,
        state.infinite,
        dict(zip(map(str, SHARES), quantiles_at(points, SHARES).tolist(), strict=True)),
        state.quantiles.error,
        fences,
        (round(outliers[0] * state.count), round(outliers[1] * state.count)),
        points,
    )


def _text(state: TextState) -> Text:
    return Text(
        state.empty,
        state.padded,
        state.non_ascii,
        state.damaged,
        state.unshaped,
        state.shaped,
        state.prefix,
        state.suffix,
        [(str(shape), count) for shape, count in state.shapes.top(20)],
        state.shapes.error,
        [(str(shape), count) for shape, count in state.runs.top(20)],
        state.runs.error,
    )


def _condensed(column: ColumnProfile) -> ColumnProfile:
    """The column with at most POINTS points, each for an equal share of the rows: every rank is right to 1 in 256."""
    numbers = column.numbers
    if numbers is None or len(numbers.points[0]) <= POINTS:
        return column
    values = quantiles_at(numbers.points, (np.arange(POINTS) + 0.5) / POINTS)
    values[[0, -1]] = numbers.points[0][[0, -1]]
    points = (values, np.full(POINTS, numbers.count / POINTS))
    return replace(column, numbers=replace(numbers, points=points))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (dt.date, dt.datetime)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
