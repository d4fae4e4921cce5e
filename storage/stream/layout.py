"""The row groups that a stream is made of: those of a dataset version, or of any plain Parquet files."""

from __future__ import annotations

import functools
import glob
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.json import ParseOptions, ReadOptions, read_json

from gristmill.errors import (
    InputError,
    InputNotFoundError,
    SchemaMismatchError,
    UsageError,
    did_you_mean,
    missing_column,
)
from gristmill.kernels.buffers import numbers
from gristmill.storage.folder import Folder, open_folder
from gristmill.storage.manifest import FILES, FileList
from gristmill.storage.parquet import open_parquet
from gristmill.storage.ranged import Traffic, open_remote
from gristmill.storage.stream.permute import I64

FOOTER_THREADS = 16
SAMPLED_FILES = 4  # whose footers say how many bytes a row has

Source = Any  # a Dataset, a path, or a list of paths


class Members(NamedTuple):
    """Rows that stand at some places: their layout, which of the places each belongs to, its row group and its number there, each (rows,)."""

    layout: Layout
    which: I64
    group: I64
    row: I64


@dataclass(frozen=True)
class Layout:
    """Row groups in order, numbered from 0; what is known of each is at its number in an array.

    digest: sha256 over the ordered (path, bytes, rows, row-group rows). row_bytes: about how large a row is in memory, all columns. dataset: its name, None
    for plain files. checksums: sha256 by file, empty for plain files. unlike: of a mix, by name, the error of each column that its datasets don't have alike;
    `schema` is without these.
    """

    folders: tuple[Folder, ...]
    files: tuple[str, ...]
    file_folder: I64
    file_bytes: I64
    checksums: tuple[str, ...]
    group_file: I64
    group_index: I64  # its number inside the file
    group_rows: I64
    schema: pa.Schema
    digest: str
    row_bytes: float
    dataset: str | None = None
    listing: FileList | None = None
    unlike: Mapping[str, SchemaMismatchError] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """Rows in all row groups."""
        return int(self.group_rows.sum())

    @property
    def first_rows(self) -> I64:
        """(row groups + 1,) the number of the first row of each row group, counted through the layout."""
        return np.concatenate([[0], np.cumsum(self.group_rows)]).astype(np.int64)

    @property
    def name(self) -> str:
        """The dataset as PATH@VERSION, with #SPLIT; the folder of plain files."""
        return self.dataset or self.folders[0].base

    def head_digest(self, files: int) -> str:
        """The digest that the layout of the first files alone has."""
        return FileList(self.listing.table.slice(0, files)).layout if self.listing else ""

    def chosen(self, columns: Sequence[str] | None) -> list[str]:
        """The names of the columns, of all for None.

        Raises:
            ColumnError: there is no such column. SchemaMismatchError: one that the datasets of a mix don't have alike.
        """
        for name in self.unlike if columns is None else columns:
            if name in self.unlike:
                raise self.unlike[name]
            if name not in self.schema.names:
                raise missing_column(name, self.schema.names, self.name)
        return list(self.schema.names if columns is None else columns)

    @property
    def source(self) -> Layout:
        """The layout of the rows that stand behind those of this one: itself, but for packed sequences."""
        return self

    def members(self, group: I64, row: I64) -> Members:
        """The source's rows that stand at places of this layout."""
        return Members(self, np.arange(len(group)), group, row)

    def units_of(self, row: int) -> list[int]:
        """The rows of this layout that a row of the source is in, both counted through their layouts."""
        return [row]

    @functools.cached_property
    def file_names(self) -> tuple[str, ...]:
        """The files' paths; in a mix NUMBER/path with the dataset's number, for two may have a file of the same path."""
        if len(self.folders) == 1:
            return self.files
        return tuple(f"{folder}/{path}" for folder, path in zip(self.file_folder.tolist(), self.files, strict=True))

    def keys(self, group: I64, row: I64) -> list[str]:
        """A name for each row: `file name:row`, counted through the file."""
        first = self.first_rows[:-1]
        start = first - first[np.searchsorted(self.group_file, self.group_file)]  # of each row group in its file
        return [
            f"{self.file_names[self.group_file[g]]}:{start[g] + r}"
            for g, r in zip(group.tolist(), row.tolist(), strict=True)
        ]

    def folder_of(self, group: int) -> Folder:
        """The folder that the row group's file lies in."""
        return self.folders[self.file_folder[self.group_file[group]]]

    def path_of(self, group: int) -> str:
        """The row group's file, relative to its folder."""
        return self.files[self.group_file[group]]

    def where(self, group: int) -> str:
        """The row group, for error texts."""
        url = self.folder_of(group).url(self.path_of(group))
        return f"'{url}', row group {self.group_index[group]}"


def open_layout(data: Source, split: str | None = None, options: Mapping[str, Any] | None = None) -> tuple[Layout, Any]:
    """(the layout of some data, its Dataset or None for plain files).

    data: a Dataset; the path or URL of one, optionally with @VERSION; a Parquet file, a folder or a glob of them, or a list of these.

    Raises:
        UsageError: a dataset with splits and no split named, or plain files and a split.
        InputNotFoundError: nothing is there. SchemaMismatchError: files with different columns.
    """
    dataset = data if hasattr(data, "file_list") else _find_dataset(data, options)
    if dataset is not None:
        return _of_dataset(dataset, split), dataset
    places = [data] if isinstance(data, str | os.PathLike) else list(data)
    found = _list_files(places, options)
    if split is not None:
        raise UsageError(
            f"split '{split}': plain Parquet files have no splits; leave it out, or name the split's folder"
        )
    return _of_files(*found), None


def join_layouts(layouts: Sequence[Layout]) -> Layout:
    """Several layouts as one, row groups of the first first, with the columns of the first that the others have with the same type."""
    first = layouts[0]
    unlike = {
        error.context["column"]: error
        for other in reversed(layouts[1:])
        for error in _differences(first.schema, other.schema, first.name, other.name)
    }
    files = np.cumsum([0, *(len(each.files) for each in layouts)])
    folders = np.cumsum([0, *(len(each.folders) for each in layouts)])
    rows = sum(each.num_rows for each in layouts)
    return Layout(
        folders=tuple(folder for each in layouts for folder in each.folders),
        files=tuple(path for each in layouts for path in each.files),
        file_folder=np.concatenate([each.file_folder + start for each, start in zip(layouts, folders, strict=False)]),
        file_bytes=np.concatenate([each.file_bytes for each in layouts]),
        checksums=tuple(text for each in layouts for text in each.checksums),
        group_file=np.concatenate([each.group_file + start for each, start in zip(layouts, files, strict=False)]),
        group_index=np.concatenate([each.group_index for each in layouts]),
        group_rows=np.concatenate([each.group_rows for each in layouts]),
        schema=pa.schema([each for each in first.schema if each.name not in unlike]),
        unlike=unlike,
        digest=hashlib.sha256("\n".join(each.digest for each in layouts).encode()).hexdigest(),
        row_bytes=sum(each.row_bytes * each.num_rows for each in layouts) / max(1, rows),
        dataset=" + ".join(each.name for each in layouts),
    )


def _find_dataset(data: Source, options: Mapping[str, Any] | None) -> Any:
    if not isinstance(data, str | os.PathLike):
        return None
    from gristmill.storage.dataset import open_dataset, split_version

    location, number = split_version(os.fspath(data), None)
    if glob.has_magic(str(location)) or str(location).endswith(".parquet"):
        return None
    if number is None and not open_folder(location, options).exists("manifests"):
        return None
    return open_dataset(data, options=options)


def _of_dataset(dataset: Any, split: str | None) -> Layout:
    if split is None and dataset.splits:
        raise UsageError(f"{dataset.name} has splits: name one, such as split='{next(iter(dataset.splits))}'")
    if split is not None and split not in dataset.splits:
        raise UsageError(
            f"{dataset.name} has no split '{split}'.{did_you_mean(split, dataset.splits) or ' It has no splits: leave split out.'}"
        )
    files = dataset.file_list.of_split(split)
    layout = _from_list(dataset.folder, files, dataset.schema)
    return replace(layout, row_bytes=_row_bytes(layout), dataset=dataset.name + (f"#{split}" if split else ""))


def _from_list(folder: Folder, files: FileList, schema: pa.Schema) -> Layout:
    groups = files.table["row_group_rows"].combine_chunks()
    counts = numbers(pc.list_value_length(groups)).astype(np.int64, copy=False)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64) if len(counts) else counts
    return Layout(
        folders=(folder,),
        files=tuple(files.table["path"].to_pylist()),
        file_folder=np.zeros(len(files), np.int64),
        file_bytes=numbers(files.table["bytes"]),
        checksums=tuple(files.table["sha256"].to_pylist()),
        group_file=np.repeat(np.arange(len(files)), counts),
        group_index=np.arange(int(counts.sum())) - np.repeat(first, counts),
        group_rows=numbers(pc.list_flatten(groups)).astype(np.int64, copy=False),
        schema=schema,
        digest=files.layout,
        row_bytes=0.0,
        listing=files,
    )


def _row_bytes(layout: Layout) -> float:
    """Uncompressed bytes of a row, from the footers of some files."""
    filled = np.unique(layout.group_file[layout.group_rows > 0])
    chosen = (
        filled[np.linspace(0, len(filled) - 1, min(len(filled), SAMPLED_FILES)).astype(int)] if len(filled) else filled
    )
    rows = size = 0
    for file in chosen:
        folder, path = layout.folders[layout.file_folder[file]], layout.files[file]
        with _open(folder, path, int(layout.file_bytes[file])) as opened:
            rows += opened.metadata.num_rows
            size += _uncompressed(opened.metadata)
    return size / max(1, rows)


def _uncompressed(metadata: Any) -> int:
    return sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))


def _list_files(places: Sequence[Any], options: Mapping[str, Any] | None) -> tuple[Folder, list[tuple[str, int]]]:
    """(their common folder, the Parquet files in it as (path, bytes), in order of path within each place)."""
    found: list[str] = []
    sizes: dict[str, int] = {}
    for place in places:
        here = _files_at(os.fspath(place), options)
        if not here:
            raise InputNotFoundError(
                f"no Parquet file at '{place}': give a file, a folder or a glob that has some", path=str(place)
            )
        found += [path for path in here if path not in sizes]
        sizes.update(here)
    if not found:
        raise UsageError("no data: give a dataset, a Parquet file, a folder or a glob")
    base = (
        os.path.commonpath([os.path.dirname(path) for path in found]) if "://" not in found[0] else _common_url(found)
    )
    return open_folder(base, options), [(path[len(base.rstrip("/")) + 1 :], sizes[path]) for path in found]


def _files_at(place: str, options: Mapping[str, Any] | None) -> dict[str, int]:
    if "://" in place and not glob.has_magic(place):
        folder = open_folder(place.rpartition("/")[0] if place.endswith(".parquet") else place.rstrip("/"), options)
        listed = {folder.url(path): size for path, size, _ in folder.list("") if _is_data(path)}
        return (
            {place: listed[place]}
            if place in listed
            else {}
            if place.endswith(".parquet")
            else dict(sorted(listed.items()))
        )
    if "://" in place:
        raise UsageError(f"'{place}': globs of URLs are not supported; name the folder or list the files")
    if os.path.isfile(place):
        paths = [place]
    elif os.path.isdir(place):
        inside = glob.glob("**/*.parquet", root_dir=place, recursive=True)
        paths = [os.path.join(place, path) for path in sorted(inside) if _is_data(path)]
    else:
        paths = sorted(path for path in glob.glob(place, recursive=True) if os.path.isfile(path))
    return {os.path.abspath(path): os.path.getsize(path) for path in paths}


def _is_data(path: str) -> bool:
    return path.endswith(".parquet") and not any(part.startswith(("_", ".")) for part in path.split("/"))


def _common_url(urls: Sequence[str]) -> str:
    scheme, _, _ = urls[0].partition("://")
    paths = [os.path.dirname(url.partition("://")[2]) for url in urls]
    return f"{scheme}://{os.path.commonpath(paths)}"


def _of_files(folder: Folder, files: Sequence[tuple[str, int]]) -> Layout:
    """The layout of plain files; reads every footer once."""
    with ThreadPoolExecutor(FOOTER_THREADS) as threads:
        footers = list(threads.map(lambda file: _footer(folder, *file), files))
    filled = [(path, footer) for (path, _), footer in zip(files, footers, strict=True) if sum(footer[1])]
    schema = filled[0][1][0] if filled else footers[0][0]
    for path, (other, _, _) in filled:  # files without rows are never read
        _check_schema(schema, other, folder.url(filled[0][0]), folder.url(path))
    lines = [
        {
            "path": path,
            "rows": sum(groups),
            "bytes": size,
            "sha256": "",
            "row_group_rows": groups,
            "row_sum": "",
            "side_cars": [],
        }
        for (path, size), (_, groups, _) in zip(files, footers, strict=True)
    ]
    # by way of JSON, for pa.array imports pandas wherever that is installed: a third of a second, more than all else here
    text = "\n".join(map(json.dumps, lines)).encode()
    listed = read_json(pa.py_buffer(text), ReadOptions(block_size=len(text) + 1), ParseOptions(explicit_schema=FILES))
    layout = _from_list(folder, FileList(listed.select(FILES.names)), schema)
    chosen = (
        [filled[i][1] for i in np.linspace(0, len(filled) - 1, min(len(filled), SAMPLED_FILES)).astype(int)]
        if filled
        else []
    )
    return replace(
        layout, row_bytes=sum(size for *_, size in chosen) / max(1, sum(sum(groups) for _, groups, _ in chosen))
    )


def _open(folder: Folder, path: str, size: int) -> Any:
    return open_parquet(folder, path, source=open_remote(folder, path, size, Traffic()) if folder.remote else None)


def _footer(folder: Folder, path: str, size: int) -> tuple[pa.Schema, list[int], int]:
    """(schema, rows of each row group, uncompressed bytes) of a file."""
    with _open(folder, path, size) as file:
        metadata = file.metadata
        groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        return file.schema_arrow.remove_metadata(), groups, _uncompressed(metadata)


def _check_schema(expected: pa.Schema, found: pa.Schema, first: str, other: str) -> None:
    for error in _differences(expected, found, first, other):
        raise error
    if not len(expected):
        raise InputError(f"'{first}' has no columns", path=first)


def _differences(expected: pa.Schema, found: pa.Schema, first: str, other: str) -> Iterator[SchemaMismatchError]:
    for column in expected:
        name, kind = column.name, found.field(column.name).type if column.name in found.names else None
        if kind is None:
            yield SchemaMismatchError(f"'{other}' has no column '{name}', which '{first}' has", column=name)
        elif kind != column.type:
            yield SchemaMismatchError(
                f"column '{name}' is {kind} in '{other}' and {column.type} in '{first}': write them with one type, or stream them apart",
                column=name,
            )
