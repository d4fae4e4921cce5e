"""What a version is: an immutable manifest, and the list of its files in content-named parts that versions share."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import CorruptDatasetError, DatasetError
from gristmill.kernels.buffers import numbers, text_array

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
        pa.field("side_cars", pa.list_(pa.string()), nullable=False),
    ]
)


@dataclass(frozen=True)
class FileEntry:
    """One shard. path: relative to the dataset. row_sum: the sum of its row digests mod 2^128, 32 hex digits.

    side_cars: row-aligned files that hold more columns of the same rows.
    """

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
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> FileEntry:
        """The inverse of `to_dict`."""
        listed = {name: tuple(values.get(name) or ()) for name in ("row_group_rows", "side_cars")}
        return FileEntry(**{**values, **listed})


class FileList:
    """The files of a version in their order, kept as an Arrow table: a million of them take some hundred MB, not a million objects."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @staticmethod
    def of(entries: Sequence[FileEntry]) -> FileList:
        """The list of some entries, in their order."""
        columns = {each.name: pa.array([getattr(entry, each.name) for entry in entries], each.type) for each in FILES}
        return FileList(pa.table(columns, schema=FILES))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[FileEntry]:
        for batch in self.table.to_batches(max_chunksize=1024):
            for row in batch.to_pylist():
                yield FileEntry.from_dict(row)

    def of_split(self, split: str | None) -> FileList:
        """The files of one split, in order; all for None."""
        if split is None:
            return self
        text = np.frombuffer(split.encode(), np.uint8)
        wanted = text_array(text, np.array([0, len(text)]), kind=pa.string())
        return FileList(self.table.filter(pc.is_in(self.table["split"], wanted)))

    @property
    def num_rows(self) -> int:
        """Rows in all files."""
        return int(pc.sum(self.table["rows"]).as_py() or 0)

    @property
    def num_bytes(self) -> int:
        """Bytes of all files, side-cars aside."""
        return int(pc.sum(self.table["bytes"]).as_py() or 0)

    @property
    def row_sum(self) -> int:
        """The sum of all row digests mod 2^128."""
        return sum(int(text, 16) for text in self.table["row_sum"].to_pylist()) % 2**128

    def splits(self) -> dict[str, int]:
        """Rows by split, in order of first appearance; empty where files have no split."""
        named = self.table.filter(pc.is_valid(self.table["split"]))
        found = named.group_by("split", use_threads=False).aggregate([("rows", "sum")])
        return dict(zip(found["split"].to_pylist(), found["rows_sum"].to_pylist(), strict=True))

    def paths(self) -> Iterator[str]:
        """Every file that the list needs: shards and their side-cars."""
        yield from self.table["path"].to_pylist()
        yield from pc.list_flatten(self.table["side_cars"]).to_pylist()

    @functools.cached_property
    def layout(self) -> str:
        """sha256 over the ordered (path, bytes, rows, row-group rows): what a loader's order depends on. 64 hex digits.

        Column by column: the number of files; for path its lengths, then its text; bytes; rows; for row-group rows their number by file, then
        all of them. Numbers are 64-bit little-endian.
        """
        paths, groups = self.table["path"], self.table["row_group_rows"]
        digest = hashlib.sha256(_numbers(len(self)))
        digest.update(_numbers(pc.binary_length(paths)))
        for chunk in paths.chunks:
            digest.update("".join(chunk.to_pylist()).encode())
        for column in (self.table["bytes"], self.table["rows"], pc.list_value_length(groups), pc.list_flatten(groups)):
            digest.update(_numbers(column))
        return digest.hexdigest()


def _numbers(values: Any) -> memoryview:
    plain = numbers(values) if isinstance(values, pa.Array | pa.ChunkedArray) else np.atleast_1d(values)
    return np.ascontiguousarray(plain, dtype="<i8").data.cast("B") if len(plain) else memoryview(b"")


@dataclass(frozen=True)
class Manifest:
    """A version: everything about it but the rows. Never changed once it is published.

    parts: the files that hold its file list (path, sha256, files). gate: suites that must pass. publisher: host, process and a random number,
    which no other manifest shares. version: from 1; 0 while it is a candidate. ledger: of the run that made it; earlier_ledgers: of the runs
    that the rows it was added to came from, oldest first.
    """

    version: int
    parent: int | None
    created: str
    schema: pa.Schema
    num_rows: int
    splits: Mapping[str, int]
    fingerprint: str
    layout: str
    parts: Sequence[Mapping[str, Any]]
    publisher: str
    gate: Sequence[str] = ()
    pipeline: Mapping[str, Any] | None = None
    engine: str | None = None
    code_version: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    ledger: str | None = None
    earlier_ledgers: Sequence[str] = ()
    format_version: int = FORMAT_VERSION

    @property
    def ledgers(self) -> list[str]:
        """The ledgers that tell of all rows of the version, oldest first."""
        return [*self.earlier_ledgers, *([self.ledger] if self.ledger else [])]

    def to_json(self) -> bytes:
        """Canonical JSON: equal manifests are equal bytes."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        arrow = base64.b64encode(self.schema.serialize().to_pybytes()).decode()
        values["schema"] = {"arrow": arrow, "columns": [[each.name, str(each.type)] for each in self.schema]}
        values["splits"] = list(self.splits.items())  # their order is the pipeline's
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
            if found > FORMAT_VERSION:
                text = f"'{where}' has format version {found}, this gristmill reads up to {FORMAT_VERSION}"
                raise DatasetError(f"{text}: install a newer gristmill", found=found)
            values["schema"] = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(values["schema"]["arrow"])))
            return Manifest(**{**values, "splits": dict(values["splits"])})
        except (ValueError, KeyError, TypeError, pa.ArrowInvalid, OSError) as error:
            raise CorruptDatasetError(f"'{where}' is not a readable manifest: {error}", file=where) from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return list(value)
    raise TypeError(f"{type(value).__name__} can't be part of a manifest")
