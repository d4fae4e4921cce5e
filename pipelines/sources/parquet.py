"""Parquet files as sources: row groups in batches; what can't be read is quarantined with its place."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import IO

import numpy as np
import pyarrow as pa

from gristmill.errors import InputError
from gristmill.pipelines.sources.base import (
    BAD,
    Chunk,
    ParquetSource,
    Piece,
    WorkItem,
    bad_rows,
    format_positions,
    positions,
)
from gristmill.pipelines.sources.files import check_unchanged, open_file
from gristmill.pipelines.sources.schemas import declared_cast, holds
from gristmill.storage.parquet import open_parquet_source

CHUNK_ROWS = 1 << 16  # text encoded by dictionary can be far larger than its pages: rows bound it
UNREADABLE = (pa.ArrowException, OSError, ValueError, NotImplementedError)


def footer(path: str) -> list[int] | None:
    """The uncompressed bytes of each row group, or None if the file isn't readable Parquet."""
    try:
        with open_file(path) as source:
            metadata = open_parquet_source(source).metadata
            return [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    except UNREADABLE:
        return None


def read_parquet(source: ParquetSource, item: WorkItem, chunk_bytes: int) -> Iterator[Chunk]:
    """The item's rows in order, in chunks of about `chunk_bytes` and at most CHUNK_ROWS. Rows of a row group that can't be read are quarantined
    as `corrupt_row_group`, text that isn't UTF-8 as `bad_utf8`, a file that can't be opened as one record, `unreadable_file`.

    Raises:
        InputError: a file that has changed since planning, or has two columns of one name.
    """
    for piece in item.pieces:
        check_unchanged(item.path(piece), piece.version)
        with open_file(item.path(piece)) as stream:
            yield from _read_piece(source, piece, stream, chunk_bytes)
        check_unchanged(item.path(piece), piece.version)


def _read_piece(source: ParquetSource, piece: Piece, stream: IO[bytes], chunk_bytes: int) -> Iterator[Chunk]:
    try:
        file = open_parquet_source(stream)
        metadata, names = file.metadata, file.schema_arrow.names
    except UNREADABLE as error:
        size = int(piece.version.split(":")[0] or 0)
        yield Chunk(
            pa.table({}),
            positions(piece.file, []),
            bad_rows([(piece.file, "unreadable_file", _first_line(error), b"", size)]),
        )
        return
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"'{piece.file}' has two columns named '{twice}'; write it again with names of their own", path=piece.file
        )
    place = f"{piece.file}:row"
    sizes = [metadata.row_group(group).num_rows for group in range(piece.stop)]
    if not sum(sizes[piece.start :]):  # no rows, but columns
        yield _checked(source, file.schema_arrow.remove_metadata().empty_table(), place, 0)
    for group in range(piece.start, piece.stop):
        first = sum(sizes[:group])
        done, problem = 0, f"{sizes[group]} rows by the file's own count"
        encoded = max(metadata.row_group(group).total_byte_size, 1)
        rows = min(max(1, sizes[group] * chunk_bytes // encoded), max(sizes[group], 1), CHUNK_ROWS)
        try:
            for batch in file.iter_batches(batch_size=rows, row_groups=[group], use_threads=False):
                yield _checked(source, pa.Table.from_batches([batch]), place, first + done)
                done += batch.num_rows
        except UNREADABLE as error:
            problem = _first_line(error)
        for start in range(done, sizes[group], CHUNK_ROWS):
            at = np.arange(first + start, first + min(start + CHUNK_ROWS, sizes[group]))
            yield Chunk(
                pa.table({}),
                positions(place, []),
                _lost(positions(place, at), f"row group {group}: {problem}, {done} could be read"),
            )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _lost(found: pa.Array, detail: str) -> pa.Table:
    """BAD rows without content, one a position."""
    values = [
        format_positions(found),
        *[
            pa.repeat(pa.scalar(value, BAD.field(i).type), len(found))
            for i, value in enumerate(["corrupt_row_group", detail, b"", 0], 1)
        ],
    ]
    return pa.table(values, schema=BAD)


def _checked(source: ParquetSource, table: pa.Table, place: str, first: int) -> Chunk:
    """The rows that are valid and fit the declared schema; the others are quarantined."""
    bad: list[tuple[str, str, str, bytes, int]] = []
    keep = np.ones(table.num_rows, bool)
    for name in table.column_names:
        for row in np.flatnonzero(keep & ~holds(table[name], _validate)):
            raw = _raw(table[name].slice(row, 1))
            bad.append((f"{place} {first + row}", "bad_utf8", f"column '{name}' is not UTF-8", raw, len(raw)))
            keep[row] = False
    for field in source.declared() or ():
        if field.name in table.column_names and table[field.name].type != field.type:
            fitting = holds(table[field.name].filter(pa.array(keep)), partial(declared_cast, kind=field.type))
            for row in np.flatnonzero(keep)[~fitting]:
                value = str(table[field.name][int(row)].as_py())[:200]
                bad.append(
                    (
                        f"{place} {first + row}",
                        "wrong_type",
                        f"column '{field.name}': {value!r} is no {field.type}",
                        value.encode(),
                        len(value.encode()),
                    )
                )
                keep[row] = False
    if bad:
        table = table.filter(pa.array(keep))
    for field in source.declared() or ():
        if field.name in table.column_names:
            table = table.set_column(
                table.column_names.index(field.name), field.name, declared_cast(table[field.name], field.type)
            )
    return Chunk(
        table,
        positions(place, np.flatnonzero(keep) + first),
        bad_rows(sorted(bad, key=lambda entry: int(entry[0].rsplit(" ", 1)[1]))),
    )


def _validate(column: pa.ChunkedArray) -> None:
    column.validate(full=True)


def _raw(column: pa.ChunkedArray) -> bytes:
    """The bytes of a text value; none of a nested one."""
    wide = pa.types.is_large_string(column.type)
    return (
        column.cast(pa.large_binary() if wide else pa.binary())[0].as_py() or b""
        if wide or pa.types.is_string(column.type)
        else b""
    )
