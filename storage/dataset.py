"""A dataset version, opened: what it holds, where, and whether it is whole."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from gristmill.errors import (
    CorruptDatasetError,
    DatasetNotFoundError,
    NotADatasetError,
    TaintedVersionError,
    UsageError,
    capped,
    did_you_mean,
    missing_column,
)
from gristmill.storage import interop, verify
from gristmill.storage.candidates import NAME_DIGITS, candidate_path, list_candidates, read_candidate
from gristmill.storage.diff import Difference, compare
from gristmill.storage.folder import Folder, open_folder
from gristmill.storage.manifest import FileEntry, FileList, Manifest
from gristmill.storage.parquet import open_parquet
from gristmill.storage.versions import newest_version, read_files, read_manifest, republish, version_numbers

_CANDIDATE = re.compile(rf"[0-9a-f]{{{NAME_DIGITS}}}")


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
        """The version's number, from 1; 0 for a candidate."""
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

    def is_erased(self) -> bool:
        """Whether rows of the version were erased since it was opened; of a candidate, whether it is gone and no version that opens."""
        if self.manifest.version:
            return self.folder.exists(tainted_path(self.manifest.version))
        if self.folder.exists(candidate_path(self.manifest)):
            return False
        later = (number for number in version_numbers(self.folder) if number > (self.manifest.parent or 0))
        return not any(
            read_manifest(self.folder, number).fingerprint == self.fingerprint
            and not self.folder.exists(tainted_path(number))
            for number in later
        )

    def open_file(self, entry: FileEntry, *, metadata: Any = None, checksums: bool = False) -> Any:
        """A file of this version as a pyarrow ParquetFile; the arguments are those of `open_parquet`.

        Raises:
            CorruptDatasetError: missing or not readable.
        """
        try:
            return open_parquet(self.folder, entry.path, metadata=metadata, checksums=checksums)
        except FileNotFoundError:
            text = f"'{self.folder.url(entry.path)}' is missing; `gristmill verify` lists all that is wrong with {self.name}"
            raise CorruptDatasetError(text, file=entry.path) from None

    def to_table(self, split: str | None = None, columns: list[str] | None = None) -> pa.Table:
        """The rows of a split, or of all, in order, as one Arrow table in memory.

        Raises:
            ColumnError: no such column.
            CorruptDatasetError: a file is missing or damaged.
            UsageError: no such split.
        """
        schema = self.schema if columns is None else pa.schema([self._field(name) for name in columns])
        tables = [schema.empty_table()]
        for entry in self.files(split):
            with self.open_file(entry, checksums=True) as file:
                try:
                    table = file.read(columns=schema.names)
                except (pa.ArrowException, OSError) as error:
                    text = (
                        f"'{self.folder.url(entry.path)}' is damaged ({str(error).splitlines()[0]}); "
                        f"`gristmill verify` lists all that is wrong with {self.name}"
                    )
                    raise CorruptDatasetError(text, file=entry.path) from error
            tables.append(table.select(schema.names).cast(schema))
        return pa.concat_tables(tables)

    def history(self) -> list[dict[str, Any]]:
        """Every version, newest first: version, created, rows, splits, fingerprint, parent, counts."""
        found = []
        for number in reversed(version_numbers(self.folder)):
            manifest = read_manifest(self.folder, number)
            names = (
                "version",
                "parent",
                "created",
                "num_rows",
                "splits",
                "fingerprint",
                "layout",
                "engine",
                "code_version",
                "counts",
            )
            found.append({name: getattr(manifest, name) for name in names})
        return found

    def verify(self, *, fast: bool = False) -> list[verify.Problem]:
        """Everything that doesn't match the manifest; empty if the version is whole. fast: sizes only, nothing is read."""
        return verify.verify_version(self.folder, self.manifest, fast=fast)

    def rollback(self, version: int) -> Dataset:
        """The newest version, made with the files of an older one; no new one is made if the newest has them already.

        Raises:
            DatasetNotFoundError: no such version.
            TaintedVersionError: rows of it were erased since.
            CommitConflictError: another run published meanwhile.
        """
        old = read_manifest(self.folder, version)
        check_untainted(self.folder, old)
        return Dataset(self.folder, republish(self.folder, old).manifest)

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

    def to_spark(self, session: Any, split: str | None = None, columns: list[str] | None = None) -> Any:
        """A lazy Spark DataFrame over the files; in no order, as always in Spark."""
        if columns is not None:
            for name in columns:
                self._field(name)
        return interop.to_spark(self, session, split, columns)

    def to_torch(self, split: str | None = None, columns: list[str] | None = None) -> dict[str, Any]:
        """The rows as {column: torch.Tensor, or a list for what has no tensor form}; for small data, `gristmill.stream` for large."""
        return interop.to_torch(self.to_table(split, columns))

    @property
    def name(self) -> str:
        """PATH@VERSION, as errors and commands have it."""
        return f"{self.path}@{self.version or self.fingerprint[:NAME_DIGITS]}"

    def _field(self, name: str) -> pa.Field:
        if name not in self.schema.names:
            raise missing_column(name, self.schema.names, self.name)
        return self.schema.field(name)

    def _check_split(self, split: str | None) -> None:
        if split is not None and split not in self.splits:
            hint = did_you_mean(split, self.splits) or " It has no splits: leave split out."
            raise UsageError(f"{self.name} has no split '{split}'.{hint}", split=split)

    def __repr__(self) -> str:
        splits = ", ".join(f"{name} {rows:,}" for name, rows in self.splits.items())
        return f"Dataset({self.path!r}, version={self.version}, rows={self.num_rows:,}{f', splits: {splits}' if splits else ''})"


def open_dataset(
    path: str | os.PathLike[str] | Folder, version: int | None = None, options: Mapping[str, Any] | None = None
) -> Dataset:
    """The newest published version of the dataset at a path or URL, or the one named by `version` or `PATH@VERSION`.

    `PATH@` with the 16 digits of a candidate opens that. options: as for `open_folder`.

    Raises:
        DatasetNotFoundError: no such folder, version or candidate.
        NotADatasetError: a folder that isn't gristmill's.
        TaintedVersionError: rows of the version were erased since.
        CorruptDatasetError, DatasetError: its manifest can't be read, or was written by a newer gristmill.
    """
    location, number = split_version(path, version)
    folder = open_folder(location, options)
    if isinstance(number, str):
        return Dataset(folder, read_candidate(folder, number))
    newest = newest_version(folder)
    if newest is None:
        raise _absent(folder)
    manifest = read_manifest(folder, newest if number is None else number)
    check_untainted(folder, manifest)
    return Dataset(folder, manifest)


def split_version(path: str | os.PathLike[str] | Folder, version: int | None) -> tuple[str | Folder, int | str | None]:
    """(path, version or name of a candidate) of `PATH@VERSION`."""
    if isinstance(path, Folder):
        return path, version
    text = os.fspath(path)
    base, at, name = text.rpartition("@")
    if not at or not (name.isdecimal() or _CANDIDATE.fullmatch(name)):
        return text, version
    if version is not None and str(version) != name:
        raise UsageError(f"'{text}' names version {name}, but version={version} was given too")
    return base, name if _CANDIDATE.fullmatch(name) else int(name)


def check_untainted(folder: Folder, manifest: Manifest) -> None:
    """Refuses a version that holds rows erased since."""
    if folder.exists(tainted_path(manifest.version)):
        text = f"'{folder.base}': version {manifest.version} holds rows that were erased since; open a newer version"
        raise TaintedVersionError(text, version=manifest.version)


def tainted_path(version: int) -> str:
    """The mark of a version whose rows were erased."""
    return f"erased/tainted/v{version:08d}"


def _absent(folder: Folder) -> Exception:
    waiting = [each.fingerprint[:NAME_DIGITS] for each in list_candidates(folder)]
    if waiting:
        return DatasetNotFoundError(
            f"'{folder.base}' has no published version yet, but {capped(waiting)} {'waits' if len(waiting) == 1 else 'wait'} as candidate: look "
            f"with `gristmill show {folder.base}@{waiting[-1]}`, settle with publish or reject"
        )
    if folder.exists("manifests") or folder.exists("_work"):
        return DatasetNotFoundError(
            f"'{folder.base}' has no published version yet; run its pipeline (again) to finish one"
        )
    if not folder.exists(""):
        return DatasetNotFoundError(
            f"no dataset at '{folder.base}'.{'' if folder.remote else _neighbours(folder.base)}"
        )
    return NotADatasetError(f"'{folder.base}' is not a gristmill dataset: it has no manifests/")


def _neighbours(path: str) -> str:
    parent, name = os.path.split(path)
    if not os.path.isdir(parent):
        return f" There is no folder '{parent}'."
    near = difflib.get_close_matches(name, os.listdir(parent), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
