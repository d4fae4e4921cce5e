"""What one pass learns of one column: counts, values, numbers, lengths and the shapes of its text. States are mergeable and bounded."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.kernels.hashing import hash_text, hex_digests
from gristmill.validators.sketches import F64, Counts, Quantiles

LONG = 128  # characters: of longer values only the first 64 and a hash are kept
SHAPED = 64  # characters: longer values have no shape
SHAPES = 1000
SAMPLE = 4096  # different values of a batch whose shape is looked at
_TAIL = "\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u017d\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178"
DAMAGED = f"\ufffd|[\u00c2-\u00df][{_TAIL}]|[\u00e0-\u00ef][{_TAIL}][{_TAIL}]|\u00e2\u20ac"
"""What UTF-8 looks like once it was read as Latin-1 or Windows-1252, and the replacement character."""


@dataclass(frozen=True)
class Limits:
    """How much a column may hold: values counted exactly, and numbers kept for quantiles."""

    values: int
    numbers: int

    @staticmethod
    def of(columns: int) -> Limits:
        """Limits that keep all columns together within some hundred MB: 2^15 each for up to 128 columns, less for more."""
        size = max(256, min(1 << 15, (1 << 22) // max(columns, 1)))
        return Limits(size, size)


def kind_of(kind: pa.DataType) -> str:
    """number, boolean, text, time, list, binary or other."""
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    if types.is_timestamp(kind) or types.is_date(kind):
        return "time"
    if types.is_boolean(kind):
        return "boolean"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return "list"
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return "binary"
    return "other"


class NumberState:
    """The numbers of a column: how many, their moments, ends and order. Infinite ones are counted and left out of all else."""

    def __init__(self, capacity: int) -> None:
        self.count = self.infinite = self.zeros = self.negative = 0
        self.mean = self.squares = 0.0
        self.low, self.high = math.inf, -math.inf
        self.quantiles = Quantiles(capacity)

    def update(self, values: F64) -> None:
        """Takes numbers without NaN."""
        finite = np.isfinite(values)
        if not finite.all():
            self.infinite += int((~finite).sum())
            values = values[finite]
        if not len(values):
            return
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # moments that are no numbers any more are left out at the end
            mean = float(values.mean())
            self._moments(len(values), mean, float(((values - mean) ** 2).sum()))
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.zeros += int((values == 0).sum())
        self.negative += int((values < 0).sum())
        self.quantiles.update(values)

    def merge(self, other: NumberState) -> None:
        """Adds what another state has seen."""
        self._moments(other.count, other.mean, other.squares)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        for name in ("infinite", "zeros", "negative"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.quantiles.merge(other.quantiles)

    @property
    def std(self) -> float:
        """The sample standard deviation; NaN under 2 numbers."""
        return math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else math.nan

    def _moments(self, count: int, mean: float, squares: float) -> None:
        """Chan, Golub and LeVeque's update of mean and sum of squares."""
        if not count:
            return
        total = self.count + count
        delta = mean - self.mean
        self.mean += delta * count / total
        self.squares += squares + delta * delta * self.count * count / total
        self.count = total


@dataclass
class TextState:
    """What is said of text beside its values and lengths. shapes: 'AA-9999' for 'NY-2041'; runs: the same with each run as one letter."""

    empty: int = 0
    padded: int = 0
    non_ascii: int = 0
    damaged: int = 0
    unshaped: int = 0
    shaped: int = 0
    ends: list[str] | None = (
        None  # least and greatest value, least and greatest reversed value: they give the common prefix and suffix
    )
    shapes: Counts = field(default_factory=lambda: Counts(pa.string(), SHAPES))
    runs: Counts = field(default_factory=lambda: Counts(pa.string(), SHAPES))

    def update(self, values: pa.Array, counts: Any) -> None:
        """Takes distinct texts with how often each comes."""
        lengths = pc.utf8_length(values)
        self.empty += _times(pc.equal(lengths, 0), counts)
        self.padded += _times(pc.less(pc.utf8_length(pc.utf8_trim_whitespace(values)), lengths), counts)
        foreign = pc.invert(pc.string_is_ascii(values))
        self.non_ascii += _times(foreign, counts)
        if pc.any(foreign).as_py():
            self.damaged += _times(
                pc.match_substring_regex(values.filter(foreign), DAMAGED),
                counts[foreign.to_numpy(zero_copy_only=False)],
            )
        short = pc.less_equal(lengths, SHAPED)
        self.unshaped += _times(pc.invert(short), counts)
        self._shape(values.filter(short), counts[short.to_numpy(zero_copy_only=False)])
        self._edges(pc.utf8_slice_codeunits(values, 0, SHAPED), values)

    def merge(self, other: TextState) -> None:
        """Adds what another state has seen."""
        for name in ("empty", "padded", "non_ascii", "damaged", "unshaped", "shaped"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.shapes.merge(other.shapes)
        self.runs.merge(other.runs)
        if other.ends is not None:
            self._ends(*other.ends)

    def _shape(self, values: pa.Array, counts: Any) -> None:
        if len(values) > SAMPLE:
            some = np.arange(0, len(values), -(-len(values) // SAMPLE))
            values, counts = values.take(pa.array(some)), counts[some]
        self.shaped += int(counts.sum())
        for pattern, sign in (("[0-9]", "9"), ("[A-Z]", "A"), ("[a-z]", "a"), (r"[^\x00-\x7f]", "\u00a4")):
            values = pc.replace_substring_regex(values, pattern, sign)
        self.shapes.add(values, counts, repeated=True)
        for sign in "9Aa\u00a4":
            values = pc.replace_substring_regex(values, f"{sign}+", sign)
        self.runs.add(values, counts, repeated=True)

    def _edges(self, heads: pa.Array, values: pa.Array) -> None:
        if not len(values):
            return
        tails = pc.utf8_reverse(pc.utf8_slice_codeunits(values, -SHAPED, None))
        least, most = (pc.min_max(part).as_py() for part in (heads, tails))
        self._ends(least["min"], least["max"], most["min"], most["max"])

    def _ends(self, low: str, high: str, low_tail: str, high_tail: str) -> None:
        held = self.ends or [low, high, low_tail, high_tail]
        self.ends = [min(held[0], low), max(held[1], high), min(held[2], low_tail), max(held[3], high_tail)]

    @property
    def prefix(self) -> str:
        """What all values begin with."""
        return _common(*self.ends[:2]) if self.ends else ""

    @property
    def suffix(self) -> str:
        """What all values end with."""
        return _common(*self.ends[2:])[::-1] if self.ends else ""


class ColumnState:
    """All that is learnt of one column."""

    def __init__(self, kind: pa.DataType, limits: Limits) -> None:
        self.type = kind.value_type if pa.types.is_dictionary(kind) else kind
        self.kind = kind_of(self.type)
        self.rows = self.nulls = self.nans = 0
        self.counts = (
            Counts(_counted(self.type), limits.values)
            if self.kind in ("number", "boolean", "text", "time", "binary")
            else None
        )
        self.numbers = NumberState(limits.numbers) if self.kind != "other" else None
        self.text = TextState() if self.kind == "text" else None
        self.low: Any = None
        self.high: Any = None

    def update(self, array: pa.Array) -> None:
        """Takes the next values of the column."""
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        self.rows += len(array)
        self.nulls += array.null_count
        array = array.drop_null() if array.null_count else array
        if self.numbers is None or not len(array):
            return
        if pa.types.is_float16(array.type):
            array = array.cast(pa.float32())
        if pa.types.is_floating(array.type):
            nan = pc.is_nan(array)
            found = int(pc.sum(nan).as_py() or 0)
            if found:
                self.nans += found
                array = array.filter(pc.invert(nan))
            array = pc.add(array, pa.scalar(0.0, array.type))  # -0.0 is 0.0
        self._values(array)

    def merge(self, other: ColumnState) -> None:
        """Adds what another state of the same column has seen."""
        for name in ("rows", "nulls", "nans"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in ((self.counts, other.counts), (self.numbers, other.numbers), (self.text, other.text)):
            if mine is not None and theirs is not None:
                mine.merge(theirs)  # type: ignore[arg-type]
        if other.low is not None:
            self._range(other.low, other.high)

    def _values(self, array: pa.Array) -> None:
        assert self.numbers is not None
        if self.kind in ("text", "binary"):
            found = pc.value_counts(array)
            values, counts = found.field("values"), found.field("counts").to_numpy()
            if self.text is not None:
                self.text.update(values, counts)
            assert self.counts is not None
            self.counts.add(_keys(values), counts)
            lengths = pc.utf8_length(array) if self.kind == "text" else pc.binary_length(array)
            self.numbers.update(lengths.to_numpy().astype(np.float64))
            return
        if self.kind == "list":
            self.numbers.update(pc.list_value_length(array).to_numpy().astype(np.float64))
            return
        if self.kind != "boolean" and len(array):
            ends = pc.min_max(_shown(array)).as_py()
            self._range(ends["min"], ends["max"])
        self.numbers.update(as_floats(array))
        assert self.counts is not None
        self.counts.update(_shown(array) if self.kind == "time" else array)

    def _range(self, low: Any, high: Any) -> None:
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)


def as_floats(array: pa.Array) -> F64:
    """Numbers, booleans (0, 1) and times (microseconds since 1970) as floats; no nulls."""
    kind = array.type
    if pa.types.is_boolean(kind):
        array = array.cast(pa.int8())
    elif kind_of(kind) == "time":
        zone = getattr(kind, "tz", None)
        array = array.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
    elif pa.types.is_decimal(kind):
        array = array.cast(pa.float64())
    return np.asarray(array.to_numpy(zero_copy_only=False), np.float64)


def from_float(value: float, kind: str, of: str) -> Any:
    """The inverse of `as_floats` for one number: an int for whole-number columns, a date or datetime for times. of: the type's name."""
    if not math.isfinite(value):
        return None
    if kind == "time":
        moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=round(value))
        if of.startswith("date"):
            return moment.date()
        return moment if "tz=" in of else moment.replace(tzinfo=None)
    return int(value) if kind == "number" and "int" in of and value.is_integer() else value


def _counted(kind: pa.DataType) -> pa.DataType:
    if kind_of(kind) in ("text", "binary"):
        return pa.string()
    return _unit(kind)


def _unit(kind: pa.DataType) -> pa.DataType:
    """Times in microseconds at the finest: Python's own have no nanoseconds. Halves as floats: Arrow counts and compares no halves."""
    if pa.types.is_float16(kind):
        return pa.float32()
    return pa.timestamp("us", kind.tz) if pa.types.is_timestamp(kind) and kind.unit == "ns" else kind


def _shown(array: pa.Array) -> pa.Array:
    return array.cast(_unit(array.type), safe=False)


def _keys(values: pa.Array) -> pa.Array:
    """What is counted in place of each value: short text itself; of long text its start and a hash; of bytes a hash."""
    if kind_of(values.type) == "binary":
        kind = pa.large_binary() if not pa.types.is_large_binary(values.type) else values.type
        return hex_digests(hash_text(values.cast(kind))).cast(pa.string())
    long = pc.greater(pc.utf8_length(values), LONG)
    if not pc.any(long).as_py():
        return values.cast(pa.string())
    heads = pc.utf8_slice_codeunits(values, 0, SHAPED).cast(pa.large_string())
    named = pc.binary_join_element_wise(heads, hex_digests(hash_text(values)), pa.scalar("\u2026 #", pa.large_string()))
    return pc.if_else(long, named, values.cast(pa.large_string())).cast(pa.string())


def _times(mask: pa.Array, counts: Any) -> int:
    return int(counts[mask.to_numpy(zero_copy_only=False)].sum())


def _common(one: str, other: str) -> str:
    n = 0
    while n < min(len(one), len(other)) and one[n] == other[n]:
        n += 1
    return one[:n]
