"""A dataset version, opened: what it holds, where, and whether it is whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from gristmill.errors import DatasetNotFoundError, NotADatasetError, TaintedVersionError, UsageError, did_you_mean
from gristmill.storage import interop, verify
from gristmill.storage.diff import Difference, compare
from gristmill.storage.folder import Folder, open_folder
from gristmill.storage.manifest import FileEntry, FileList, Manifest
from gristmill.storage.parquet import open_parquet
from gristmill.storage.versions import newest_version, read_files, read_manifest, republish, version_numbers


class Dataset:
    """One version of a dataset. It never changes; `open_dataset` again sees newer ones."""

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._files: FileList | None = None

    @property
    def path(self) -> str:
        """The dataset's folder or URL."""
        return self.folder.base

    @property
    def version(self) -> int:
        """The version's number, from 1."""
        return self.manifest.version

    @property
    def num_rows(self) -> int:
        """Rows in all splits."""
        return self.manifest.num_rows

    @property
    def schema(self) -> pa.Schema:
        """The schema of every shard."""
        return self.manifest.schema

    @property
    def splits(self) -> dict[str, int]:
        """Rows by split; empty for a dataset without splits."""
        return dict(self.manifest.splits)

    @property
    def fingerprint(self) -> str:
        """The content: rows with uid and split, and schema, free of order, files and engine."""
        return self.manifest.fingerprint

    @property
    def layout(self) -> str:
        """The order: paths, sizes and row groups of the files."""
        return self.manifest.layout

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        """The verdicts given on this content, oldest first."""
        return verify.read_verdicts(self.folder, self.fingerprint)

    @property
    def file_list(self) -> FileList:
        """All files in order, as a table; for very many of them."""
        if self._files is None:
            self._files = read_files(self.folder, self.manifest)
        return self._files

    def files(self, split: str | None = None) -> list[FileEntry]:
        """The files of a split (of all for None), in order.

        Raises:
            UsageError: no such split.
        """
        self._check_split(split)
        return list(self.file_list.of_split(split))

    def to_table(self, split: str | None = None, columns: list[str] | None = None) -> pa.Table:
        """The rows of a split, or of all, in order, as one Arrow table in memory."""
        schema = self.schema if columns is None else pa.schema([self.schema.field(name) for name in self._known(columns)])
        tables = []
        for entry in self.files(split):
            with open_parquet(self.folder, entry.path) as file:
                tables.append(file.read(columns=columns).select(schema.names).cast(schema))
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def history(self) -> list[dict[str, Any]]:
        """Every version, newest first: version, created, rows, splits, fingerprint, parent, counts."""
        found = []
        for number in reversed(version_numbers(self.folder)):
            manifest = read_manifest(self.folder, number)
            names = ("version", "parent", "created", "num_rows", "splits", "fingerprint", "layout", "engine", "code_version", "counts")
            found.append({name: getattr(manifest, name) for name in names})
        return found

    def verify(self, *, fast: bool = False) -> list[verify.Problem]:
        """Everything that doesn't match the manifest; empty if the version is whole. fast: sizes only, nothing is read."""
        return verify.verify_files(self.folder, self.manifest, self.file_list, fast=fast)

    def rollback(self, version: int) -> Dataset:
        """A new, newest version with the files of an older one.

        Raises:
            DatasetNotFoundError: no such version.
            CommitConflictError: another run published meanwhile.
        """
        old = read_manifest(self.folder, version)
        check_untainted(self.folder, old)
        newest = newest_version(self.folder)
        assert newest is not None
        return Dataset(self.folder, republish(self.folder, old, newest))

    def diff(self, other: Dataset) -> Difference:
        """What changed from this version to the other: schema, rows by uid, splits."""
        return compare(self, other)

    def to_pandas(self, split: str | None = None, columns: list[str] | None = None) -> Any:
        """The rows as a pandas DataFrame."""
        return interop.to_pandas(self.to_table(split, columns))

    def to_polars(self, split: str | None = None, columns: list[str] | None = None) -> Any:
        """The rows as a Polars DataFrame."""
        return interop.to_polars(self.to_table(split, columns))

    def to_dask(self, split: str | None = None, columns: list[str] | None = None) -> Any:
        """A lazy Dask DataFrame, one partition a shard."""
        return interop.to_dask(self, split, columns)

    def _known(self, columns: list[str]) -> list[str]:
        from gristmill.errors import missing_column

        for name in columns:
            if name not in self.schema.names:
                raise missing_column(name, self.schema.names, f"{self.path}@{self.version}")
        return columns

    def _check_split(self, split: str | None) -> None:
        if split is not None and split not in self.splits:
            raise UsageError(f"{self.path}@{self.version} has no split '{split}'.{did_you_mean(split, self.splits)}")

    def __repr__(self) -> str:
        splits = ", ".join(f"{name} {rows:,}" for name, rows in self.splits.items())
        return f"Dataset({self.path!r}, version={self.version}, rows={self.num_rows:,}{f', splits: {splits}' if splits else ''})"


def open_dataset(path: str | os.PathLike[str] | Folder, version: int | None = None, options: Mapping[str, Any] | None = None) -> Dataset:
    """The newest published version of the dataset at a path or URL, or the one named by `version` or `PATH@VERSION`.

    Raises:
        DatasetNotFoundError: no such folder or version.
        NotADatasetError: a folder that isn't gristmill's.
        TaintedVersionError: rows of the version were erased since.
    """
    location, number = split_version(path, version)
    folder = open_folder(location, options)
    if number is None:
        number = newest_version(folder)
    if number is None:
        raise _absent(folder)
    if not folder.exists("manifests"):
        raise _absent(folder)
    manifest = read_manifest(folder, number)
    check_untainted(folder, manifest)
    return Dataset(folder, manifest)


def split_version(path: str | os.PathLike[str] | Folder, version: int | None) -> tuple[str | Folder, int | None]:
    """(path, version) of `PATH@VERSION`."""
    if isinstance(path, Folder):
        return path, version
    text = os.fspath(path)
    base, at, number = text.rpartition("@")
    if at and number.isdigit():
        if version is not None and version != int(number):
            raise UsageError(f"'{text}' names version {number}, but version={version} was given too")
        return base, int(number)
    return text, version


def check_untainted(folder: Folder, manifest: Manifest) -> None:
    """Refuses a version that holds rows erased since."""
    if folder.exists(f"erased/tainted/v{manifest.version:08d}"):
        raise TaintedVersionError(f"'{folder.base}' version {manifest.version} holds rows that were erased since; open a newer version", version=manifest.version)


def _absent(folder: Folder) -> Exception:
    if not folder.remote and not os.path.isdir(folder.base):
        parent, name = os.path.split(folder.base)
        near = did_you_mean(name, os.listdir(parent)) if os.path.isdir(parent) else ""
        return DatasetNotFoundError(f"no dataset at '{folder.base}'.{near}")
    if folder.exists("_work"):
        return DatasetNotFoundError(f"'{folder.base}' has no published version yet; run its pipeline (again) to finish one")
    if folder.remote and not folder.list(""):
        return DatasetNotFoundError(f"no dataset at '{folder.base}'")
    return NotADatasetError(f"'{folder.base}' is not a gristmill dataset: it has no manifests/")
