"""Kinds of JSON values: what each column of an item has been so far, and what the parser has to be told of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from gristmill.errors import UsageError

SEVERAL = "an array of several kinds"
TIME = re.compile(r"\d{4}-\d\d-\d\d")  # how every time begins that the parser reads
MAX_DEPTH = 32  # levels of arrays and objects in a record, itself counted; Parquet's readers stop at about 45, the JSON parser's stack later


class Kinds:
    """What each column of an item has been so far: the first kind seen wins, and records of another are misfits.

    A kind is a name, for an object a mapping of kinds, for an array a list of the one kind of its elements; None for null.
    """

    def __init__(self, declared: pa.Schema | None) -> None:
        self.declared: dict[str, pa.DataType] = {field.name: field.type for field in declared or ()}
        self._parsed = {name: parsed_type(kind) for name, kind in self.declared.items()}
        self._texts: dict[str, pa.DataType] = {}
        self._seen: dict[str, Any] = {name: _kind_declared(kind) for name, kind in self._parsed.items()}

    def told(self, texts: Mapping[str, pa.DataType] | None = None) -> pa.Schema | None:
        """The schema for the parser: declared columns, and text that it would take for times, of before and in `texts`."""
        explicit = {**_merge_texts(self._texts, texts or {}), **self._parsed}
        return pa.schema(list(explicit.items())) if explicit else None

    def texts(self, schema: pa.Schema) -> dict[str, pa.DataType]:
        """The columns that the parser took for times, as what they are: text, alone or inside objects and arrays."""
        timed = {field.name: _only_texts(field.type) for field in schema if field.name not in self.declared}
        return {name: kind for name, kind in timed.items() if kind is not None}

    @staticmethod
    def join_texts(old: Mapping[str, pa.DataType], new: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
        """Both, columns of both with what each knows of their insides."""
        return _merge_texts(old, new)

    def misfit(self, found: Mapping[str, Any]) -> str | None:
        """What is wrong with columns of these kinds after those seen before, or None."""
        for name, kind in found.items():
            if clash(self._seen.get(name), kind):
                before = (
                    f"declared {self.declared[name]}"
                    if name in self.declared
                    else f"before it was {_words(self._seen.get(name))}"
                )
                return f"column '{name}' is {_words(kind)}" + ("" if kind == SEVERAL else f", {before}")
        return None

    def misvalue(self, record: Mapping[str, Any]) -> str | None:
        """What is wrong with the value of a declared column that is of the right kind, where that can be told without the parser; or None."""
        for name, kind in self.declared.items():
            value = record.get(name)
            if value is None:
                continue
            if pa.types.is_integer(kind):
                low, high = (
                    (-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1))
                    if pa.types.is_signed_integer(kind)
                    else (0, 2**kind.bit_width)
                )
                wrong = not isinstance(value, int) or not low <= value < high
            else:
                wrong = (pa.types.is_timestamp(kind) or pa.types.is_date(kind)) and not TIME.match(value)
            if wrong:
                return f"column '{name}': {str(value)[:200]!r} is no {kind}"
        return None

    def learn(self, found: Mapping[str, Any], texts: Mapping[str, pa.DataType] | None = None) -> None:
        """Remembers the kinds of accepted records."""
        for name, kind in found.items():
            if name not in self.declared:
                self._seen[name] = merge(self._seen.get(name), kind)
        self._texts = _merge_texts(self._texts, texts or {})


def kinds_of_schema(schema: pa.Schema) -> dict[str, Any]:
    """The kind of each column of a parsed table."""
    return {field.name: _kind_of_type(field.type) for field in schema}


def kind_of_value(value: Any) -> Any:
    """The kind of a JSON value."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, dict):
        return {name: kind_of_value(item) for name, item in value.items()}
    kind: Any = None
    for item in value:
        found = kind_of_value(item)
        if clash(kind, found):
            return SEVERAL
        kind = merge(kind, found)
    return [kind]


def clash(old: Any, new: Any) -> bool:
    """Whether no column can hold both kinds."""
    if isinstance(old, dict) and isinstance(new, dict):
        return any(clash(old.get(name), kind) for name, kind in new.items())
    if isinstance(old, list) and isinstance(new, list):
        return clash(old[0], new[0])
    if isinstance(new, dict):
        return old is not None or any(clash(None, kind) for kind in new.values())
    if isinstance(new, list):
        return old is not None or clash(None, new[0])
    return new == SEVERAL or (old is not None and new is not None and bool(old != new))


def merge(old: Any, new: Any) -> Any:
    """The kind that holds both."""
    if old is None or new is None:
        return new if old is None else old
    if isinstance(old, dict) and isinstance(new, dict):
        return {name: merge(old.get(name), new.get(name)) for name in {**old, **new}}
    if isinstance(old, list) and isinstance(new, list):
        return [merge(old[0], new[0])]
    return old


def lost_integers(value: Any, kind: pa.DataType) -> Iterator[int]:
    """The integers in the value that a column of this parsed type has rounded."""
    if pa.types.is_floating(kind):
        if isinstance(value, int) and abs(value) > 2**53 and float(value) != value:
            yield value
    elif pa.types.is_list(kind):
        for item in value or ():
            yield from lost_integers(item, kind.value_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from lost_integers((value or {}).get(field.name), field.type)


def depth_of(kind: pa.DataType) -> int:
    """Levels of arrays and objects in a type."""
    children = [kind.field(i).type for i in range(kind.num_fields)]
    return 1 + max(map(depth_of, children), default=0) if pa.types.is_nested(kind) else 0


def parsed_type(kind: pa.DataType) -> pa.DataType:
    """The type that the parser is told for a declared one: itself, or one that it knows and that can be cast to it.

    Raises:
        UsageError: a type that JSON has no values for.
    """
    if pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(parsed_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, parsed_type(field.type)) for field in kind])
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_date(kind):
        return pa.string()
    if pa.types.is_duration(kind):
        return pa.int64()
    if pa.types.is_null(kind):
        raise UsageError("a source of JSON lines can't declare a column as null; leave it out")
    return kind


def _kind_of_type(kind: pa.DataType) -> Any:
    if pa.types.is_null(kind):
        return None
    if pa.types.is_boolean(kind):
        return "a boolean"
    if pa.types.is_struct(kind):
        return {field.name: _kind_of_type(field.type) for field in kind}
    if pa.types.is_list(kind):
        return [_kind_of_type(kind.value_type)]
    return "a number" if pa.types.is_integer(kind) or pa.types.is_floating(kind) else "text"


def _kind_declared(kind: pa.DataType) -> Any:
    """The kind of the JSON values that the parser takes for a type; None where it takes several."""
    if pa.types.is_decimal(kind):
        return None
    if pa.types.is_struct(kind):
        return {field.name: _kind_declared(field.type) for field in kind}
    if pa.types.is_list(kind):
        return [_kind_declared(kind.value_type)]
    return "a number" if pa.types.is_time(kind) else _kind_of_type(kind)


def _only_texts(kind: pa.DataType) -> pa.DataType | None:
    """The type with text for each time and nothing else in it (what isn't told is inferred), or None if it has no time."""
    if pa.types.is_struct(kind):
        fields = [(field.name, inner) for field in kind if (inner := _only_texts(field.type)) is not None]
        return pa.struct(fields) if fields else None
    if pa.types.is_list(kind):
        inner = _only_texts(kind.value_type)
        return None if inner is None else pa.list_(inner)
    return pa.string() if pa.types.is_temporal(kind) else None


def _merge_texts(old: Mapping[str, pa.DataType], new: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    return {
        name: _merge_types(old[name], new[name]) if name in old and name in new else (old.get(name) or new[name])
        for name in {**old, **new}
    }


def _merge_types(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(a) and pa.types.is_struct(b):
        merged = _merge_texts({field.name: field.type for field in a}, {field.name: field.type for field in b})
        return pa.struct(list(merged.items()))
    return pa.list_(_merge_types(a.value_type, b.value_type)) if pa.types.is_list(a) and pa.types.is_list(b) else a


def _words(kind: Any) -> str:
    return (
        kind
        if isinstance(kind, str)
        else ("an object" if isinstance(kind, dict) else "an array" if isinstance(kind, list) else "null")
    )
