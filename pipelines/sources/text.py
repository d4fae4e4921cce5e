"""Text files and frames as sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from gristmill.errors import PipelineError
from gristmill.pipelines.fetched import local_copy
from gristmill.pipelines.sources.base import (
    BAD,
    POSITION,
    Chunk,
    FrameSource,
    ParquetSource,
    Piece,
    TextSource,
    WorkItem,
    bad_rows,
    positions,
)
from gristmill.pipelines.sources.files import check_unchanged, open_file
from gristmill.pipelines.sources.lazy import is_lazy, store_lazy
from gristmill.pipelines.work import WorkStore
from gristmill.storage.folder import temporary_name

BOM = b"\xef\xbb\xbf"


def read_text(source: TextSource, item: WorkItem, chunk_bytes: int) -> Iterator[Chunk]:
    """One row a file: `text`, without a byte order mark, and `file`. An empty file is an empty text."""
    texts: list[str] = []
    files: list[str] = []
    bad: list[tuple[str, str, str, bytes, int]] = []
    size = 0
    for piece in item.pieces:
        check_unchanged(item.path(piece), piece.version)
        found = _read_file(piece, item.path(piece), source.max_record_bytes)
        if isinstance(found, str):
            texts.append(found)
            files.append(piece.file)
            size += piece.stop
        else:
            bad.append(found)
        if size >= chunk_bytes:
            yield _chunk(texts, files, bad)
            texts, files, bad, size = [], [], [], 0
    if texts or bad:
        yield _chunk(texts, files, bad)


def _read_file(piece: Piece, path: str, max_record_bytes: int) -> str | tuple[str, str, str, bytes, int]:
    with open_file(path) as stream:
        if piece.stop > max_record_bytes:
            detail = f"{piece.stop} bytes, more than max_record_bytes {max_record_bytes}"
            return piece.file, "file_too_long", detail, stream.read(1024), piece.stop
        content = stream.read()
    try:
        return content.removeprefix(BOM).decode()
    except UnicodeDecodeError as error:
        detail = f"byte 0x{error.object[error.start]:02x} at {error.start}: {error.reason}"
        return piece.file, "bad_utf8", detail, content, len(content)


def _chunk(texts: list[str], files: list[str], bad: list[tuple[str, str, str, bytes, int]]) -> Chunk:
    table = pa.table({"text": pa.array(texts, pa.string()), "file": pa.array(files, pa.string())})
    at = pa.StructArray.from_arrays(
        [pa.array(files, pa.string()), pa.nulls(len(files), pa.int64())], fields=list(POSITION)
    )
    return Chunk(table, at, bad_rows(bad))


def store_frame(source: FrameSource, frame: Any, store: WorkStore) -> FrameSource | ParquetSource:
    """The source with its table written under its content's hash beside the work files, where every worker can read it.

    Raises:
        PipelineError: not a pandas, Polars, Dask or Spark frame or an Arrow table.
    """
    if is_lazy(frame):
        return store_lazy(source, frame, store.frames())
    table = as_arrow(frame, f"inputs['{source.name}']")
    temporary = Path(temporary_name(f"{store.frames(here=True)}/{source.name}"))
    with pa.ipc.new_file(str(temporary), table.schema) as writer:
        writer.write_table(table)
    digest = xxhash.xxh3_128()
    with open(temporary, "rb") as content:
        while block := content.read(4 << 20):
            digest.update(block)
    return source.at(store.keep_frame(temporary, f"{digest.hexdigest()}.arrow"))


def as_arrow(frame: Any, what: str) -> pa.Table:
    """An Arrow table of a pandas or Polars frame, a record batch or a table; the index of a pandas frame isn't kept.

    Raises:
        PipelineError: anything else.
    """
    if isinstance(frame, pa.Table):
        return frame.replace_schema_metadata(None)
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame]).replace_schema_metadata(None)
    if hasattr(frame, "to_arrow") and type(frame).__module__.startswith("polars"):
        return frame.to_arrow().replace_schema_metadata(None)
    if type(frame).__module__.startswith("pandas"):
        return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    hint = "; collect() it first" if type(frame).__name__ == "LazyFrame" else ""
    raise PipelineError(
        f"{what} is a {type(frame).__name__}, expected a pandas, Polars, Dask or Spark frame or an Arrow table{hint}"
    )


def read_frame(source: FrameSource, item: WorkItem, chunk_bytes: int) -> Iterator[Chunk]:
    """The item's rows, in chunks of about `chunk_bytes`; positions are `NAME:row N`."""
    piece = item.pieces[0]
    with pa.memory_map(local_copy(piece.file)) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
        table = table.slice(piece.start, piece.stop - piece.start)
        step = max(1, table.num_rows * chunk_bytes // max(table.nbytes, 1))
        for start in range(0, table.num_rows, step):
            part = table.slice(start, step).combine_chunks()
            at = np.arange(piece.start + start, piece.start + start + part.num_rows)
            yield Chunk(part, positions(f"{source.name}:row", at), BAD.empty_table())
