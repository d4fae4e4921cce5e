"""JSON lines to tables: whole chunks at once; lines that are no record are set aside with their place and reason."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.pipelines.sources.base import Chunk, JsonlSource, WorkItem, bad_rows, positions
from gristmill.pipelines.sources.files import check_unchanged, open_file
from gristmill.pipelines.sources.json_kinds import MAX_DEPTH, Kinds
from gristmill.pipelines.sources.json_records import I64, Records, parse_records
from gristmill.pipelines.sources.lines import PREFIX, Lines, LongLine, stream_blocks, whole_lines

BOM = b"\xef\xbb\xbf"
MANY_BRACKETS = (
    1000  # a line with more opening ones is looked at before the parser sees it: its stack ends at some 10,000 levels
)
BLOCK = 128 << 10
STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)


def read_jsonl(source: JsonlSource, item: WorkItem, chunk_bytes: int) -> Iterator[Chunk]:
    """The item's records in order. Types are those of the item's first values: a column that has been text quarantines numbers after it.

    Blank lines are no records. NaN and Infinity are numbers. A file's first bytes may be a byte order mark. Of a torn file the last record is
    quarantined as `torn`, with no bytes where the tear lies at a line's end. Columns beside the declared ones are inferred.
    """
    kinds = Kinds(source.declared())
    for piece in item.pieces:
        check_unchanged(item.path(piece), piece.version)
        place = f"{piece.file}:byte"
        with open_file(item.path(piece)) as stream:
            blocks = stream_blocks(stream, piece.start, piece.stop)
            for part in whole_lines(blocks, piece.start, chunk_bytes, source.max_record_bytes):
                if isinstance(part, LongLine):
                    bad = bad_rows(
                        [
                            (
                                f"{place} {part.offset}",
                                "line_too_long",
                                _too_long(part.size, source),
                                part.prefix,
                                part.size,
                            )
                        ]
                    )
                    yield Chunk(pa.table({}), positions(place, []), bad)
                else:
                    yield _chunk(part, place, kinds, source)
        check_unchanged(item.path(piece), piece.version)


def _too_long(size: int, source: JsonlSource) -> str:
    return f"{size} bytes, more than max_record_bytes {source.max_record_bytes}"


def _chunk(lines: Lines, place: str, kinds: Kinds, source: JsonlSource) -> Chunk:
    data = lines.data
    starts, stops = _split(data)
    torn = bool(lines.torn)
    if torn and (not data or data.endswith(b"\n")):  # torn between two lines: the lost record has no bytes
        starts, stops = np.append(starts, len(data)), np.append(stops, len(data))
    if lines.offset == 0 and data.startswith(BOM):
        starts[:1] = np.minimum(starts[:1] + len(BOM), stops[:1])
    records = Records(data, lines.offset, place, starts, stops)
    if torn:
        records.quarantine(len(records) - 1, "torn", str(lines.torn))
        records.sweep()
    _set_aside_long(records, source)
    _set_aside_bad_utf8(records)
    _set_aside_odd(records)
    _set_aside_deep(records)
    table = parse_records(records, kinds)
    return Chunk(table, positions(place, records.starts + records.offset), records.bad())


def _split(data: bytes) -> tuple[I64, I64]:
    """(starts, stops) of the lines that aren't empty, without their ends."""
    array = np.frombuffer(data, np.uint8)
    ends = _places(array, 10, 0)
    if len(data) and data[-1] != 10:
        ends = np.append(ends, len(data))
    starts = np.concatenate([np.zeros(min(1, len(ends)), np.int64), ends[:-1] + 1])
    filled = ends > starts
    starts, ends = starts[filled], ends[filled]
    ends -= array[ends - 1] == 13
    filled = ends > starts
    return starts[filled], ends[filled]


def _places(array: npt.NDArray[np.uint8], value: int, mask: int) -> I64:
    """Where `byte | mask` is the value; in parts that stay in the cache."""
    found = [
        np.flatnonzero((array[at : at + BLOCK] | mask if mask else array[at : at + BLOCK]) == value) + at
        for at in range(0, len(array), BLOCK)
    ]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _set_aside_long(records: Records, source: JsonlSource) -> None:
    sizes = records.stops - records.starts
    for i in np.flatnonzero(sizes > source.max_record_bytes).tolist():
        records.quarantine(i, "line_too_long", _too_long(int(sizes[i]), source), cap=PREFIX)
    records.sweep()


def _set_aside_odd(records: Records) -> None:
    """Lines that don't begin with `{` and end with `}`: blank ones are no records; values that are no object, and broken ones, are bad."""
    array = np.frombuffer(records.data, np.uint8)
    filled = records.stops > records.starts
    plain = (
        filled & (array[np.minimum(records.starts, max(len(array) - 1, 0))] == 123) & (array[records.stops - 1] == 125)
    )
    for i in np.flatnonzero(~plain).tolist():
        text = records.line(i).strip()
        if not text:
            records.drop(i)
        elif not (text.startswith(b"{") and text.endswith(b"}")):
            records.quarantine(i, *_odd(text))
    records.sweep()


def _odd(text: bytes) -> tuple[str, str]:
    try:
        value = json.loads(text.decode())
    except RecursionError:
        return "too_deep", f"more than {MAX_DEPTH} levels"
    except ValueError as error:
        return "bad_json", str(error)
    return "not_an_object", f"a JSON {type(value).__name__}; one object a line is expected"


def _set_aside_bad_utf8(records: Records) -> None:
    """The parser lets other bytes through; so they are looked for."""
    if records.data.isascii() or not len(records):
        return
    for i in records.failing(
        lambda lo, hi: _is_utf8(
            pa.py_buffer(records.data).slice(int(records.starts[lo]), int(records.stops[hi - 1] - records.starts[lo]))
        )
    ):
        try:
            records.line(i).decode()
        except UnicodeDecodeError as error:
            records.quarantine(
                i, "bad_utf8", f"byte 0x{error.object[error.start]:02x} at {error.start}: {error.reason}"
            )
    records.sweep()


def _is_utf8(data: pa.Buffer) -> bool:
    offsets = pa.py_buffer(np.array([0, data.size], np.int64))
    try:
        pa.Array.from_buffers(pa.large_string(), 1, [None, offsets, data]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _set_aside_deep(records: Records) -> None:
    """Lines whose nesting would end the parser's stack, and with it the process."""
    sizes = records.stops - records.starts
    if not len(sizes) or sizes.max() <= MANY_BRACKETS:
        return
    opening = _places(np.frombuffer(records.data, np.uint8), 123, 32)  # { and [ differ in this one bit
    counts = np.searchsorted(opening, records.stops) - np.searchsorted(opening, records.starts)
    for i in np.flatnonzero(counts > MANY_BRACKETS).tolist():
        bare = np.frombuffer(STRING.sub(b"", records.line(i)), np.uint8) | 32
        if np.cumsum((bare == 123).astype(np.int64) - (bare == 125)).max(initial=0) > MAX_DEPTH:
            records.quarantine(i, "too_deep", f"more than {MAX_DEPTH} levels")
    records.sweep()
