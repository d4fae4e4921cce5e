"""JSON lines to tables: a fast path over whole chunks, and for chunks with something wrong a search for the lines that are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from gristmill.pipelines.sources.base import BAD, Chunk, JsonlSource, WorkItem, bad_rows, positions
from gristmill.pipelines.sources.files import check_unchanged, open_file
from gristmill.pipelines.sources.lines import Lines, LongLine, stream_blocks, whole_lines

LEAF = 16  # lines that are looked at one by one
BOM = b"\xef\xbb\xbf"


class _Row(NamedTuple):
    """A line: its place in the chunk's bytes."""

    start: int
    stop: int


class _Kinds:
    """What each column of an item has been so far: the first kind seen wins, and lines of another are misfits."""

    def __init__(self, declared: pa.Schema | None) -> None:
        self.explicit: dict[str, pa.DataType] = {field.name: field.type for field in declared} if declared is not None else {}
        self.declared = frozenset(self.explicit)
        self.seen: dict[str, Any] = {}

    def schema(self) -> pa.Schema | None:
        """What the parser is told: declared columns, and text, which it would else take for times where it looks like them."""
        return pa.schema(list(self.explicit.items())) if self.explicit else None

    def conflict(self, schema: pa.Schema) -> bool:
        """Whether a parsed chunk has a column of another kind than before; remembers new ones."""
        found = {field.name: _kind_of_type(field.type) for field in schema}
        if any(_clash(self.seen.get(name), kind) for name, kind in found.items()):
            return True
        for name, kind in found.items():
            self.seen[name] = _merge(self.seen.get(name), kind)
        return False


def read_jsonl(source: JsonlSource, item: WorkItem, chunk_bytes: int) -> Iterator[Chunk]:
    """The item's records in order. Types are those of the item's first values: a column that has been text quarantines numbers after it."""
    kinds = _Kinds(source.declared())
    for piece in item.pieces:
        check_unchanged(piece.file, piece.version)
        place = f"{piece.file}:byte"
        with open_file(piece.file) as stream:
            blocks = stream_blocks(stream, piece.start, piece.stop)
            for part in whole_lines(blocks, piece.start, chunk_bytes, source.max_record_bytes):
                if isinstance(part, LongLine):
                    detail = f"{part.size} bytes, more than max_record_bytes {source.max_record_bytes}"
                    bad = bad_rows([(f"{place} {part.offset}", "line_too_long", detail, part.prefix, part.size)])
                    yield Chunk(pa.table({}), positions(place, []), bad)
                else:
                    yield _chunk(part, place, kinds)


def _chunk(lines: Lines, place: str, kinds: _Kinds) -> Chunk:
    data = lines.data
    bad: dict[int, tuple[str, str, str, bytes, int]] = {}
    rows, suspects = _rows(data)
    if lines.torn:
        torn = rows.pop() if rows and not data.endswith(b"\n") else _Row(len(data), len(data))
        suspects.discard(torn.start)
        bad[torn.start] = (f"{place} {lines.offset + torn.start}", "torn", lines.torn, data[torn.start : torn.stop], torn.stop - torn.start)

    def quarantine(row: _Row, reason: str, detail: str) -> None:
        bad[row.start] = (f"{place} {lines.offset + row.start}", reason, detail, data[row.start : row.stop], row.stop - row.start)

    good = _well_formed(data, rows, suspects, quarantine, first=lines.offset == 0)
    table, good = _parse(data, good, kinds, quarantine)
    at = np.fromiter((row.start for row in good), np.int64, len(good)) + lines.offset
    found = bad_rows([bad[start] for start in sorted(bad)]) if bad else BAD.empty_table()
    return Chunk(table, positions(place, at), found)


def _rows(data: bytes) -> tuple[list[_Row], set[int]]:
    """(the lines that aren't empty, the starts of those that don't begin with `{` and end with `}`)."""
    array = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(array == 10)
    starts = np.concatenate([[0], ends + 1]) if len(data) else np.zeros(0, np.int64)
    if len(starts) and starts[-1] == len(data):
        starts = starts[:-1]
    stops = np.append(ends, len(data))[: len(starts)] if len(data) and data[-1] != 10 else ends
    stops = stops - ((stops > starts) & (array[np.maximum(stops - 1, 0)] == 13)) if len(stops) else stops
    filled = stops > starts
    starts, stops = starts[filled], stops[filled]
    plain = (array[starts] == 123) & (array[stops - 1] == 125) if len(starts) else np.zeros(0, bool)
    rows = [_Row(start, stop) for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
    return rows, set(starts[~plain].tolist())


def _well_formed(data: bytes, rows: Sequence[_Row], suspects: set[int], quarantine: Any, *, first: bool) -> list[_Row]:
    """The rows that look like one object in valid UTF-8 each; the others are quarantined, blank ones dropped."""
    valid = _is_utf8(data)
    if not suspects and valid:
        return list(rows)
    good = []
    for row in rows:
        line = data[row.start : row.stop]
        if row.start in suspects:
            if first and row.start == 0 and line.startswith(BOM):
                row, line = _Row(3, row.stop), line[3:]  # noqa: PLW2901
            text = line.strip()
            if not text:
                continue
            if not (text.startswith(b"{") and text.endswith(b"}")):
                whole = _is_json(text)
                quarantine(row, "not_an_object" if whole else "bad_json", "a JSON value that is no object" if whole else _syntax(line))
                continue
        if not valid and not _is_utf8(line):
            quarantine(row, "bad_utf8", _utf8_error(line))
            continue
        good.append(row)
    return good


def _parse(data: bytes, rows: list[_Row], kinds: _Kinds, quarantine: Any) -> tuple[pa.Table, list[_Row]]:
    """(the table of the good rows, those rows)."""
    table = _fast(data, rows, kinds)
    if table is not None and not kinds.conflict(table.schema):
        return table, rows
    if table is None:
        wrong = set(_find_bad(data, rows, kinds, quarantine))
        rows = [row for row in rows if row.start not in wrong]
        table = _fast(data, rows, kinds)
        if table is not None and not kinds.conflict(table.schema):
            return table, rows
    rows = _of_one_kind(data, rows, kinds, quarantine)
    table = _fast(data, rows, kinds)
    if table is None:  # kinds agree, and the parser still refuses: one line at a time
        fine = []
        for row in rows:
            if _fast(data, [row], kinds) is None:
                quarantine(row, "wrong_type", _parser_error(data, row, kinds))
            else:
                fine.append(row)
        rows, table = fine, _fast(data, fine, kinds)
        assert table is not None
    kinds.conflict(table.schema)
    return table, rows


def _fast(data: bytes, rows: Sequence[_Row], kinds: _Kinds) -> pa.Table | None:
    """The rows parsed at once, or None where something is wrong with one of them."""
    if not rows:
        return pa.table({})
    text = _joined(data, rows)
    try:
        table = _read(text, kinds.schema())
        times = [field for field in table.schema if field.name not in kinds.explicit and _has_time(field.type)]
        if times:
            kinds.explicit.update({field.name: _without_time(field.type) for field in times})
            table = _read(text, kinds.schema())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError):
        return None
    if table.num_rows != len(rows):
        return None  # two objects on a line
    if table.num_columns < len(kinds.explicit) or any(name not in kinds.declared for name in kinds.explicit):
        table = table.select([name for name in table.column_names if name in kinds.declared or not _absent(table[name], name, kinds)])
    return table


def _absent(column: pa.ChunkedArray, name: str, kinds: _Kinds) -> bool:
    """Whether a column is there only because the parser was told of it."""
    return name in kinds.explicit and column.null_count == len(column)


def _read(text: bytes, schema: pa.Schema | None) -> pa.Table:
    return pj.read_json(
        pa.BufferReader(text),
        read_options=pj.ReadOptions(use_threads=False, block_size=max(len(text), 1 << 16)),
        parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="infer"),
    )


def _joined(data: bytes, rows: Sequence[_Row]) -> bytes:
    """The rows' bytes; without a copy where only line ends lie between them."""
    edges = np.array(rows, np.int64)
    gaps = np.concatenate([edges[1:, 0], [len(data)]]) - edges[:, 1]
    if edges[0, 0] in (0, len(BOM)) and gaps.max() <= 2:
        return data[edges[0, 0] :]
    return b"\n".join(data[row.start : row.stop] for row in rows)


def _find_bad(data: bytes, rows: Sequence[_Row], kinds: _Kinds, quarantine: Any) -> Iterator[int]:
    """The starts of the rows that are no JSON object by themselves, which are quarantined; found by halving."""
    if not rows or _fast(data, rows, kinds) is not None:
        return
    if len(rows) > LEAF:
        half = len(rows) // 2
        yield from _find_bad(data, rows[:half], kinds, quarantine)
        yield from _find_bad(data, rows[half:], kinds, quarantine)
        return
    for row in rows:
        problem = _problem(data[row.start : row.stop])
        if problem:
            quarantine(row, *problem)
            yield row.start


def _problem(line: bytes) -> tuple[str, str] | None:
    """(reason, detail) of what is wrong with a line by itself, types aside."""
    try:
        value = json.loads(line, object_pairs_hook=_no_repeats)
        json.dumps(value, ensure_ascii=False).encode()
    except _RepeatedKeyError as error:
        return "duplicate_key", f"key {error.args[0]!r} twice in one object"
    except UnicodeEncodeError as error:
        return "lone_surrogate", f"\\u{ord(error.object[error.start]):04x} without its other half"
    except (ValueError, RecursionError) as error:
        return "bad_json", str(error)
    return None if isinstance(value, dict) else ("not_an_object", f"a JSON {type(value).__name__}")


class _RepeatedKeyError(Exception):
    pass


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKeyError(next(name for name in names if names.count(name) > 1))
    return found


def _of_one_kind(data: bytes, rows: Sequence[_Row], kinds: _Kinds, quarantine: Any) -> list[_Row]:
    """The rows whose values are of the kinds seen before them; the others are quarantined."""
    good = []
    for row in rows:
        value = json.loads(data[row.start : row.stop])
        found = {name: _kind_of_value(item) for name, item in value.items() if name not in kinds.declared}
        clash = next((name for name, kind in found.items() if _clash(kinds.seen.get(name), kind)), None)
        if clash is not None:
            quarantine(row, "wrong_type", f"column '{clash}' is {_text(found[clash])}, before it was {_text(kinds.seen[clash])}")
            continue
        for name, kind in found.items():
            kinds.seen[name] = _merge(kinds.seen.get(name), kind)
        good.append(row)
    return good


def _kind_of_value(value: Any) -> Any:
    """The kind of a JSON value: a name; for an object a mapping; for an array a list of the one kind of its elements."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, dict):
        return {name: _kind_of_value(item) for name, item in value.items()}
    kind: Any = None
    for item in value:
        found = _kind_of_value(item)
        if _clash(kind, found):
            return "an array of several kinds"
        kind = _merge(kind, found)
    return [kind]


def _kind_of_type(kind: pa.DataType) -> Any:
    if pa.types.is_null(kind):
        return None
    if pa.types.is_boolean(kind):
        return "a boolean"
    if pa.types.is_struct(kind):
        return {field.name: _kind_of_type(field.type) for field in kind}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [_kind_of_type(kind.value_type)]
    return "a number" if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) else "text"


def _clash(old: Any, new: Any) -> bool:
    if new == "an array of several kinds":
        return True
    if old is None or new is None:
        return False
    if isinstance(old, dict) and isinstance(new, dict):
        return any(_clash(old[name], new[name]) for name in set(old) & set(new))
    if isinstance(old, list) and isinstance(new, list):
        return _clash(old[0], new[0])
    return bool(old != new)


def _merge(old: Any, new: Any) -> Any:
    if old is None or new is None:
        return new if old is None else old
    if isinstance(old, dict) and isinstance(new, dict):
        return {name: _merge(old.get(name), new.get(name)) for name in {**old, **new}}
    if isinstance(old, list) and isinstance(new, list):
        return [_merge(old[0], new[0])]
    return old


def _text(kind: Any) -> str:
    return kind if isinstance(kind, str) else ("an object" if isinstance(kind, dict) else "an array" if isinstance(kind, list) else "null")


def _has_time(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_has_time(field.type) for field in kind)
    if pa.types.is_list(kind):
        return _has_time(kind.value_type)
    return bool(pa.types.is_temporal(kind))


def _without_time(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _without_time(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_without_time(kind.value_type))
    return pa.string() if pa.types.is_temporal(kind) else kind


def _is_utf8(data: bytes) -> bool:
    offsets = pa.py_buffer(np.array([0, len(data)], np.int64))
    array = pa.Array.from_buffers(pa.large_string(), 1, [None, offsets, pa.py_buffer(data)])
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _utf8_error(line: bytes) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return f"byte 0x{line[error.start]:02x} at {error.start}: {error.reason}"
    return ""


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _syntax(line: bytes) -> str:
    try:
        json.loads(line)
    except (ValueError, RecursionError) as error:
        return str(error)
    return "not an object"


def _parser_error(data: bytes, row: _Row, kinds: _Kinds) -> str:
    try:
        _read(data[row.start : row.stop], kinds.schema())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        return str(error).splitlines()[0]
    return "does not fit the columns before it"


