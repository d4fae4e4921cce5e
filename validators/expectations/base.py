"""What every expectation is: parameters, the accumulators that it needs, and its outcome from them."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gristmill.validators.accumulators import Accumulator, Failing
from gristmill.validators.columns import Column, Mask, View
from gristmill.validators.conditions import Condition, parse_condition
from gristmill.validators.formats import MapFacts, ResultFormat, map_result
from gristmill.validators.inputs import Batch, Data
from gristmill.validators.rows import RowSet
from gristmill.validators.spill import Spill

Considered = tuple[Mask | None, Mask | None]
Check = Callable[[View], Considered]


class Need(NamedTuple):
    """An accumulator that an expectation needs. key: says all that its state depends on but data and row condition; equal keys share one."""

    key: str
    make: Callable[[], Accumulator]


def need(make: Callable[[], Accumulator], *key: Any) -> Need:
    """A need whose key is the JSON of these parts; what JSON has no type for is told from its text, and NaN from null."""
    return Need(json.dumps(_told(key), sort_keys=True), make)


def _told(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (np.ndarray, np.generic)):
        return _told(value.tolist())
    if isinstance(value, Mapping):
        return {str(name): _told(item) for name, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(_told, value), key=repr)
    if isinstance(value, (list, tuple, range)):
        return [_told(item) for item in value]
    return {type(value).__name__: str(value)}


@dataclass(frozen=True)
class Setting:
    """What an expectation is evaluated in. spill: what all accumulators may hold together. batch: reads rows of the data again, by number.
    approximate: estimates may stand for counts of distinct values and quantiles.
    """

    data: Data
    form: ResultFormat
    spill: Spill
    threads: int
    batch: Callable[[npt.NDArray[np.int64], Sequence[str]], View] = field(repr=False)
    approximate: bool = False

    def values(self, rows: npt.NDArray[np.int64], columns: Sequence[str]) -> dict[str, list[Any]]:
        """{column: the Python values of these rows}, None for null."""
        names = list(dict.fromkeys(columns))
        if not len(rows):
            return {name: [] for name in names}
        view = self.batch(rows, names)
        return {name: plain(view.column(name)) for name in names}

    def with_form(self, form: ResultFormat) -> Setting:
        """The same, for results of another format."""
        return replace(self, form=form)


class Outcome(NamedTuple):
    """Success, the "result", for map expectations the rows that are not expected, and of an estimate its method and error."""

    success: bool
    result: dict[str, Any]
    rows: RowSet | None = None
    approximate: dict[str, Any] | None = None


Found = Mapping[str, Any]
"""{name of a need: its accumulator}."""


class Expectation(BaseModel):
    """The parameters of an expectation. `row_condition` limits it to rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, populate_by_name=True)

    type: ClassVar[str]
    row_condition: Any = None
    condition_parser: str | None = None
    batch_id: Any = Field(default=None, exclude=True)
    windows: Any = Field(default=None, exclude=True)
    result_format: Any = Field(default=None, exclude=True)
    catch_exceptions: Any = Field(default=None, exclude=True)

    def condition(self) -> Condition | None:
        """The rows that it is about, None for all."""
        return parse_condition(self.row_condition, self.condition_parser)

    def columns_used(self) -> list[str]:
        """The columns that must be there."""
        return []

    def needs(self, setting: Setting) -> dict[str, Need]:
        """What the first pass works out."""
        return {}

    def needs_again(self, setting: Setting, found: Found) -> dict[str, Need]:
        """What a second pass works out, given what the first has found; empty if none is needed."""
        return {}

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        """The result."""
        raise NotImplementedError


def _mostly(value: Any) -> Any:
    return 1.0 if value is None else value


Mostly = Annotated[float, Field(ge=0, le=1), BeforeValidator(_mostly)]


class MapExpectation(Expectation):
    """Rows are expected or not; it succeeds if at least `mostly` of those considered are. It says which columns' values results show."""

    mostly: Mostly = 1.0
    has_missing: ClassVar[bool] = True
    names_columns: ClassVar[bool] = True

    def check(self, setting: Setting, found: Found) -> Check:
        """What tells unexpected rows: see `Failing`."""
        raise NotImplementedError

    def key(self) -> list[Any]:
        """All that the check depends on."""
        skipped = {"mostly", "row_condition", "condition_parser"}
        return [self.type, self.model_dump(mode="python", exclude=skipped)]

    def needs(self, setting: Setting) -> dict[str, Need]:
        return {"failing": self.failing(setting, {})}

    def failing(self, setting: Setting, found: Found) -> Need:
        """The need of the rows that aren't expected."""
        check = self.check(setting, found)
        return need(lambda: Failing(self.columns_used(), check), *self.key())

    def rows(self, setting: Setting, found: Found) -> tuple[int, int, RowSet]:
        """(rows, rows considered, unexpected rows)."""
        state = found["failing"]
        return state.count, state.considered, state.rows

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        count, considered, rows = self.rows(setting, found)
        unexpected = len(rows)
        success = True
        if count and considered:
            success = (float(considered) - float(unexpected)) / float(considered) >= self.mostly
        return Outcome(success, self.formatted(setting, (count, considered, rows), _shown(found)), rows)

    def formatted(self, setting: Setting, of_rows: tuple[int, int, RowSet], known: pa.Table | None) -> dict[str, Any]:
        """The "result", reading again those of the rows that it shows, if they aren't known."""
        count, considered, rows = of_rows
        form = setting.form
        nonnull = considered if self.has_missing else None
        if form.boolean_only and not form.return_unexpected_index_query:
            return {}
        if not self.names_columns:
            form = replace(form, unexpected_index_column_names=None)
        shown = rows.first(form.values)
        wanted = self.columns_used()
        if known is not None and 0 < len(shown) <= len(known) and set(wanted) <= set(known.column_names):
            view = View.of(Batch(known.slice(0, len(shown)), {}, 0, 0, 0))
            values = {name: plain(view.column(name)) for name in wanted}
        else:
            values = setting.values(shown, wanted)
        listed = rows.to_numpy() if form.complete else rows.first(form.partial_unexpected_count)
        facts = MapFacts(count, nonnull, len(rows), self.listed(values, len(shown)))
        if form.result_format in ("SUMMARY", "COMPLETE"):
            facts = replace(facts, index=self._index(setting, listed))
        if (form.complete and form.return_unexpected_index_query is not False) or form.return_unexpected_index_query:
            facts = replace(facts, query=f"df.filter(items={setting_labels(setting, rows.to_numpy())}, axis=0)")
        if form.include_unexpected_rows:
            every = setting.values(rows.first(form.partial_unexpected_count), list(setting.data.columns))
            facts = replace(
                facts, rows=[dict(zip(every, row, strict=True)) for row in zip(*every.values(), strict=True)]
            )
        return map_result(facts, form)

    def listed(self, values: Mapping[str, list[Any]], count: int) -> list[Any]:
        """The unexpected values as results show them."""
        (name,) = self.columns_used()
        return values[name]

    def _index(self, setting: Setting, rows: npt.NDArray[np.int64]) -> list[Any]:
        """Labels of rows, or dicts of the columns that name them."""
        names = setting.form.unexpected_index_column_names
        if not names:
            return setting_labels(setting, rows)
        for name in names:
            if name not in setting.data.columns:
                raise KeyError(
                    f'Error: The unexpected_index_column "{name}" does not exist in Dataframe. Please check your configuration and try again.'
                )
        if setting.form.exclude_unexpected_values:
            if not len(rows):
                return []
            return [setting.values(rows, list(names))]
        wanted = list(dict.fromkeys([*self.columns_used(), *names]))
        found = setting.values(rows, wanted)
        return [dict(zip(wanted, row, strict=True)) for row in zip(*found.values(), strict=True)]


class ColumnMapExpectation(MapExpectation):
    """About the values of one column; nulls are left out."""

    column: str

    def columns_used(self) -> list[str]:
        return [self.column]

    def unexpected(self, column: Column) -> Mask | None:
        """(rows,) bool: values that aren't expected, None for none. What it says of nulls means nothing."""
        raise NotImplementedError

    def check(self, setting: Setting, found: Found) -> Check:
        def check(view: View) -> Considered:
            column = view.column(self.column)
            if not column.nonnull:
                return column.valid, None
            wrong = self.unexpected(column)
            if wrong is not None and column.valid is not None:
                wrong = wrong & column.valid
            return column.valid, wrong

        return check


def _shown(found: Found) -> pa.Table | None:
    state = found.get("failing")
    return state.shown if isinstance(state, Failing) else None


def setting_labels(setting: Setting, rows: npt.NDArray[np.int64]) -> list[Any]:
    """What the rows are called: their numbers, or the labels of a pandas index."""
    if setting.data.index is None:
        return rows.tolist()
    return [setting.data.index[row] for row in rows]


def plain(column: Column) -> list[Any]:
    """The Python values of all rows, None for null."""
    found: list[Any] = [None] * column.rows
    places = np.arange(column.rows) if column.valid is None else np.flatnonzero(column.valid)
    for place, value in zip(places.tolist(), column.objects, strict=True):
        found[place] = value
    return found


def each(column: Column, expected: Callable[[Any], Any]) -> Mask:
    """(rows,) bool: True where a value isn't what `expected` says, one Python call a value; what it says of nulls means nothing."""
    wrong = np.array([not expected(value) for value in column.objects], bool)
    return column.full(wrong)


def _comparable(value: Any) -> Any:
    """A bound as Great Expectations takes it: a number, or a date or time, from their text too."""
    if value is None or isinstance(value, (int, float, datetime.date)):
        return float(value) if isinstance(value, bool) else value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            pass
        else:
            return int(number) if number.is_integer() else number
        for parse in (datetime.date.fromisoformat, datetime.datetime.fromisoformat):
            try:
                return parse(value)
            except ValueError:
                continue
        raise ValueError(f"expected a number, a date or a time, got {value!r}; write dates as 2024-01-31")
    if hasattr(value, "__float__"):
        return value
    raise ValueError(f"expected a number, a date or a time, got {type(value).__name__}")


Comparable = Annotated[Any, BeforeValidator(_comparable)]


class Between(BaseModel):
    """Bounds; None is no bound."""

    min_value: Comparable = None
    max_value: Comparable = None
    strict_min: bool | None = False
    strict_max: bool | None = False

    def check_bounds(self) -> None:
        """Raises ValueError if no value can lie between them, or if there is none."""
        low, high = self.min_value, self.max_value
        if low is None and high is None:
            raise ValueError("min_value and max_value cannot both be None")
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_value cannot be greater than max_value: {low} > {high}")

    def holds(self, value: Any) -> bool:
        """Whether a value lies between the bounds."""
        above = self.min_value is None or (value > self.min_value if self.strict_min else value >= self.min_value)
        below = self.max_value is None or (value < self.max_value if self.strict_max else value <= self.max_value)
        return bool(above and below)
