"""Erasing rows: a new version without them, the versions and ledgers that hold them marked, and a receipt."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import CommitConflictError, DatasetError
from gristmill.storage.candidates import candidate_path, list_candidates
from gristmill.storage.dataset import Dataset, tainted_path
from gristmill.storage.folder import Folder
from gristmill.storage.manifest import FileEntry, FileList, Manifest
from gristmill.storage.parquet import ParquetSettings, ShardWriter, open_parquet, read_table, write_table
from gristmill.storage.tombstones import ERASED, Tombstones, base_uids, write_tombstones
from gristmill.storage.versions import (
    Published,
    describe,
    now,
    publish_manifest,
    read_files,
    read_manifest,
    version_numbers,
)

RECEIPTS = "erased/receipts"
DUPLICATES = ("exact_duplicate", "near_duplicate", "duplicate_id")


class Erasure:
    """Some uids of a dataset on their way out. by_id: uids are the user's; else hashes of content, and copies go together."""

    def __init__(self, dataset: Dataset, uids: Sequence[str]) -> None:
        self.dataset = dataset
        self.folder: Folder = dataset.folder
        self.by_id = bool((dataset.manifest.pipeline or {}).get("id"))
        self.asked = pc.unique(self._base(pa.array(sorted(set(uids)), pa.large_string())))
        self.uids = self.asked

    def run(self) -> dict[str, Any]:
        """The receipt. The tombstones are written first: whatever happens afterwards, no later run brings the rows back."""
        manifest = self.dataset.manifest
        self._follow(manifest.ledgers)
        marks = write_tombstones(self.folder, self.uids.to_pylist())
        files, changed = self._rewritten(self.dataset.file_list, manifest)
        erased = manifest.num_rows - files.num_rows
        receipt: dict[str, Any] = {
            "at": now(),
            "dataset": self.folder.base,
            "asked": len(self.asked),
            "marked": len(self.uids),
            "followed": len(self.uids)
            - len(self.asked),  # duplicates of the rows asked for, and what was made from them
            "unseen": self._unseen(marks),
            "rows": erased,
            "version_before": manifest.version,
            "version": manifest.version,
            "fingerprint_before": manifest.fingerprint,
            "fingerprint": manifest.fingerprint,
            "shards": changed,
        }
        ledgers = self._new_ledgers(manifest, marks)
        if erased or ledgers != manifest.ledgers:
            counts = {**manifest.counts}
            if counts:
                counts.update(kept=counts["kept"] - erased, dropped=counts["dropped"] + erased)
            new = describe(
                files, manifest.schema, splits=manifest.splits, parent=manifest.version, counts=counts,
                ledger=ledgers[-1] if ledgers else None, earlier_ledgers=ledgers[:-1],
                **{name: getattr(manifest, name) for name in ("pipeline", "engine", "gate")},
            )  # fmt: skip
            published = self._publish(new, files)
            receipt.update(version=published.manifest.version, fingerprint=published.manifest.fingerprint)
        receipt["tainted"] = self._taint(receipt["version"])
        name = hashlib.sha256(json.dumps(receipt, sort_keys=True).encode()).hexdigest()[:16]
        self.folder.create(f"{RECEIPTS}/{name}.json", json.dumps(receipt, indent=1).encode())
        return {**receipt, "receipt": f"{RECEIPTS}/{name}.json"}

    def _publish(self, new: Manifest, files: FileList) -> Published:
        try:
            return publish_manifest(self.folder, new, files)
        except CommitConflictError as error:
            newest = version_numbers(self.folder)[-1]
            holds = "still holds" if self._holds(read_manifest(self.folder, newest), {}) else "does not hold"
            raise CommitConflictError(
                f"'{self.folder.base}': the rows are marked, so that no run from now on keeps them, but a run published version {newest} meanwhile, "
                f"which {holds} them, and older versions are not refused yet. Run the same erase again when no run is at work.",
                version=newest,
            ) from error

    def _unseen(self, marks: Tombstones) -> int:
        """How many of the uids asked for are in no ledger and no shard of any version."""
        _, names = marks.find(self.asked)
        left = set(zip(self.asked.to_pylist(), names.to_pylist(), strict=True))
        ledgers = [path for path in _ledger_files(self.folder, ["ledger"]) if "/quarantine-" not in path]
        shards = (
            entry.path
            for number in reversed(version_numbers(self.folder))
            for entry in read_files(self.folder, read_manifest(self.folder, number))
        )
        for path in dict.fromkeys(itertools.chain(ledgers, shards)):
            if not left:
                break
            column = "uid" if path.startswith("ledger/") else "_uid"
            found = self._base(read_table(self.folder, path, [column])[column].cast(pa.large_string()))
            wanted = pa.array([name for pair in left for name in pair], pa.large_string())
            here = set(found.filter(pc.is_in(found, value_set=wanted)).to_pylist())
            left = {pair for pair in left if here.isdisjoint(pair)}
        return len(left)

    def hits(self, uids: pa.Array | pa.ChunkedArray) -> Any:
        """Which of the uids go."""
        return pc.fill_null(pc.is_in(self._base(uids.cast(pa.large_string())), value_set=self.uids), False)

    def _base(self, uids: Any) -> Any:
        return base_uids(uids, by_id=self.by_id)

    def _follow(self, ledgers: Sequence[str]) -> None:
        """Adds the rows that were dropped as duplicates of those that go, and those made from them, until there are no more.

        Without the row that was kept, the next run would keep its duplicate.
        """
        known = -1
        while len(self.uids) > known:
            known = len(self.uids)
            found = [self._made(entry) for entry in self.dataset.files()]
            for path in _ledger_files(self.folder, ledgers, "decisions-"):
                table = read_table(self.folder, path, ["uid", "action", "rule", "other_uid"])
                tied = pc.or_(
                    pc.is_in(table["rule"], value_set=pa.array(DUPLICATES)), pc.equal(table["action"], "create")
                )
                found.append(
                    table.filter(pc.and_(tied, self.hits(table["other_uid"])))["uid"]
                    .cast(pa.large_string())
                    .combine_chunks()
                )
            arrays = [self.uids, *[self._base(each) for each in found]]
            self.uids = pc.unique(pa.chunked_array([_flat(each) for each in arrays], pa.large_string()))

    def _made(self, entry: FileEntry) -> pa.Array:
        if "_parent_uid" not in self.dataset.schema.names:
            return pa.array([], pa.large_string())
        table = read_table(self.folder, entry.path, ["_uid", "_parent_uid"])
        return _flat(table.filter(self.hits(table["_parent_uid"]))["_uid"].cast(pa.large_string()))

    def _rewritten(self, files: FileList, manifest: Manifest) -> tuple[FileList, list[dict[str, Any]]]:
        """(the version's files, those that hold rows to erase written anew; what changed, for the receipt)."""
        output: Mapping[str, Any] = (manifest.pipeline or {}).get("output", {})
        settings = ParquetSettings(
            **{name: output[name] for name in ("row_group_bytes", "row_group_rows") if name in output}
        )
        entries: list[FileEntry] = []
        changed = []
        for entry in files:
            with self.dataset.open_file(entry) as file:
                going = self.hits(file.read(columns=["_uid"])["_uid"])
            count = pc.sum(going).as_py() or 0
            if not count:
                entries.append(entry)
                continue
            if entry.side_cars:
                raise DatasetError(
                    f"'{entry.path}' has side-car files, which can't be rewritten: erase before they are added, or remove them"
                )
            with (
                ShardWriter(self.folder, settings, manifest.schema, split=entry.split) as writer,
                self.dataset.open_file(entry) as file,
            ):
                start = 0
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group).select(manifest.schema.names).cast(manifest.schema)
                    writer.write(table.filter(pc.invert(going.slice(start, table.num_rows))))
                    start += table.num_rows
            entries += writer.files
            changed.append({"rows": count, "before": entry.sha256, "after": [each.sha256 for each in writer.files]})
        return FileList.of(entries), changed

    def _new_ledgers(self, manifest: Manifest, marks: Tombstones) -> list[str]:
        """The ledgers with marks in the place of the uids that go, and a decision of the step `erase` for each row that was kept."""
        kept = self._kept_uids()
        return [self._new_ledger(old, marks, kept) for old in manifest.ledgers]

    def _new_ledger(self, old: str, marks: Tombstones, kept: pa.Array) -> str:
        paths = _ledger_files(self.folder, [old])
        if not any(self._mentions(path) for path in paths):
            return old
        new = f"ledger/{hashlib.sha256(f'{old} {marks.digest}'.encode()).hexdigest()[:20]}"
        for path in paths:
            name = path.rpartition("/")[2]
            table = read_table(self.folder, path)
            erased = pc.is_in(table["uid"].cast(pa.large_string()), value_set=kept)
            for column in ("uid", "other_uid"):
                if column in table.column_names:
                    table = _marked(table, column, self.hits(table[column]), marks, self._base)
            write_table(self.folder, f"{new}/{name}", _blanked(table))
            if name.startswith("origin-") and pc.any(erased).as_py():
                write_table(
                    self.folder,
                    f"{new}/{name.replace('origin-', 'decisions-erased-')}",
                    _erase_decisions(table.filter(erased)),
                )
        return new

    def _mentions(self, path: str) -> bool:
        file = open_parquet(self.folder, path)
        names = [name for name in ("uid", "other_uid") if name in file.schema_arrow.names]
        table = file.read(columns=names)
        return any(pc.any(self.hits(table[name])).as_py() for name in names)

    def _kept_uids(self) -> pa.Array:
        found: list[pa.Array] = []
        for entry in self.dataset.files():
            with self.dataset.open_file(entry) as file:
                column = file.read(columns=["_uid"])["_uid"]
                found += column.filter(self.hits(column)).cast(pa.large_string()).chunks
        return _flat(pa.chunked_array(found, pa.large_string()))

    def _taint(self, newest: int) -> list[int]:
        """The older versions that hold the rows in their shards or ledgers, now refused; candidates that do are forgotten."""
        seen: dict[str, bool] = {}
        tainted = []
        for number in version_numbers(self.folder):
            manifest = read_manifest(self.folder, number)
            if number != newest and self._holds(manifest, seen):
                self.folder.write_atomic(tainted_path(number), b"")
                tainted.append(number)
        for candidate in list_candidates(self.folder):
            if self._holds(candidate, seen):
                self.folder.delete(candidate_path(candidate))
        return tainted

    def _holds(self, manifest: Manifest, seen: dict[str, bool]) -> bool:
        for entry in read_files(self.folder, manifest):
            if entry.path not in seen:
                column = read_table(self.folder, entry.path, ["_uid"])["_uid"]
                seen[entry.path] = bool(pc.any(self.hits(column)).as_py())
            if seen[entry.path]:
                return True
        for path in _ledger_files(self.folder, manifest.ledgers):
            if path not in seen:
                seen[path] = self._mentions(path)
            if seen[path]:
                return True
        return False


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return column


def _ledger_files(folder: Folder, bases: Sequence[str], prefix: str = "") -> list[str]:
    return [
        path
        for base in bases
        for path, *_ in folder.list(base)
        if path.endswith(".parquet") and path.rpartition("/")[2].startswith(prefix)
    ]


def _marked(table: pa.Table, name: str, hit: Any, marks: Tombstones, base: Any) -> pa.Table:
    if not pc.any(hit).as_py():
        return table
    column = table[name].cast(pa.large_string())
    _, names = marks.find(base(column.filter(hit)))
    replaced = pc.replace_with_mask(_flat(column), _flat(hit), names)
    return table.set_column(
        table.schema.get_field_index(name), table.schema.field(name), replaced.cast(table.schema.field(name).type)
    )


def _blanked(table: pa.Table) -> pa.Table:
    """Quarantined records without the bytes of those that go; other tables as they are."""
    erased = pc.starts_with(table["uid"], ERASED)
    for name in ("raw", "detail"):
        if name in table.column_names:
            field = table.schema.field(name)
            column = pc.if_else(erased, pa.scalar(None, field.type), table[name])
            table = table.set_column(table.schema.get_field_index(name), field, column)
    return table


def _erase_decisions(origins: pa.Table) -> pa.Table:
    n = origins.num_rows
    nulls = {
        "value": pa.float64(),
        "threshold": pa.float64(),
        "other_uid": pa.large_string(),
        "similarity": pa.float64(),
    }
    said = {"step": "erase", "action": "drop", "rule": "erased"}
    return pa.table(
        {
            **{name: origins[name] for name in ("uid", "source", "position")},
            **{name: pa.repeat(pa.scalar(value), n) for name, value in said.items()},
            **{name: pa.nulls(n, kind) for name, kind in nulls.items()},
        }
    )
