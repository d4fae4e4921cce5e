"""Anything that holds rows, opened as shards that are read in Arrow batches, each with its place. For validation, profile and drift alike."""

from __future__ import annotations

import functools
import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.errors import (
    CorruptDatasetError,
    InputError,
    InputNotFoundError,
    SchemaMismatchError,
    UsageError,
    capped,
    missing_column,
)
from gristmill.storage.dataset import Dataset, open_dataset
from gristmill.storage.manifest import FileEntry
from gristmill.storage.parquet import open_parquet_source
from gristmill.validators import text_files

BATCH_ROWS = 1 << 18
BATCH_BYTES = 48 << 20
FEW_ROWS = 1 << 15  # a table isn't cut into fewer: what each batch takes besides its rows would be more
PARQUET = (".parquet", ".pq")
TEXT = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")

Objects = Mapping[str, npt.NDArray[Any]]


class Batch(NamedTuple):
    """Some rows that follow each other in one shard.

    table: the columns that were asked for. objects: (rows,) Python objects of the columns that have no Arrow type (mixed pandas columns).
    shard: its number. offset: the number in the shard of the first row. first: that in the data.
    """

    table: pa.Table
    objects: Objects
    shard: int
    offset: int
    first: int


class Piece(NamedTuple):
    """A part of a shard that is read by itself: `rows` rows from `offset` on; `groups` says where to the shard's reader."""

    shard: int
    offset: int
    first: int
    rows: int
    groups: tuple[int, ...]


class Reader(Protocol):
    """How the rows of one shard are read, from several threads at once."""

    def pieces(self, rows: int) -> list[tuple[int, tuple[int, ...]]]:
        """(rows, groups) of parts that can be read by themselves, in order; `groups` is the reader's own affair. rows: in each at most, if it can be cut so."""

    def read(self, groups: tuple[int, ...], columns: Sequence[str]) -> Iterator[tuple[pa.Table, Objects]]:
        """The rows of a part, in order, in tables of about BATCH_ROWS rows at most."""


@dataclass(frozen=True)
class Shard:
    """A file, or a part of a frame. key: the sha256 of its bytes where known; states are kept by it."""

    name: str
    rows: int
    reader: Reader
    key: str | None = None

    @property
    def footer(self) -> pq.FileMetaData | None:
        """That of a Parquet file, read when it is first asked for."""
        return self.reader.footer if isinstance(self.reader, _ParquetReader) else None

    @functools.cached_property
    def footer_columns(self) -> dict[str, tuple[int, pa.DataType]]:
        """{column: (its place in the footer, its type)}; empty without a footer, and for files with nested columns, whose places differ."""
        if self.footer is None:
            return {}
        schema = self.footer.schema.to_arrow_schema()
        if any(pa.types.is_nested(field.type) for field in schema):
            return {}
        return {field.name: (place, field.type) for place, field in enumerate(schema)}


@dataclass(frozen=True)
class Data:
    """Rows in shards, in a fixed order.

    name: as texts have it. schema: of the columns with an Arrow type; `columns` names all, in order. fingerprint: that of a dataset version.
    dtypes: {column: its pandas dtype} where the rows come from a pandas frame. index: (rows,) the labels of its rows, unless they count from 0.
    dataset: the version, where it is one. partitions: those of a Dask or Spark frame (`remote`).
    """

    name: str
    schema: pa.Schema
    shards: Sequence[Shard]
    columns: Sequence[str]
    fingerprint: str | None = None
    dtypes: Mapping[str, str] = field(default_factory=dict)
    index: Any = None
    dataset: Dataset | None = None
    partitions: Any = None

    @property
    def num_rows(self) -> int:
        """All rows."""
        return sum(shard.rows for shard in self.shards)

    def check_column(self, name: str, where: str) -> None:
        """Raises ColumnError, with the nearest name, for a column that isn't there."""
        if name not in self.columns:
            raise missing_column(name, self.columns, where)

    def pieces(self, shards: Sequence[int] | None = None, *, rows: int = BATCH_ROWS) -> list[Piece]:
        """The parts of the shards (all for None) that can be read by themselves, in order. rows: in each at most, if it can be cut so."""
        found, first = [], 0
        wanted = set(range(len(self.shards)) if shards is None else shards)
        for number, shard in enumerate(self.shards):
            if number in wanted:
                offset = 0
                for count, groups in shard.reader.pieces(rows):
                    found.append(Piece(number, offset, first + offset, count, groups))
                    offset += count
            first += shard.rows
        return found

    def read(self, piece: Piece, columns: Sequence[str]) -> Iterator[Batch]:
        """The rows of a piece. May be called from several threads.

        Raises:
            InputError: it can't be read; the text names the shard.
        """
        shard = self.shards[piece.shard]
        offset = piece.offset
        try:
            for table, objects in shard.reader.read(piece.groups, columns):
                yield Batch(table, objects, piece.shard, offset, piece.first - piece.offset + offset)
                offset += table.num_rows
        except (OSError, pa.ArrowException) as error:
            text = f"shard '{shard.name}' can't be read, rows {piece.offset:,} to {piece.offset + piece.rows:,}: {str(error).splitlines()[0]}"
            raise InputError(text, shard=shard.name) from error
        if offset - piece.offset != piece.rows:
            text = f"shard '{shard.name}' gave {offset - piece.offset:,} rows where {piece.rows:,} were expected"
            raise InputError(text, shard=shard.name)

    def batches(self, columns: Sequence[str] | None = None, shards: Sequence[int] | None = None) -> Iterator[Batch]:
        """All rows in order, one batch after another."""
        for piece in self.pieces(shards):
            yield from self.read(piece, self.columns if columns is None else columns)

    def take(self, rows: npt.NDArray[np.int64], columns: Sequence[str]) -> Batch:
        """These rows (ascending numbers), reading only the pieces that they lie in. `first` and `offset` mean nothing here."""
        tables, objects = [], []
        ends = np.cumsum([shard.rows for shard in self.shards])
        for piece in self.pieces(np.unique(np.searchsorted(ends, rows, "right")).tolist(), rows=1):
            low, high = np.searchsorted(rows, [piece.first, piece.first + piece.rows])
            if low == high:
                continue
            for batch in self.read(piece, columns):
                at = rows[(rows >= batch.first) & (rows < batch.first + batch.table.num_rows)] - batch.first
                if len(at):
                    tables.append(batch.table.take(pa.array(at)))
                    objects.append({name: values[at] for name, values in batch.objects.items()})
        if not tables:
            places = [(name, self.schema.get_field_index(name)) for name in columns]
            schema = pa.schema([self.schema.field(place) for _, place in places if place >= 0])
            return Batch(
                schema.empty_table(), {name: np.zeros(0, object) for name, place in places if place < 0}, 0, 0, 0
            )
        names = objects[0]
        return Batch(
            pa.concat_tables(tables, promote_options="permissive"),
            {name: np.concatenate([each[name] for each in objects]) for name in names},
            0,
            0,
            0,
        )


def open_data(data: Any, *, split: str | None = None) -> Data:
    """The rows of a dataset version, of Parquet, CSV or JSONL files, or of a pandas, Polars, Arrow or Dask frame, as `Data`.

    data: a Dataset or its path (PATH@VERSION too), a path, folder or glob of files, a list of such, or a frame. split: of a dataset only.

    Raises:
        InputNotFoundError, DatasetNotFoundError: nothing there.
        SchemaMismatchError: files whose columns can't be brought together, naming both.
        CorruptDatasetError, InputError: a file that can't be opened, naming it.
        UsageError: something that holds no rows.
    """
    if isinstance(data, Data):
        return data
    if isinstance(data, Dataset):
        return _of_dataset(data, split)
    if isinstance(data, (str, os.PathLike)):
        text = os.fspath(data)
        if _is_dataset(text):
            return _of_dataset(open_dataset(text), split)
        data = [text]
    if split is not None:
        raise UsageError(f"split='{split}': only a dataset has splits; leave it out")
    if isinstance(data, (list, tuple)) and data and all(isinstance(each, (str, os.PathLike)) for each in data):
        paths = [os.fspath(each) for each in data]
        if len(paths) > 1 and (dataset := next(filter(_is_dataset, paths), None)):
            raise UsageError(f"'{dataset}' is a dataset: give it alone, not with others")
        return _of_files(paths)
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if isinstance(data, pa.Table):
        return of_tables([data], "table")
    kind = type(data).__module__.partition(".")[0]
    if kind == "polars":
        frame = data.collect() if hasattr(data, "collect") else data
        return of_tables([frame.to_arrow()], "frame")
    if kind in ("pandas", "dask", "pyspark"):
        from gristmill.validators import frames

        openers: dict[str, Callable[[Any], Data]] = {
            "pandas": frames.open_pandas,
            "dask": frames.open_dask,
            "pyspark": frames.open_spark,
        }
        return openers[kind](data)
    raise UsageError(
        f"can't validate a {type(data).__name__}: give a dataset, the path of Parquet, CSV or JSONL files, or a pandas, Arrow, Polars, Dask or Spark frame"
    )


def of_tables(tables: Sequence[pa.Table], name: str, objects: Sequence[Objects] = (), **facts: Any) -> Data:
    """Data whose shards are these tables. facts: as of `Data`; `columns` is needed where there are objects."""
    several = len(tables) > 1
    shards = [
        Shard(f"{name}[{i}]" if several else name, table.num_rows, _TableReader(table, objects[i] if objects else {}))
        for i, table in enumerate(tables)
    ]
    schema = tables[0].schema.remove_metadata()
    columns = facts.pop("columns", schema.names)
    if len(set(columns)) < len(columns):
        twice = sorted({column for column in columns if list(columns).count(column) > 1})
        raise SchemaMismatchError(f"{name}: several columns are called {capped(twice)}; rename all but one of each")
    return Data(name, schema, shards, columns, **facts)


class _TableReader:
    """Rows in memory, or in a memory-mapped file."""

    def __init__(self, table: pa.Table, objects: Objects) -> None:
        self._table, self._objects = table, objects

    def pieces(self, rows: int) -> list[tuple[int, tuple[int, ...]]]:
        every = self._table.num_rows
        parts = max(1, -(-self._bytes // BATCH_BYTES), -(-every // max(rows, FEW_ROWS)))
        step = max(1, -(-every // parts))
        return [(min(step, every - start), (start, min(step, every - start))) for start in range(0, every, step)]

    @functools.cached_property
    def _bytes(self) -> int:
        return self._table.nbytes

    def read(self, groups: tuple[int, ...], columns: Sequence[str]) -> Iterator[tuple[pa.Table, Objects]]:
        start, rows = groups
        names = [name for name in columns if name not in self._objects]
        objects = {name: self._objects[name][start : start + rows] for name in columns if name in self._objects}
        if names:
            yield self._table.select(names).slice(start, rows), objects
        else:
            yield pa.table({"": pa.nulls(rows)}), objects


class _ParquetReader:
    """A Parquet file; opened anew for each piece, so that threads don't share it. footer: reads and checks it."""

    def __init__(
        self,
        opener: Callable[[pq.FileMetaData | None], pq.ParquetFile],
        footer: Callable[[], pq.FileMetaData],
        schema: pa.Schema,
    ) -> None:
        self._open, self._read_footer, self._schema = opener, footer, schema

    @functools.cached_property
    def footer(self) -> pq.FileMetaData:
        return self._read_footer()

    def pieces(self, rows: int) -> list[tuple[int, tuple[int, ...]]]:
        found: list[tuple[int, tuple[int, ...]]] = []
        count, size = 0, 0
        groups: list[int] = []
        for number in range(self.footer.num_row_groups):
            group = self.footer.row_group(number)
            if groups and (count + group.num_rows > rows or size + group.total_byte_size > BATCH_BYTES):
                found.append((count, tuple(groups)))
                count, size, groups = 0, 0, []
            count, size = count + group.num_rows, size + group.total_byte_size
            groups.append(number)
        return [*found, (count, tuple(groups))] if groups else found

    def read(self, groups: tuple[int, ...], columns: Sequence[str]) -> Iterator[tuple[pa.Table, Objects]]:
        schema = pa.schema([self._schema.field(name) for name in columns])
        with self._open(self.footer) as file:
            if not columns:
                yield pa.table({"": pa.nulls(sum(self.footer.row_group(i).num_rows for i in groups))}), {}
            elif len(groups) > 1 or self.footer.row_group(groups[0]).num_rows <= BATCH_ROWS:
                table = file.read_row_groups(list(groups), columns=list(columns), use_threads=False)
                yield _conform(table, schema), {}
            else:
                for batch in file.iter_batches(
                    BATCH_ROWS, row_groups=list(groups), columns=list(columns), use_threads=False
                ):
                    yield _conform(pa.Table.from_batches([batch]), schema), {}


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    table = table.select(schema.names)
    return table if table.schema.equals(schema) else table.cast(schema)


def _is_dataset(text: str) -> bool:
    base = text.rpartition("@")[0] if "@" in text else text
    return any(os.path.isdir(os.path.join(path, "manifests")) for path in (base, text)) or "://" in text


def _of_dataset(dataset: Dataset, split: str | None) -> Data:
    entries, shards = list(dataset.files(split)), []
    for entry, size in zip(entries, dataset.folder.sizes([entry.path for entry in entries]), strict=True):

        def opener(footer: pq.FileMetaData | None, entry: FileEntry = entry) -> pq.ParquetFile:
            return dataset.open_file(entry, metadata=footer, checksums=True)

        footer = functools.partial(_checked_footer, dataset, entry, size)
        if size != entry.bytes:
            footer()  # says what is wrong
        shards.append(Shard(entry.path, entry.rows, _ParquetReader(opener, footer, dataset.schema), entry.sha256))
    name = dataset.name if split is None else f"{dataset.name}, split {split}"
    whole = dataset.fingerprint if split is None else None
    return Data(name, dataset.schema, shards, dataset.schema.names, whole, dataset=dataset)


def _checked_footer(dataset: Dataset, entry: FileEntry, size: int | None) -> pq.FileMetaData:
    """Raises CorruptDatasetError for another file than that of the manifest."""
    with dataset.open_file(entry) as file:
        footer = file.metadata
    if (size, footer.num_rows) != (entry.bytes, entry.rows):
        text = f"'{dataset.folder.url(entry.path)}' has {footer.num_rows:,} rows in {size:,} bytes, expected {entry.rows:,} in {entry.bytes:,}"
        raise CorruptDatasetError(
            f"{text}; `gristmill verify` lists all that is wrong with {dataset.name}", file=entry.path
        )
    return footer


def _of_files(patterns: Sequence[str]) -> Data:
    paths = [path for pattern in patterns for path in _matches(pattern)]
    kinds = {_kind(path) for path in paths}
    if len(kinds) > 1:
        raise UsageError(f"{capped(patterns)}: Parquet and text files together; validate them one kind at a time")
    name = patterns[0] if len(patterns) == 1 else f"{patterns[0]} and {len(patterns) - 1} more"
    if kinds != {PARQUET}:
        tables = text_files.open_tables(paths)
        shards = [
            Shard(path, table.num_rows, _TableReader(table, {})) for path, table in zip(paths, tables, strict=True)
        ]
        return Data(name, tables[0].schema, shards, tables[0].schema.names)
    opened = [(path, *_footer(path)) for path in paths]
    schema = text_files.unify([(schema, path) for path, _, schema in opened])
    shards = []
    for path, footer, _ in opened:

        def opener(footer: pq.FileMetaData | None, path: str = path) -> pq.ParquetFile:
            return pq.ParquetFile(path, metadata=footer, page_checksum_verification=True)

        def known(footer: pq.FileMetaData = footer) -> pq.FileMetaData:
            return footer

        shards.append(Shard(path, footer.num_rows, _ParquetReader(opener, known, schema)))
    return Data(name, schema, shards, schema.names)


def _footer(path: str) -> tuple[pq.FileMetaData, pa.Schema]:
    try:
        with open_parquet_source(path) as file:
            return file.metadata, file.schema_arrow.remove_metadata()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"'{path}' is not a readable Parquet file: {str(error).splitlines()[0]}", file=path) from error


def _matches(pattern: str) -> list[str]:
    if os.path.isdir(pattern):
        every = [os.path.join(folder, name) for folder, _, names in os.walk(pattern) for name in names]
        found = sorted(path for path in every if _kind(path) and not os.path.basename(path).startswith((".", "_")))
    else:
        found = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]
    if not found or not all(os.path.exists(path) for path in found):
        raise InputNotFoundError(
            f"'{pattern}': no such file, and no Parquet, CSV or JSONL file under that name", path=pattern
        )
    if unknown := [path for path in found if _kind(path) is None]:
        raise UsageError(f"can't tell what is in {capped(unknown)}: expected the endings {capped((*PARQUET, *TEXT))}")
    return found


def _kind(path: str) -> tuple[str, ...] | None:
    name = path.lower().removesuffix(".gz").removesuffix(".zst")
    return next((kind for kind in (PARQUET, TEXT) if name.endswith(kind)), None)
