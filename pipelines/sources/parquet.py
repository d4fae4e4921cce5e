"""Parquet files as sources: row groups in batches; what can't be read is quarantined with its place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from gristmill.pipelines.sources.base import BAD, Chunk, ParquetSource, Piece, WorkItem, bad_rows, positions
from gristmill.pipelines.sources.files import check_unchanged, open_file
from gristmill.pipelines.sources.schemas import fits
from gristmill.storage.parquet import open_parquet_source


def footer(path: str) -> list[int] | None:
    """The uncompressed bytes of each row group, or None if the file isn't readable Parquet."""
    try:
        with open_file(path) as source:
            metadata = open_parquet_source(source).metadata
            return [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    except (pa.ArrowException, OSError, ValueError):
        return None


def read_parquet(source: ParquetSource, item: WorkItem, chunk_bytes: int) -> Iterator[Chunk]:
    """The item's rows in order, in chunks of about `chunk_bytes`. A row group that can't be read is quarantined row by row."""
    for piece in item.pieces:
        check_unchanged(piece.file, piece.version)
        with open_file(piece.file) as stream:
            yield from _read_piece(source, piece, stream, chunk_bytes)


def _read_piece(source: ParquetSource, piece: Piece, stream: object, chunk_bytes: int) -> Iterator[Chunk]:
    try:
        file = open_parquet_source(stream)  # type: ignore[arg-type]
        metadata = file.metadata
        starts = np.cumsum([0, *[metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]])
    except (pa.ArrowException, OSError, ValueError) as error:
        size = int(piece.version.split(":")[0] or 0)
        yield Chunk(
            pa.table({}),
            positions(piece.file, []),
            bad_rows([(piece.file, "unreadable_file", str(error).splitlines()[0], b"", size)]),
        )
        return
    place = f"{piece.file}:row"
    for group in range(piece.start, piece.stop):
        first, rows = int(starts[group]), metadata.row_group(group).num_rows
        done = 0
        batch_rows = max(1, rows * chunk_bytes // max(metadata.row_group(group).total_byte_size, 1))
        try:
            for batch in file.iter_batches(
                batch_size=min(batch_rows, max(rows, 1)), row_groups=[group], use_threads=False
            ):
                table = pa.Table.from_batches([batch])
                table.validate(full=True)
                yield _declared(source, table, place, first + done)
                done += table.num_rows
        except (pa.ArrowException, OSError, ValueError, NotImplementedError) as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            lost = [
                (f"{place} {first + i}", "corrupt_row_group", f"row group {group}: {text}", b"", 0)
                for i in range(done, rows)
            ]
            yield Chunk(pa.table({}), positions(place, []), bad_rows(lost))


def _declared(source: ParquetSource, table: pa.Table, place: str, first: int) -> Chunk:
    """The rows that fit the declared schema; the others are quarantined."""
    at = np.arange(first, first + table.num_rows)
    declared = source.declared()
    if declared is None:
        return Chunk(table, positions(place, at), BAD.empty_table())
    bad = []
    keep = np.ones(table.num_rows, bool)
    for field in declared:
        if field.name in table.column_names:
            good = fits(table[field.name], field.type)
            for row in np.flatnonzero(keep & ~good):
                value = str(table[field.name][int(row)].as_py())[:200]
                bad.append(
                    (
                        f"{place} {at[row]}",
                        "wrong_type",
                        f"column '{field.name}': {value!r} is no {field.type}",
                        value.encode(),
                        len(value),
                    )
                )
            keep &= good
    table = table.filter(pa.array(keep))
    for field in declared:
        if field.name in table.column_names:
            table = table.set_column(
                table.column_names.index(field.name), field.name, table[field.name].cast(field.type)
            )
    return Chunk(table, positions(place, at[keep]), bad_rows(bad) if bad else BAD.empty_table())
