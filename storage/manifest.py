"""What a version is: an immutable manifest, and the list of its files in content-named parts that versions share."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import CorruptDatasetError, DatasetError

FORMAT_VERSION = 1
PART_FILES = 20_000  # file entries in one part: an append shares all full parts with the version before

FILES = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("row_group_rows", pa.list_(pa.int32()), nullable=False),
        pa.field("row_sum", pa.string(), nullable=False),
        pa.field("side_cars", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class FileEntry:
    """One shard. path: relative to the dataset. row_sum: the sum of its row digests mod 2^128, 32 hex digits. side_cars: row-aligned files."""

    path: str
    split: str | None
    rows: int
    bytes: int
    sha256: str
    row_group_rows: tuple[int, ...]
    row_sum: str
    side_cars: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {name: list(value) if isinstance(value := getattr(self, name), tuple) else value for name in self.__dataclass_fields__}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> FileEntry:
        """The inverse of `to_dict`."""
        return FileEntry(**{**values, "row_group_rows": tuple(values["row_group_rows"]), "side_cars": tuple(values.get("side_cars") or ())})


class FileList:
    """The files of a version in their order, kept as an Arrow table: a million of them take some hundred MB, not a million objects."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @staticmethod
    def of(entries: Sequence[FileEntry]) -> FileList:
        """The list of some entries, in their order."""
        rows = [entry.to_dict() for entry in entries]
        return FileList(pa.Table.from_pylist(rows, schema=FILES) if rows else FILES.empty_table())

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[FileEntry]:
        for batch in self.table.to_batches(max_chunksize=1024):
            for row in batch.to_pylist():
                yield FileEntry.from_dict(row)

    def of_split(self, split: str | None) -> FileList:
        """The files of one split, in order; all for None."""
        return self if split is None else FileList(self.table.filter(pc.equal(self.table["split"], split)))

    @property
    def num_rows(self) -> int:
        """Rows in all files."""
        return int(pc.sum(self.table["rows"]).as_py() or 0)

    @property
    def row_sum(self) -> int:
        """The sum of all row digests mod 2^128."""
        return sum(int(text, 16) for text in self.table["row_sum"].to_pylist()) % 2**128

    def splits(self) -> dict[str, int]:
        """Rows by split, in order of first appearance; empty where files have no split."""
        named = self.table.filter(pc.is_valid(self.table["split"]))
        found = named.group_by("split", use_threads=False).aggregate([("rows", "sum")])
        return dict(zip(found["split"].to_pylist(), found["rows_sum"].to_pylist(), strict=True))

    @functools.cached_property
    def layout(self) -> str:
        """sha256 over the ordered (path, bytes, rows, row-group rows): what a loader's order depends on."""
        digest = hashlib.sha256()
        for batch in self.table.select(["path", "bytes", "rows", "row_group_rows"]).to_batches(max_chunksize=65536):
            paths = batch.column(0).cast(pa.large_string())
            groups = batch.column(3)
            for array in (paths.buffers()[1], paths.buffers()[2]):
                digest.update(_bytes(array))
            digest.update(np.ascontiguousarray(batch.column(1).to_numpy()).tobytes())
            digest.update(np.ascontiguousarray(batch.column(2).to_numpy()).tobytes())
            digest.update(np.ascontiguousarray(pc.list_value_length(groups).to_numpy()).tobytes())
            digest.update(np.ascontiguousarray(groups.flatten().to_numpy()).tobytes())
        return digest.hexdigest()


def _bytes(buffer: pa.Buffer | None) -> bytes:
    return b"" if buffer is None else buffer.to_pybytes()


@dataclass(frozen=True)
class Manifest:
    """A version: everything about it but the rows. `parts` name the files that hold its file list. `gate`: suites that must pass."""

    version: int
    parent: int | None
    created: str
    schema: pa.Schema
    num_rows: int
    splits: Mapping[str, int]
    fingerprint: str
    layout: str
    parts: Sequence[Mapping[str, Any]]
    gate: Sequence[str] = ()
    pipeline: Mapping[str, Any] | None = None
    engine: str | None = None
    code_version: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    ledger: str | None = None
    tainted: str | None = None
    format_version: int = FORMAT_VERSION

    def to_json(self) -> bytes:
        """Canonical JSON: equal manifests are equal bytes."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["schema"] = {"arrow": base64.b64encode(self.schema.serialize().to_pybytes()).decode(), "columns": _readable(self.schema)}
        return json.dumps(values, indent=1, sort_keys=True, default=_plain).encode() + b"\n"

    @staticmethod
    def from_json(content: bytes, where: str) -> Manifest:
        """The inverse of `to_json`.

        Raises:
            DatasetError: written by a newer gristmill.
            CorruptDatasetError: not a manifest.
        """
        try:
            values = json.loads(content)
            found = int(values["format_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptDatasetError(f"'{where}' is not a readable manifest: {error}", file=where) from error
        if found > FORMAT_VERSION:
            raise DatasetError(f"'{where}' has format version {found}, this gristmill reads up to {FORMAT_VERSION}: install a newer gristmill")
        values["schema"] = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(values["schema"]["arrow"])))
        return Manifest(**values)


def _readable(schema: pa.Schema) -> dict[str, str]:
    return {schema_field.name: str(schema_field.type) for schema_field in schema}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return list(value)
    raise TypeError(f"{type(value).__name__} can't be part of a manifest")
