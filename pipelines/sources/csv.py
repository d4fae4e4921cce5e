"""CSV files as sources: records found by their quotes, parsed by Arrow; records that don't fit are quarantined with their place."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from gristmill.errors import InputError, RunError
from gristmill.kernels.csv import csv_records
from gristmill.pipelines.sources.base import RAW_BYTES, Chunk, CsvSource, Piece, WorkItem, bad_rows, positions
from gristmill.pipelines.sources.files import check_unchanged, open_file
from gristmill.pipelines.sources.lines import PREFIX, Torn, stream_blocks
from gristmill.pipelines.sources.schemas import declared_cast, holds

BOM = b"\xef\xbb\xbf"
I64 = npt.NDArray[np.int64]
Bad = tuple[str, str, str, bytes, int]


def read_csv(source: CsvSource, item: WorkItem, chunk_bytes: int) -> Iterator[Chunk]:
    """The item's records in order. Columns are text unless declared; an empty field is null, one that is quoted (`""`) is empty text.

    Quarantined: `wrong_columns` (more or fewer fields than columns), `open_quote` (costs its own line only), `bad_utf8`, `wrong_type`,
    `line_too_long`, and of a torn file its last record, `torn`. Blank lines are no records.

    Raises:
        InputError: a file that has changed since planning, or whose first line names two columns alike.
    """
    for piece in item.pieces:
        check_unchanged(item.path(piece), piece.version)
        reader = _Reader(source, piece)
        with open_file(item.path(piece)) as stream:
            yield from reader.chunks(stream_blocks(stream, piece.start, piece.stop), chunk_bytes)
        check_unchanged(item.path(piece), piece.version)


@dataclass
class _Reader:
    """Reads one file from its first byte to its last."""

    source: CsvSource
    piece: Piece
    names: list[str] | None = None
    bad: list[Bad] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = self.source.columns
        self.place = f"{self.piece.file}:byte"

    def chunks(self, blocks: Iterator[bytes], chunk_bytes: int) -> Iterator[Chunk]:
        """Chunks of about `chunk_bytes`. A record without an end waits for more, up to the limit of a record."""
        data, offset, ended = b"", 0, False
        torn: str | None = None
        wanted = chunk_bytes
        while not ended:
            parts, size = [data], len(data)
            while size < wanted and not ended:
                try:
                    block = next(blocks, b"")
                except Torn as event:
                    block, torn = b"", str(event)
                ended = not block
                parts.append(block)
                size += len(block)
            data = b"".join(parts)
            skip = len(BOM) if offset == 0 and data.startswith(BOM) else 0
            chunk, rest = self._chunk(data, skip, offset, ended=ended, torn=torn)
            if chunk is not None:
                yield chunk
            data, offset = data[rest:], offset + rest
            wanted = max(chunk_bytes, min(2 * len(data), self.source.max_record_bytes + chunk_bytes))

    def _chunk(
        self, data: bytes, first: int, offset: int, *, ended: bool, torn: str | None
    ) -> tuple[Chunk | None, int]:
        """(the records in the data, where the rest begins that waits for more)."""
        records, rest = self._records(data, first, offset, ended=ended and torn is None)
        if torn is not None:  # the lost record has no bytes where the tear lies at a line's end
            self._quarantine("torn", torn, data[rest:], offset + rest, cap=RAW_BYTES)
        if self.names is None and len(records):
            self.names = self._header(data, *records[0, :3].tolist())
            records = records[1:]
        records = self._that_fit(data, records, offset)
        if self.names is None and not self.bad:
            return None, rest
        table, keep = self._parsed(data, records, offset)
        bad, self.bad = bad_rows(sorted(self.bad, key=lambda entry: int(entry[0].rsplit(" ", 1)[1]))), []
        return Chunk(table, positions(self.place, records[keep, 0] + offset), bad), rest

    def _records(self, data: bytes, first: int, offset: int, *, ended: bool) -> tuple[I64, int]:
        """((records, 4): start, stop, fields, a number that goes on by 1 unless something was set aside; where the rest begins).

        Blank records are left out. An open quote costs its own line.
        """
        found: list[I64] = []
        number = 0
        while True:
            records = csv_records(data, first, delimiter=self.source.delimiter, quote=self.source.quote, last=ended)
            filled = records.stops > records.starts
            numbers = np.arange(number, number + np.count_nonzero(filled))
            number += len(numbers) + 1
            found.append(
                np.stack([records.starts[filled], records.stops[filled], records.fields[filled], numbers], axis=1)
            )
            waiting = len(data) - records.rest
            if not waiting or not (ended or waiting > self.source.max_record_bytes):
                return np.concatenate(found), records.rest
            line = data.find(b"\n", records.rest)
            stop = line if line >= 0 else len(data)
            if stop - records.rest > self.source.max_record_bytes:
                if line < 0 and not ended:
                    return np.concatenate(found), records.rest  # the end of the long line is not there yet
                self._too_long(data, records.rest, stop, offset)
            else:
                self._quarantine(
                    "open_quote", "a quote that is not closed", data[records.rest : stop], offset + records.rest
                )
            first = min(stop + 1, len(data))

    def _header(self, data: bytes, start: int, stop: int, fields: int) -> list[str]:
        try:
            data[start:stop].decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"'{self.piece.file}': the first line, which names the columns, is not UTF-8 text: byte 0x{data[start + error.start]:02x} "
                f"at {start + error.start}. Convert the file to UTF-8, or give `columns`",
                path=self.piece.file,
            ) from None
        table = self._arrow(data[start:stop], [f"{i}" for i in range(fields)])
        names = [str(column[0].as_py() or "") for column in table.columns]
        for i, name in enumerate(names):
            if not name:
                raise InputError(
                    f"'{self.piece.file}': column {i + 1} of the first line has no name; name it, or give `columns`",
                    path=self.piece.file,
                )
            if name in names[:i]:
                raise InputError(
                    f"'{self.piece.file}' has two columns named '{name}'; give names of their own with `columns`",
                    path=self.piece.file,
                )
        return names

    def _that_fit(self, data: bytes, records: I64, offset: int) -> I64:
        """The records of the right length and number of fields, in UTF-8; the others are quarantined."""
        starts, stops, fields, _ = records.T
        expected = len(self.names or ())
        long, wrong = stops - starts > self.source.max_record_bytes, fields != expected
        for start, stop in records[long, :2].tolist():
            self._too_long(data, start, stop, offset)
        for start, stop, count in records[wrong & ~long, :3].tolist():
            self._quarantine("wrong_columns", f"{count} fields, expected {expected}", data[start:stop], offset + start)
        records = records[~(long | wrong)]
        try:
            data.decode()
        except UnicodeDecodeError:
            valid = [self._is_utf8(data[start:stop], offset + start) for start, stop in records[:, :2].tolist()]
            records = records[np.array(valid, bool)]
        return records

    def _is_utf8(self, raw: bytes, at: int) -> bool:
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            self._quarantine("bad_utf8", f"byte 0x{raw[error.start]:02x} at {error.start}: {error.reason}", raw, at)
            return False
        return True

    def _parsed(self, data: bytes, records: I64, offset: int) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
        """(the rows, which of the records they are); values that don't fit their declared type are quarantined."""
        names = self.names or []
        table = (
            self._arrow(_joined(data, records), names)
            if len(records)
            else pa.schema([(name, pa.string()) for name in names]).empty_table()
        )
        if table.num_rows != len(records):
            raise RunError(
                f"'{self.piece.file}': {len(records)} records were found from byte {offset} on, but {table.num_rows} parsed"
            )
        keep = np.ones(len(records), bool)
        declared = [each for each in self.source.declared() or () if each.name in names]
        for each in declared:
            fits = holds(table[each.name], partial(declared_cast, kind=each.type))
            for row in np.flatnonzero(keep & ~fits).tolist():
                start, stop = records[row, :2].tolist()
                value = str(table[each.name][row].as_py())[:200]
                self._quarantine(
                    "wrong_type", f"column '{each.name}': {value!r} is no {each.type}", data[start:stop], offset + start
                )
            keep &= fits
        table = table if keep.all() else table.filter(pa.array(keep))
        for each in declared:
            column = declared_cast(table[each.name], each.type)
            table = table.set_column(names.index(each.name), pa.field(each.name, each.type), column)
        for each in self.source.declared() or ():
            if each.name not in names:  # as in JSONL: null where a file lacks it
                table = table.append_column(each, pa.nulls(table.num_rows, each.type))
        return table, keep

    def _arrow(self, content: bytes, names: list[str]) -> pa.Table:
        return csv.read_csv(
            pa.BufferReader(
                content + b"\n"
            ),  # without an end of the last line Arrow takes an empty last field for a quoted one
            read_options=csv.ReadOptions(column_names=names, block_size=len(content) + 3, use_threads=False),
            parse_options=csv.ParseOptions(
                delimiter=self.source.delimiter, quote_char=self.source.quote or False, newlines_in_values=True
            ),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )

    def _too_long(self, data: bytes, start: int, stop: int, offset: int) -> None:
        detail = f"{stop - start} bytes, more than max_record_bytes {self.source.max_record_bytes}"
        self._quarantine("line_too_long", detail, data[start:stop], offset + start, cap=PREFIX)

    def _quarantine(self, reason: str, detail: str, raw: bytes, at: int, cap: int | None = None) -> None:
        self.bad.append((f"{self.place} {at}", reason, detail, raw[:cap], len(raw)))


def _joined(data: bytes, records: I64) -> bytes:
    """The records' bytes with the blank lines between them, without what was set aside: where numbers are left out, records are cut apart."""
    cuts = np.flatnonzero(np.diff(records[:, 3]) != 1) + 1
    edges = [0, *cuts.tolist(), len(records)]
    return b"\n".join(data[records[low, 0] : records[high - 1, 1]] for low, high in itertools.pairwise(edges))
