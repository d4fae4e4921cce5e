"""Row groups from Parquet files, as leaves."""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.errors import CorruptDatasetError, DataChangedError, InputError, UsageError
from gristmill.storage.folder import Folder
from gristmill.storage.parquet import open_parquet
from gristmill.storage.range_cache import RangeCache
from gristmill.storage.ranged import RangedFile, Stamp, Traffic, open_remote
from gristmill.storage.stream.columns import Leaf, NullElementError, plan_columns
from gristmill.storage.stream.layout import Layout

CHECKS = ("size", "pages", "sha256")
FOOTERS_KEPT = 1024
BLOCK = 1 << 22
LOCKS = 64


class Opened(NamedTuple):
    """A file that was opened once: its footer, and what tells whether it is still the same."""

    metadata: Any
    stamp: Stamp


class Reader:
    """Reads row groups of a layout; may be used by several threads at once.

    check: "size" compares each file's size with the layout, "pages" also each page with its checksum where the writer left one, "sha256" also each file with the
    manifest before its first use. Of remote files only the bytes of the columns are read; cache keeps them. traffic: what was asked of stores.
    """

    def __init__(
        self,
        layout: Layout,
        columns: Sequence[str] | None = None,
        check: str = "pages",
        cache: RangeCache | None = None,
    ) -> None:
        where = layout.name
        names = layout.chosen(columns)
        if check not in CHECKS:
            raise UsageError(f"check='{check}': one of {', '.join(CHECKS)}")
        self.layout = layout
        self.names = names
        self.traffic = Traffic()
        self.cache = cache
        self._check = check
        self._stamps: dict[int, Stamp] = {}  # of each file that was opened: its footer may have been dropped since
        self._make_caches()
        schema = pa.schema([layout.schema.field(name) for name in names])
        self.columns = plan_columns(schema, self._all_values, where)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None, "_locks": None}

    def __setstate__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)
        self._make_caches()

    def _make_caches(self) -> None:
        self._open = functools.lru_cache(FOOTERS_KEPT)(self._open_first)
        self._locks = [threading.Lock() for _ in range(LOCKS)]

    def read(self, group: int) -> list[Leaf]:
        """The leaves of one row group, column by column.

        Raises:
            CorruptDatasetError: bytes that can't be read; names file, row group and column. DataChangedError: the file was replaced since it was first read.
        """
        table = self.read_table(group, self.names)
        leaves: list[Leaf] = []
        for column in self.columns:
            try:
                leaves += column.leaves(_one_array(table[column.name], column.kind))
            except NullElementError:
                text = f"{self.layout.where(group)}, column '{column.name}': a null inside a list of numbers has no tensor form; fill it before, or leave the column out"
                raise InputError(text, column=column.name) from None
        return leaves

    def empty(self) -> list[Leaf]:
        """The leaves of no rows."""
        arrays = [pa.array([], self.layout.schema.field(column.name).type) for column in self.columns]
        leaves = [leaf for column, array in zip(self.columns, arrays, strict=True) for leaf in column.leaves(array)]
        return [leaf.copy() if isinstance(leaf, np.ndarray) else leaf for leaf in leaves]  # Arrow's memory is read-only

    def read_table(self, group: int, names: Sequence[str]) -> pa.Table:
        """Columns of one row group, as Arrow."""
        file = int(self.layout.group_file[group])
        try:
            with self._locks[file % LOCKS]:  # several threads want a file's first row groups at once
                opened = self._open(file)
            if not self.layout.folder_of(group).remote:
                self._check_same(file, self._stamp(file), opened.stamp)
            return self._read(file, int(self.layout.group_index[group]), names, opened)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, CorruptDatasetError | InputError):
                raise
            raise self._corrupt(group, names, error) from error

    def _read(self, file: int, index: int, names: Sequence[str], opened: Opened) -> pa.Table:
        folder, path = self._place(file)
        source = None
        if folder.remote:
            source = RangedFile(folder, path, opened.stamp, self.traffic, self.cache)
            source.fetch(_column_ranges(opened.metadata.row_group(index), names))
        with open_parquet(
            folder, path, metadata=opened.metadata, checksums=self._check != "size", source=source
        ) as parquet:
            return parquet.read_row_group(index, columns=list(names), use_threads=False)

    def _open_first(self, file: int) -> Opened:
        """A file, checked against the layout."""
        folder, path = self._place(file)
        size = int(self.layout.file_bytes[file])
        source, stamp = None, Stamp(size, "")
        if folder.remote:
            source = open_remote(folder, path, size, self.traffic, self.cache)
            stamp = source.stamp
        else:
            stamp = self._stamp(file)
            if stamp.size != size:
                raise CorruptDatasetError(f"'{folder.url(path)}' has {stamp.size} bytes, expected {size}", file=path)
        if self._check == "sha256" and self.layout.checksums[file]:
            found = _sha256(folder, path)
            if found != self.layout.checksums[file]:
                raise CorruptDatasetError(
                    f"'{folder.url(path)}' has sha256 {found}, expected {self.layout.checksums[file]}", file=path
                )
        self._check_same(file, stamp, self._stamps.setdefault(file, stamp))
        with open_parquet(folder, path, source=source) as opened:
            return Opened(opened.metadata, stamp)

    def _check_same(self, file: int, found: Stamp, known: Stamp) -> None:
        if found != known:
            folder, path = self._place(file)
            raise DataChangedError(
                f"'{folder.url(path)}' was replaced while it was streamed: what was read before and after don't belong together",
                file=folder.url(path),
            )

    def _stamp(self, file: int) -> Stamp:
        """Of a local file: its size and when it last changed."""
        folder, path = self._place(file)
        try:
            found = os.stat(folder.url(path))
        except FileNotFoundError:
            raise CorruptDatasetError(f"'{folder.url(path)}' is missing", file=path) from None
        return Stamp(found.st_size, str(found.st_mtime_ns))

    def _place(self, file: int) -> tuple[Folder, str]:
        return self.layout.folders[self.layout.file_folder[file]], self.layout.files[file]

    def _corrupt(self, group: int, names: Sequence[str], error: BaseException) -> CorruptDatasetError:
        """The error, with the first column that can't be read."""
        file, column = int(self.layout.group_file[group]), None
        for name in names:
            try:
                self._read(file, int(self.layout.group_index[group]), [name], self._open(file))
            except (pa.ArrowException, OSError):
                column = name
                break
        place = self.layout.where(group) + (f", column '{column}'" if column else "")
        return CorruptDatasetError(
            f"{place} can't be read: {str(error).splitlines()[0]}",
            file=self.layout.path_of(group),
            group=group,
            column=column,
        )

    def _all_values(self, name: str) -> pa.Array:
        """The distinct values of a dictionary column, sorted: what its codes stand for in every row group. One pass over the column."""
        if "." in name:
            raise UsageError(f"column '{name}': dictionaries inside a struct can't be streamed; cast them to text")
        found = pa.array([], self.layout.schema.field(name).type.value_type)
        for group in range(len(self.layout.group_rows)):
            for chunk in self.read_table(group, [name])[name].chunks:
                found = pa.concat_arrays([found, chunk.dictionary.cast(found.type)]).unique()
        found = found.drop_null()
        return found.take(pa.compute.sort_indices(found))


def _column_ranges(row_group: Any, names: Sequence[str]) -> list[tuple[int, int]]:
    """Where the bytes of some columns of a row group are."""
    found = []
    for number in range(row_group.num_columns):
        chunk = row_group.column(number)
        path = chunk.path_in_schema
        if any(path == name or path.startswith(f"{name}.") for name in names):
            start = chunk.data_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset:
                start = min(start, chunk.dictionary_page_offset)
            found.append((start, start + chunk.total_compressed_size))
    return found


def _one_array(column: pa.ChunkedArray, kind: str) -> pa.Array:
    if kind in ("text", "bytes") and column.num_chunks > 1:
        column = column.cast(pa.large_string() if kind == "text" else pa.large_binary())
    if column.num_chunks == 1:
        return column.chunk(0)
    return column.combine_chunks() if column.num_chunks else pa.array([], column.type)


def _sha256(folder: Folder, path: str) -> str:
    digest = hashlib.sha256()
    with folder.open_input(path) as source:
        while block := source.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
