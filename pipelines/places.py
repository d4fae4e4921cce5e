"""Records by the place that they were read from: a file and a line of it, as it is now, or a place as the ledger names it."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from gristmill.errors import UsageError, capped
from gristmill.pipelines.lookup import ledger_files, other_ledgers
from gristmill.pipelines.model import AnySource
from gristmill.pipelines.reread import Record, read_again
from gristmill.pipelines.sources.base import FrameSource, ParquetSource, Source
from gristmill.pipelines.sources.files import open_file
from gristmill.pipelines.sources.lines import Torn, stream_blocks
from gristmill.storage.dataset import Dataset
from gristmill.storage.parquet import open_parquet
from gristmill.storage.tombstones import ERASED, base_uids, read_tombstones
from gristmill.storage.versions import read_manifest, version_numbers

AT = r"(:(byte|row) \d+)?$"  # what a position has behind the name of its file
SHOWN = 5  # names in an error


@dataclass(frozen=True)
class FileRecords:
    """What ledgers say of one file's records. place: its name there; table: position, uid, source, step, action, rule, the last three null where it
    is said only that the record was read; what a later run says is before what earlier ones do. run: the ledger of a run that published nothing,
    where only that knows the file.
    """

    dataset: Dataset
    place: str
    table: pa.Table
    run: str | None = None

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
        """(uid, position) of the record of a line, from 1; of Parquet files and frames the row counts. The record is read again, to see that it is the
        one that was read. given: where the file may be too.

        Raises:
            UsageError: the file isn't there from here, has no such line or no record there, or holds another record there than the one that was read.
        """
        whole = self.record(self.place)
        if whole is not None:  # a text file
            return whole
        source, by_id = self._source()
        if isinstance(source, FrameSource):  # stored by its content
            found = self.record(f"{self.place}:row {line - 1}")
            if found is None:
                raise UsageError(f"'{self.place}' has no row {line}")
            return found
        where = next((path for path in (self.place, given) if "://" in path or os.path.exists(path)), None)
        if where is None:
            raise UsageError(
                f"'{self.place}' is read to count its lines, and is not there from here: run this in the folder that the run was started in, "
                f"or give the record's place: --file '{self.place}:byte N'"
            )
        rows = isinstance(source, ParquetSource)
        start, stop = (line - 1, line) if rows else _span(where, line)
        record = read_again(source, by_id, where, start, stop)
        if record is None:
            raise UsageError(f"line {line} of '{self.place}' is no record: it is blank, or there are fewer")
        found = self.record(f"{self.place}:{'row' if rows else 'byte'} {record.at}")
        if found is None or not self._same(found[0], record, by_id=by_id is not None):
            raise self._changed(line, record, found and found[0])
        return found

    def _source(self) -> tuple[Source, str | None]:
        """The source that read the file, and the column of ids, by the newest pipeline that has it."""
        name = self.table["source"][0].as_py()
        folder = self.dataset.folder
        newest_first = [self.dataset.manifest, *(read_manifest(folder, each) for each in version_numbers(folder)[::-1])]
        for manifest in newest_first:
            for source in (manifest.pipeline or {}).get("sources", []):
                if source["name"] == name:
                    return TypeAdapter[Source](AnySource).validate_python(source), (manifest.pipeline or {}).get("id")
        raise UsageError(
            f"no pipeline of {self.dataset.path} has the source '{name}' that read '{self.place}', so that its lines can't be read again: ask by uid"
        )

    def _same(self, uid: str, record: Record, *, by_id: bool) -> bool:
        """Whether the record is the one that a ledger names so."""
        uids = base_uids(pa.array(record.uids, pa.large_string()), by_id=by_id)
        if uid.startswith(ERASED):
            uids = read_tombstones(self.dataset.folder).find(uids)[1]
        (name,) = base_uids(pa.array([uid], pa.large_string()), by_id=by_id).to_pylist()
        return name in uids.to_pylist()

    def _changed(self, line: int, record: Record, uid: str | None) -> UsageError:
        read = f"'{uid}'" if uid else "no record"
        by = f"the run of {self.run}" if self.run else self.dataset.name
        return UsageError(
            f"'{self.place}' is not as {by} read it: line {line} is now the record '{record.uids[0]}', and at that place "
            f"{read} was read. Ask by uid: gristmill explain {self.dataset.path} {record.uids[0]}; "
            "or run the pipeline again, if the file was changed after its last run",
            line=line,
        )


def file_records(dataset: Dataset, file: str) -> FileRecords:
    """The records of a file, as the ledger names it or by the end of that from a `/` on; also of one record's place, such as a.jsonl:byte 1234.

    Raises:
        UsageError: nothing was read from such a file, or several have that name.
    """
    table, others = _told(dataset, dataset.manifest.ledgers[::-1], file)
    run = None
    if not table.num_rows:
        beside = other_ledgers(dataset)
        for run in (ledger for ledger, name in beside.items() if name is None):
            table, _ = _told(dataset, [run], file)
            if table.num_rows:
                break
        else:
            raise UsageError(
                f"{dataset.name} has read nothing from '{file}', but from {capped(sorted(others), SHOWN)}"
                f"{_elsewhere(dataset, beside, file)}"
            )
    places = _places(table["position"])
    if len(places) > 1:
        raise UsageError(f"'{file}' may be {capped(places, SHOWN)}; give more of the path")
    return FileRecords(dataset, places[0], table, run)


def _elsewhere(dataset: Dataset, beside: dict[str, str | None], file: str) -> str:
    """The versions and candidates that have read it, for an error."""
    names = {name for ledger, name in beside.items() if name and _told(dataset, [ledger], file)[0].num_rows}
    return f". {capped(sorted(names), SHOWN)} has" if names else ""


def _told(dataset: Dataset, ledgers: list[str], file: str) -> tuple[pa.Table, set[str]]:
    """(what the ledgers tell of the file's records, in their order; some other files that they name)."""
    columns = ["position", "uid", "source", "step", "action", "rule"]
    pattern = rf"(^|/){re.escape(file)}{AT}"
    found: list[pa.Table] = []
    others: set[str] = set()
    for ledger in ledgers:
        for kind in ("origin", "decisions"):  # what could not be read has no origin; what was made has only decisions
            for path in ledger_files(dataset.folder, [ledger], kind):
                with open_parquet(dataset.folder, path) as opened:
                    table = opened.read(columns=[name for name in columns if name in opened.schema_arrow.names])
                mine = pc.fill_null(pc.match_substring_regex(table["position"], pattern), False)
                found.append(table.filter(mine))
                if not found[-1].num_rows and len(others) < SHOWN:
                    others.update(_places(table["position"]))
    if not found:
        return pa.table({name: pa.array([], pa.string()) for name in columns}), others
    whole = pa.concat_tables(found, promote_options="permissive")
    missing = [name for name in columns if name not in whole.column_names]
    for name in missing:
        whole = whole.append_column(name, pa.nulls(whole.num_rows, pa.string()))
    return whole, others


def _places(positions: pa.ChunkedArray) -> list[str]:
    """The names of the files, sorted, each once."""
    names = pc.replace_substring_regex(positions.drop_null(), AT, "")
    found: list[str] = pc.unique(names).sort().to_pylist()
    return found


def _span(where: str, line: int) -> tuple[int, int]:
    """Where the line starts and where the next one does, in bytes of the file's (decompressed) content."""
    lines = offset = start = 0
    with open_file(where) as stream, contextlib.suppress(Torn):  # of a torn file what can be read is all that there is
        for block in stream_blocks(stream, 0, stream.seek(0, os.SEEK_END)):
            if lines + block.count(b"\n") < line - 1:
                lines += block.count(b"\n")
                start = offset + block.rfind(b"\n") + 1 if b"\n" in block else start
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
