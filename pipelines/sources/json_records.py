"""The records of one chunk of JSON lines: parsed all at once, and where something is wrong, sifted by halving until the lines that are to blame are found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from gristmill.pipelines.sources.base import bad_rows
from gristmill.pipelines.sources.json_kinds import (
    MAX_DEPTH,
    Kinds,
    depth_of,
    kind_of_value,
    kinds_of_schema,
    lost_integers,
)

I64 = npt.NDArray[np.int64]
LEAF = 16  # so many lines, or a 64th of the chunk's, are looked at one by one
SAMPLE = 8
EXACT = float(2**53)  # from here on floats skip integers
REFUSED = (pa.ArrowInvalid, pa.ArrowNotImplementedError)


class Parsed(NamedTuple):
    """A table, and its columns that look like times but are text."""

    table: pa.Table
    texts: dict[str, pa.DataType]


class Records:
    """The lines of a chunk that are still good, in order: line i is `data[starts[i]:stops[i]]`; and those that were found bad."""

    def __init__(self, data: bytes, offset: int, place: str, starts: I64, stops: I64) -> None:
        self.data, self.offset, self.place = data, offset, place
        self.starts, self.stops = starts, stops
        self._buffer = pa.py_buffer(data)
        self._good = np.ones(len(starts), bool)
        self._bad: dict[int, tuple[str, str, str, bytes, int]] = {}

    def __len__(self) -> int:
        return len(self.starts)

    def line(self, i: int) -> bytes:
        """The bytes of a line."""
        return self.data[self.starts[i] : self.stops[i]]

    def quarantine(self, i: int, reason: str, detail: str, cap: int | None = None) -> None:
        """Sets a line aside; `sweep` takes it out."""
        start, stop = int(self.starts[i]), int(self.stops[i])
        raw = self.data[start:stop] if cap is None else self.data[start : min(stop, start + cap)]
        self._bad[start] = (f"{self.place} {self.offset + start}", reason, detail, raw, stop - start)
        self._good[i] = False

    def drop(self, i: int) -> None:
        """Takes a line for nothing at all."""
        self._good[i] = False

    def sweep(self) -> bool:
        """Whether lines were set aside since the last sweep; from now on they are gone."""
        if self._good.all():
            return False
        self.starts, self.stops = self.starts[self._good], self.stops[self._good]
        self._good = np.ones(len(self.starts), bool)
        return True

    def bad(self) -> pa.Table:
        """BAD rows of the lines set aside, in order."""
        return bad_rows([self._bad[start] for start in sorted(self._bad)])

    def text(self, lo: int, hi: int) -> pa.Buffer:
        """The lines lo to hi; without a copy where only line ends lie between them."""
        starts, stops = self.starts[lo:hi], self.stops[lo:hi]
        breaks = np.flatnonzero(starts[1:] - stops[:-1] > 2) + 1
        if not len(breaks):
            return self._buffer.slice(int(starts[0]), int(stops[-1] - starts[0]))
        firsts, lasts = np.concatenate([[0], breaks]), np.concatenate([breaks, [hi - lo]]) - 1
        return pa.py_buffer(
            b"\n".join(self.data[a:b] for a, b in zip(starts[firsts].tolist(), stops[lasts].tolist(), strict=True))
        )

    def failing(self, fine: Callable[[int, int], bool]) -> Iterator[int]:
        """The lines that are not fine by themselves, found by halving: cheap when they are few."""
        todo = [(0, len(self))]
        while todo:
            lo, hi = todo.pop()
            if lo == hi or fine(lo, hi):
                continue
            if hi - lo == 1:
                yield lo
            else:
                middle = (lo + hi) // 2
                todo += [(middle, hi), (lo, middle)]


def parse_records(records: Records, kinds: Kinds) -> pa.Table:
    """The table of the good lines; the others are quarantined. `kinds` are those of the item so far, and learn from these."""
    parsed = _accepted(records, kinds, 0, len(records))
    if parsed is None:
        _sift(records, kinds, 0, len(records), max(LEAF, len(records) // 64))
        records.sweep()
        parsed = _accepted(records, kinds, 0, len(records))
    if parsed is None:  # what is left is sound by itself; the parser has its own reasons
        for i in records.failing(lambda lo, hi: _accepted(records, kinds, lo, hi) is not None):
            records.quarantine(i, *_refusal(records, kinds, i))
        records.sweep()
        parsed = _accepted(records, kinds, 0, len(records))
    assert parsed is not None, f"lines from {records.place} {records.offset} parse alone, not together"
    while _quarantine_rounded(records, parsed.table, kinds):
        parsed = _parse(records, kinds, 0, len(records))
        assert parsed is not None, f"fewer lines from {records.place} {records.offset} don't parse"
    kinds.learn(kinds_of_schema(parsed.table.schema), parsed.texts)
    return parsed.table


def _accepted(records: Records, kinds: Kinds, lo: int, hi: int) -> Parsed | None:
    """The lines' table, if all of them are good."""
    parsed = _parse(records, kinds, lo, hi)
    if parsed is None:
        return None
    inferred = {name: kind for name, kind in kinds_of_schema(parsed.table.schema).items() if name not in kinds.declared}
    return None if kinds.misfit(inferred) or _too_deep(parsed.table.schema) else parsed


def _too_deep(schema: pa.Schema) -> bool:
    return any(depth_of(field.type) >= MAX_DEPTH for field in schema)


def _parse(records: Records, kinds: Kinds, lo: int, hi: int) -> Parsed | None:
    """The lines parsed at once, or None where the parser refuses one of them."""
    if lo == hi:
        return Parsed(pa.table({}), {})
    text = records.text(lo, hi)
    try:
        texts, names = _sample(records, kinds, lo, hi)
        table = _read(text, kinds.told(texts))
        names = names or table.column_names
        more = kinds.texts(table.schema)
        if more:
            texts = kinds.join_texts(texts, more)
            table = _read(text, kinds.told(texts))
        table = table.select([*names, *[name for name in table.column_names if name not in names]])
        table = _with_whole_lists(text, table, kinds.told(texts))
        for name, kind in kinds.declared.items():
            if table.schema.field(name).type != kind:
                table = table.set_column(table.column_names.index(name), name, table[name].cast(kind))
    except REFUSED:
        return None
    return Parsed(table, texts) if table.num_rows == hi - lo else None  # two objects on one line


def _sample(records: Records, kinds: Kinds, lo: int, hi: int) -> tuple[dict[str, pa.DataType], list[str]]:
    """(columns of the first lines that look like times, the columns' names): knowing them saves reading all lines twice."""
    if hi - lo < 32 * SAMPLE:
        return {}, []
    first = _read(records.text(lo, min(lo + SAMPLE, hi)), None).schema
    return kinds.texts(first), first.names


def _read(text: pa.Buffer, schema: pa.Schema | None) -> pa.Table:
    return pj.read_json(
        pa.BufferReader(text),
        read_options=pj.ReadOptions(use_threads=False, block_size=max(text.size, 1 << 16)),
        parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="infer"),
    )


def _with_whole_lists(text: pa.Buffer, table: pa.Table, told: pa.Schema | None) -> pa.Table:
    """The table, read again where the parser has lost list elements: it loses nulls before a list's first value, unless it is told the
    type (apache/arrow issue 51305), and all but the first of a list of nothing but nulls.
    """
    short = [field for field in table.schema if _is_short(table[field.name])]
    if not short:
        return table
    explicit = {field.name: field.type for field in [*(told or ()), *short]}
    again = _read(text, pa.schema(list(explicit.items()))).select(table.column_names)
    for i, field in enumerate(again.schema):
        if _is_short(again.column(i)):
            again = again.set_column(
                i, field, pa.chunked_array([_of_nulls(chunk) for chunk in again.column(i).chunks], field.type)
            )
    return again


def _is_short(array: pa.Array | pa.ChunkedArray) -> bool:
    """Whether offsets of lists point beyond their values."""
    if not pa.types.is_nested(array.type):
        return False
    if isinstance(array, pa.ChunkedArray):
        return any(_is_short(chunk) for chunk in array.chunks)
    if pa.types.is_struct(array.type):
        return any(_is_short(array.field(i)) for i in range(array.type.num_fields))
    return bool(pa.types.is_list(array.type) and len(array)) and (
        len(array.values) < array.offsets[-1].as_py() or _is_short(array.values)
    )


def _of_nulls(array: pa.Array) -> pa.Array:
    """The array with its lists of nulls as long as their offsets say."""
    kind = array.type
    mask = array.is_null() if array.null_count else None
    if pa.types.is_list(kind) and len(array):
        values = pa.nulls(array.offsets[-1].as_py()) if pa.types.is_null(kind.value_type) else _of_nulls(array.values)
        return pa.ListArray.from_arrays(array.offsets, values, type=kind, mask=mask)
    if pa.types.is_struct(kind) and kind.num_fields:
        return pa.StructArray.from_arrays(
            [_of_nulls(array.field(i)) for i in range(kind.num_fields)], fields=list(kind), mask=mask
        )
    return array


def _sift(records: Records, kinds: Kinds, lo: int, hi: int, leaf: int) -> None:
    """Quarantines the lines lo to hi that are bad, from first to last, so that the first kind seen of a column is the one that counts."""
    if lo == hi:
        return
    parsed = _accepted(records, kinds, lo, hi)
    if parsed is not None:
        kinds.learn(kinds_of_schema(parsed.table.schema), parsed.texts)
    elif hi - lo > leaf:
        middle = (lo + hi) // 2
        _sift(records, kinds, lo, middle, leaf)
        _sift(records, kinds, middle, hi, leaf)
    else:
        for i in range(lo, hi):
            problem = _problem(records.line(i).decode(), kinds)
            if problem:
                records.quarantine(i, *problem)


def _problem(line: str, kinds: Kinds) -> tuple[str, str] | None:
    """(reason, detail) of what is wrong with a line, or None; its kinds are learned then."""
    try:
        value = json.loads(line, object_pairs_hook=_no_repeats)
        if "\\u" in line:
            json.dumps(value, ensure_ascii=False).encode()  # fails where an escape is half a surrogate pair
    except _RepeatedKeyError as error:
        return "duplicate_key", f"key {error.args[0]!r} twice in one object"
    except UnicodeEncodeError as error:
        return "lone_surrogate", f"\\u{ord(error.object[error.start]):04x} without its other half"
    except ValueError as error:
        return "bad_json", str(error)
    except RecursionError:
        return "too_deep", f"more than {MAX_DEPTH} levels"
    found = {name: kind_of_value(item) for name, item in value.items()}
    misfit = kinds.misfit(found) or kinds.misvalue(value)
    if misfit:
        return "wrong_type", misfit
    kinds.learn(found)
    return None


def _refusal(records: Records, kinds: Kinds, i: int) -> tuple[str, str]:
    """(reason, detail) of what the parser has against a line that is sound JSON."""
    parsed = _parse(records, kinds, i, i + 1)
    if parsed is not None:
        inferred = {
            name: kind for name, kind in kinds_of_schema(parsed.table.schema).items() if name not in kinds.declared
        }
        return (
            ("too_deep", f"more than {MAX_DEPTH} levels")
            if _too_deep(parsed.table.schema)
            else ("wrong_type", str(kinds.misfit(inferred)))
        )
    values = json.loads(records.line(i).decode())
    for name, kind in kinds.declared.items():
        try:
            _read(pa.py_buffer(json.dumps({name: values.get(name)}).encode()), kinds.told())[name].cast(kind)
        except REFUSED:
            return "wrong_type", f"column '{name}': {str(values.get(name))[:200]!r} is no {kind}"
    try:
        _read(records.text(i, i + 1), kinds.told())
    except REFUSED as error:
        return "wrong_type", str(error).splitlines()[0].removeprefix("JSON parse error: ").removesuffix(" in row 0")
    return "wrong_type", "does not fit the columns before it"


def _quarantine_rounded(records: Records, table: pa.Table, kinds: Kinds) -> bool:
    """Whether lines were quarantined for an integer that its column can't hold exactly: one beyond 64 bits, or beyond 2^53 among floats.

    Those beyond 64 bits first: without them the column may be one of integers.
    """
    lost: list[tuple[int, str, int]] = []
    columns = [field for field in table.schema if field.name not in kinds.declared]
    for i in _with_large_floats(table.select([field.name for field in columns])):
        value = json.loads(records.line(i).decode())
        for field in columns:
            lost += [(i, field.name, number) for number in lost_integers(value.get(field.name), field.type)]
    beyond = [entry for entry in lost if not -(2**63) <= entry[2] < 2**63]
    for i, name, number in beyond or lost:
        what = "more than 64 bits hold" if beyond else "more than the column's floats hold exactly"
        detail = f"column '{name}': integer {str(number)[:40]} is {what}; `schema:` can declare the column as decimal(38, 0), uint64, or double to round it"
        records.quarantine(i, "wrong_type", detail)
    return records.sweep()


def _with_large_floats(table: pa.Table) -> list[int]:
    """The rows with a float that may be a rounded integer; all rows, where it lies inside objects or arrays."""
    rows = np.zeros(table.num_rows, bool)
    for column in table.columns:
        if pa.types.is_floating(column.type):
            large = pc.greater_equal(pc.abs(column), EXACT)
            rows |= large.fill_null(False).to_numpy()
        elif pa.types.is_nested(column.type) and any(_has_large(chunk) for chunk in column.chunks):
            rows[:] = True
    return np.flatnonzero(rows).tolist()


def _has_large(array: pa.Array) -> bool:
    if pa.types.is_struct(array.type):
        return any(_has_large(child) for child in array.flatten())
    if pa.types.is_list(array.type):
        return _has_large(array.flatten())
    return bool(pa.types.is_floating(array.type) and pc.any(pc.greater_equal(pc.abs(array), EXACT)).as_py())


class _RepeatedKeyError(Exception):
    pass


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKeyError(next(name for name in names if names.count(name) > 1))
    return found
