"""Rows of the ledgers: by uid, and by the place that they were read from."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.errors import UsageError, capped
from gristmill.pipelines.sources.files import open_file
from gristmill.pipelines.sources.lines import Torn, stream_blocks
from gristmill.storage.dataset import Dataset
from gristmill.storage.folder import Folder
from gristmill.storage.parquet import open_parquet

AT = r"(:(byte|row) \d+)?$"  # what a position has behind the name of its file
SHOWN = 5  # names in an error


def ledger_rows(
    folder: Folder, ledgers: Sequence[str], kind: str, uids: Sequence[str], column: str = "uid"
) -> list[dict[str, Any]]:
    """The lines of the ledgers' origin, decisions or quarantine files whose column is one of the uids; the same line of several runs once."""
    found: list[dict[str, Any]] = []
    for path in ledger_files(folder, ledgers, kind):
        for table in matching_rows(folder, path, column, uids):
            found += [row for row in table.to_pylist() if row not in found]
    return found


def ledger_files(folder: Folder, ledgers: Sequence[str], kind: str) -> Iterator[str]:
    """The files of that kind, in order."""
    for base in ledgers:
        for path, *_ in folder.list(base):
            if path.rpartition("/")[2].startswith(f"{kind}-"):
                yield path


def matching_rows(folder: Folder, path: str, column: str, uids: Sequence[str]) -> list[pa.Table]:
    """The rows of a file whose column is one of the uids; whole rows are read only from row groups that hold one."""
    found = []
    with open_parquet(folder, path) as file:
        leaf = _leaf(file, column)
        for group in range(file.num_row_groups):
            statistics = file.metadata.row_group(group).column(leaf).statistics
            if statistics is not None and statistics.has_min_max:
                low, high = statistics.min, statistics.max
                if not any(low <= uid <= high for uid in uids):
                    continue
            names = file.read_row_group(group, columns=[column])[column]
            mask = pc.is_in(names, value_set=pa.array(uids, names.type))
            if pc.any(mask).as_py():
                found.append(file.read_row_group(group).filter(mask))
    return found


def _leaf(file: pq.ParquetFile, column: str) -> int:
    """The Parquet column of a flat Arrow field: nested fields before it have several."""
    return [file.schema.column(i).path for i in range(len(file.schema))].index(column)


@dataclass(frozen=True)
class FileRecords:
    """What the ledgers of a version say of one file's records. place: its name there; table: position, uid, source, step, action, rule, the last
    three null where it is said only that the record was read.
    """

    place: str
    table: pa.Table
    kinds: Mapping[str, str]  # of the sources, by name

    def quarantined(self) -> list[dict[str, Any]]:
        """position, uid, step, rule: of the records that were put aside, in the order of the ledger."""
        found = self.table.filter(pc.equal(self.table["action"], "quarantine"))
        rows: list[dict[str, Any]] = found.select(["position", "uid", "step", "rule"]).to_pylist()
        return rows

    def record(self, position: str) -> tuple[str, str] | None:
        """(uid, position) of the record at exactly this place, if there is one."""
        found = self.table.filter(pc.equal(self.table["position"], position))
        return (found["uid"][0].as_py(), position) if found.num_rows else None

    def record_of_line(self, line: int, given: str) -> tuple[str, str]:
        """(uid, position) of the record of a line, from 1; of Parquet files and frames the row counts. Ledgers count bytes: the file is read up to the line.

        given: where the file may be too.

        Raises:
            UsageError: the file isn't there from here, has no such line, or no record there.
        """
        whole = self.record(self.place)
        if whole is not None:  # a text file
            return whole
        numbers = pc.cast(
            pc.replace_substring_regex(self.table["position"], r"^.*:(byte|row) ", ""), pa.int64()
        ).to_numpy()
        if self.table["position"][0].as_py().startswith(f"{self.place}:row "):
            start, stop = line - 1, line
        else:
            start, stop = _span(self.place, given, line)
        before = np.flatnonzero(numbers < stop)
        if len(before):
            nearest = int(before[np.argmax(numbers[before])])
            row = self.table.slice(nearest, 1).to_pylist()[0]
            if (
                numbers[nearest] >= start or self.kinds.get(row["source"]) == "csv"
            ):  # whose records may have several lines
                return row["uid"], row["position"]
        raise UsageError(f"line {line} of '{self.place}' is no record: it is blank, or there are fewer")


def file_records(dataset: Dataset, file: str) -> FileRecords:
    """The records of a file, as the ledger names it or by the end of that from a `/` on; also of one record's place, such as a.jsonl:byte 1234.

    Raises:
        UsageError: nothing was read from such a file, or several have that name.
    """
    columns = ["position", "uid", "source", "step", "action", "rule"]
    pattern = rf"(^|/){re.escape(file)}{AT}"
    found: list[pa.Table] = []
    others: set[str] = set()
    for kind in ("decisions", "origin"):  # what could not be read has no origin
        for path in ledger_files(dataset.folder, dataset.manifest.ledgers, kind):
            with open_parquet(dataset.folder, path) as opened:
                table = opened.read(columns=[name for name in columns if name in opened.schema_arrow.names])
            mine = pc.fill_null(pc.match_substring_regex(table["position"], pattern), False)
            found.append(table.filter(mine))
            if not found[-1].num_rows and len(others) < SHOWN:
                others.update(_places(table["position"]))
    whole = (
        pa.concat_tables(found, promote_options="permissive")
        if found
        else pa.table({"position": pa.array([], pa.string())})
    )
    places = _places(whole["position"])
    if not places:
        raise UsageError(f"{dataset.name} has read nothing from '{file}', but from {capped(sorted(others), SHOWN)}")
    if len(places) > 1:
        raise UsageError(f"'{file}' may be {capped(places, SHOWN)}; give more of the path")
    kinds = {source["name"]: source["kind"] for source in (dataset.manifest.pipeline or {}).get("sources", [])}
    return FileRecords(places[0], whole, kinds)


def _places(positions: pa.ChunkedArray) -> list[str]:
    """The names of the files, sorted, each once."""
    names = pc.replace_substring_regex(positions.drop_null(), AT, "")
    found: list[str] = pc.unique(names).sort().to_pylist()
    return found


def _span(place: str, given: str, line: int) -> tuple[int, int]:
    """Where the line starts and where the next one does, in bytes of the file's (decompressed) content."""
    where = next((path for path in (place, given) if "://" in path or os.path.exists(path)), None)
    if where is None:
        raise UsageError(
            f"'{place}' is read to count its lines, and is not there from here: run this in the folder that the run was started in, "
            f"or give the record's place: --file '{place}:byte N'"
        )
    lines = offset = start = 0
    with open_file(where) as stream, contextlib.suppress(Torn):  # of a torn file what can be read is all that there is
        for block in stream_blocks(stream, 0, stream.seek(0, os.SEEK_END)):
            if lines + block.count(b"\n") < line - 1:
                lines += block.count(b"\n")
            else:
                for end in re.finditer(b"\n", block):
                    lines += 1
                    if lines == line:
                        return start, offset + end.end()
                    start = offset + end.end()
            offset += len(block)
    if lines == line - 1 and start < offset:
        return start, offset + 1  # the last one has no end; what is torn off begins where it stops
    raise UsageError(f"'{where}' has {lines + (start < offset)} lines, not {line}")
