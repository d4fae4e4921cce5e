"""Sources as a pipeline file names them, the work items that they are cut into, and the chunks that reading one yields."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from gristmill.pipelines.arrow_types import parse_type
from gristmill.pipelines.sources.json_kinds import parsed_type

POSITION = pa.struct([("place", pa.string()), ("at", pa.int64())])
"""Where a record is: a file with the unit of `at` ("raw/a.jsonl.gz:byte"), and the number; null for a whole file."""

BAD = pa.schema(
    [
        ("position", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("raw", pa.large_binary()),
        ("raw_bytes", pa.int64()),
    ]
)
"""Records that could not be read: raw holds at most RAW_BYTES of them, raw_bytes their true size."""

RAW_BYTES = 1 << 20
RESERVED = ("_uid", "_source", "_parent_uid")  # columns that gristmill writes itself


class Source(BaseModel):
    """The root of the sources. `name` is what `_source` says; `schema` declares types, and values that don't fit them are quarantined."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    path_columns: ClassVar[
        tuple[str, ...]
    ] = ()  # columns that say where a row lies, not what it is: no part of its identity

    kind: str
    name: str = ""
    path: str | list[str] = ""
    schema_: dict[str, str] | None = Field(default=None, alias="schema")

    @field_validator("schema_")
    @classmethod
    def _known_types(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        for kind in (value or {}).values():
            parse_type(kind)
        return value

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("name"):
            return value
        first = value.get("path") or ""
        stem = Path(first[0] if isinstance(first, list) and first else str(first)).name.split(".")[0].strip("*?[]")
        return {**value, "name": stem or Path(str(first)).parent.name.strip("*?[]") or str(value.get("kind", ""))}

    @property
    def paths(self) -> list[str]:
        """The paths as a list."""
        return [self.path] if isinstance(self.path, str) else list(self.path)

    def declared(self) -> pa.Schema | None:
        """The declared schema."""
        return (
            None
            if self.schema_ is None
            else pa.schema([(name, parse_type(kind)) for name, kind in self.schema_.items()])
        )

    def read_identity(self) -> list[Any]:
        """The options that reading depends on: part of the name of finished work."""
        return [self.kind, self.schema_]


class _FileSource(Source):
    path: str | list[str]

    @field_validator("path")
    @classmethod
    def _not_empty(cls, value: str | list[str]) -> str | list[str]:
        if not value or (isinstance(value, list) and not all(value)):
            raise ValueError("a file, folder, glob or URL, or a list of them")
        return value


class JsonlSource(_FileSource):
    """JSON objects, one a line; plain, .gz or .zst (by their first bytes). Blank lines count as nothing."""

    kind: Literal["jsonl"] = "jsonl"
    max_record_bytes: int = Field(default=64 << 20, gt=0, le=1 << 30)

    @field_validator("schema_")
    @classmethod
    def _types_of_json(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        for kind in (value or {}).values():
            parsed_type(parse_type(kind))
        return value

    def read_identity(self) -> list[Any]:
        return [*super().read_identity(), self.max_record_bytes]


class ParquetSource(_FileSource):
    """Parquet files."""

    kind: Literal["parquet"] = "parquet"


class CsvSource(_FileSource):
    """CSV files: records of fields; quotes may hold delimiters and line ends. The first line names the columns, unless `columns` does."""

    kind: Literal["csv"] = "csv"
    delimiter: str = Field(default=",", pattern='^[^\r\n"\x80-\U0010ffff]$')
    quote: str = Field(default='"', pattern="^[^\r\n\x80-\U0010ffff]?$")
    columns: list[str] | None = Field(default=None, min_length=1)
    max_record_bytes: int = Field(default=64 << 20, gt=0, le=1 << 30)

    @field_validator("delimiter", "quote", mode="before")
    @classmethod
    def _one_character(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and not (len(value) == 1 or (info.field_name == "quote" and not value)):
            raise ValueError(f'expected one character, got {value!r}; write a tab as "\\t"')
        return value

    def read_identity(self) -> list[Any]:
        return [*super().read_identity(), self.delimiter, self.quote, self.columns, self.max_record_bytes]


class TextSource(_FileSource):
    """Text files, each one document: columns `text` and `file` (its path), the latter no part of the row's identity."""

    kind: Literal["text"] = "text"
    path_columns: ClassVar[tuple[str, ...]] = ("file",)
    max_record_bytes: int = Field(default=64 << 20, gt=0)

    def read_identity(self) -> list[Any]:
        return [*super().read_identity(), self.max_record_bytes]


class FrameSource(Source):
    """A table given from Python: `run(..., inputs={name: table})` with a pandas or Polars frame or an Arrow table."""

    kind: Literal["frame"] = "frame"
    name: str = Field(min_length=1)
    _file: str = PrivateAttr(default="")

    @property
    def file(self) -> str:
        """The file that the table was written to; empty before that."""
        return self._file

    def at(self, file: str) -> Self:
        """The source with the file that its table was written to."""
        copy = self.model_copy()
        copy._file = file  # noqa: SLF001  a copy of its own
        return copy


class Piece(NamedTuple):
    """A part of a file: bytes, row groups or rows from start to stop. version: size and time of change, or a remote version, at planning."""

    file: str
    start: int
    stop: int
    version: str


@dataclass(frozen=True)
class WorkItem:
    """Some pieces that are read together. content: hash of exactly their input; bytes: its size.

    home: the folder that relative names of files start from. Workers may run in another; the names stay, for ledgers and keys hold them.
    """

    source: str
    pieces: tuple[Piece, ...]
    content: str
    bytes: int
    home: str = field(default_factory=lambda: sys.intern(os.getcwd()), compare=False)

    @property
    def files(self) -> list[str]:
        """The files, in order."""
        return list(dict.fromkeys(piece.file for piece in self.pieces))

    def path(self, piece: Piece) -> str:
        """Where the piece's file is, for any process."""
        return piece.file if "://" in piece.file else os.path.join(self.home, piece.file)

    def __str__(self) -> str:
        first = self.pieces[0]
        if len(self.pieces) > 1:
            return f"{first.file} and {len(self.pieces) - 1} more"
        return first.file if first.start == 0 else f"{first.file} from {first.start}"


class Chunk(NamedTuple):
    """Some records: every record of the input is in exactly one row of `table` or of `bad`. positions (rows of table,): POSITION."""

    table: pa.Table
    positions: pa.Array
    bad: pa.Table


def positions(place: str, at: Any) -> pa.Array:
    """POSITION values in one file; `at` is an int64 array."""
    numbers = pa.array(at, pa.int64())
    return pa.StructArray.from_arrays([pa.repeat(pa.scalar(place), len(numbers)), numbers], fields=list(POSITION))


def format_positions(found: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The positions as text: "raw/a.jsonl:byte 1234", "x.parquet:row 17", "docs/a.txt"."""
    if isinstance(found, pa.ChunkedArray):
        parts = [format_positions(chunk) for chunk in found.chunks]
        return pa.concat_arrays(parts) if parts else pa.array([], pa.string())
    place = found.field("place")
    numbered = pc.binary_join_element_wise(place, pc.cast(found.field("at"), pa.string()), " ")
    return pc.coalesce(numbered, place)


def bad_rows(rows: Sequence[tuple[str, str, str, bytes, int]]) -> pa.Table:
    """BAD rows of (position, reason, detail, raw, raw bytes)."""
    if not rows:
        return BAD.empty_table()
    columns = list(zip(*rows, strict=True))
    capped = [raw[:RAW_BYTES] for raw in columns[3]]
    return pa.table([columns[0], columns[1], columns[2], pa.array(capped, pa.large_binary()), columns[4]], schema=BAD)
