"""A record of an input file, read again as it is now."""

from __future__ import annotations

import itertools
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.kernels.digests import row_digests
from gristmill.kernels.hashing import hash_text, hex_digests
from gristmill.pipelines.identity import identify
from gristmill.pipelines.sources import read_item
from gristmill.pipelines.sources.base import Chunk, JsonlSource, ParquetSource, Piece, Source, WorkItem
from gristmill.pipelines.sources.files import current_version, open_file
from gristmill.pipelines.sources.lines import compression
from gristmill.storage.parquet import open_parquet_source

CHUNK_BYTES = 1 << 20


class Record(NamedTuple):
    """at: where it begins; uids: the names that a run may give it, the likeliest first."""

    at: int
    uids: list[str]


def read_again(source: Source, id_column: str | None, where: str, start: int, stop: int) -> Record | None:
    """The record of a line: the last one that begins before `stop`, in bytes of the decompressed content or in rows; None if the line holds none.

    One that begins before `start` counts where records may have several lines, as in CSV.
    """
    raw = None
    version = current_version(where)
    begin, end = 0, int(version.split(":")[0])
    with open_file(where) as stream:
        if isinstance(source, ParquetSource):
            begin, end = _group(stream, start)
        elif isinstance(source, JsonlSource) and compression(stream.read(4)) is None:
            begin, end = start, stop
            stream.seek(start)
            raw = stream.read(stop - start).rstrip(b"\r\n")
    item = WorkItem(source.name, (Piece(where, begin, end, version),), "", 0)
    found: Record | None = None
    for chunk in read_item(source, item, chunk_bytes=CHUNK_BYTES):
        found = _last(chunk, stop, id_column, source) or found
        if any(start >= stop for start in itertools.chain(*_starts(chunk))):
            break
    if found is None or (found.at < start and source.kind != "csv"):
        return None
    # with what is before it, a column may have had another type, and then the line was put aside as it is
    return found if raw is None else Record(found.at, [*found.uids, _of_raw(raw)])


def _group(stream: IO[bytes], row: int) -> tuple[int, int]:
    """The row group that holds the row, and the one after it; none where there are fewer rows."""
    metadata = open_parquet_source(stream).metadata
    stops = np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])
    group = int(np.searchsorted(stops, row, side="right"))
    return group, min(group + 1, len(stops))


def _last(chunk: Chunk, stop: int, id_column: str | None, source: Source) -> Record | None:
    """The chunk's last record that begins before `stop`, readable or not."""
    good, bad = _starts(chunk)
    at = max((start for start in [*good, *bad] if start < stop), default=None)
    if at is None:
        return None
    if at in bad:
        return Record(at, [_of_raw(chunk.bad["raw"][bad.index(at)].as_py())])
    row = chunk.table.slice(good.index(at), 1)
    named = identify(row, id_column, source)[0]
    return Record(at, named["_uid"].to_pylist() or hex_digests(row_digests(row)).to_pylist())


def _starts(chunk: Chunk) -> tuple[list[int], list[int]]:
    """Where the records begin: (those that can be read, those that can't)."""
    bad = pc.replace_substring_regex(chunk.bad["position"], r"^.*:(byte|row) ", "").to_pylist()
    return chunk.positions.field("at").to_pylist(), [int(at) if at.isdecimal() else 0 for at in bad]


def _of_raw(raw: bytes) -> str:
    """The uid of a record that can't be read."""
    uid: str = hex_digests(hash_text(pa.array([raw], pa.large_binary())))[0].as_py()
    return uid
