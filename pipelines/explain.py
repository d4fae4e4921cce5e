"""One row's whole story, from the ledger of a version and the version itself."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import DatasetNotFoundError, UsageError
from gristmill.storage.dataset import Dataset, open_dataset
from gristmill.storage.parquet import open_parquet

SHOWN = 300  # characters of a row's text that are shown
_TIES = {"create": "made from", "bridges_splits": "linked to", "already_published": "as"}


def explain_row(dataset: str | Dataset, uid: str) -> dict[str, Any]:
    """uid, fate (kept, dropped, quarantined), origins, decisions in order (each as in the ledger), split, file and the row itself if kept.

    For a duplicate, `kept_rows` tell where the kept row came from. One pass over the ledgers of the version (of each run that added to it,
    oldest first), reading only the row groups that may hold the uid.

    Raises:
        UsageError: no such row in the version's ledgers.
    """
    opened = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    if not opened.manifest.ledgers:
        raise DatasetNotFoundError(f"version {opened.version} of {opened.path} has no ledger")
    origins = _rows(opened, "origin", uid)
    decided = _rows(opened, "decisions", uid)
    if not origins and not decided:
        raise UsageError(
            f"version {opened.version} of {opened.path} never saw a row '{uid}'; uids are in column _uid and in the ledger",
            uid=uid,
        )
    row = _kept_row(opened, uid)
    if not origins:  # what could not be read has no row, but a place and raw bytes
        origins = [{name: entry[name] for name in ("uid", "source", "position")} for entry in decided[:1]]
    quarantined = any(entry["action"] == "quarantine" for entry in decided)
    found: dict[str, Any] = {
        "uid": uid,
        "dataset": opened.path,
        "version": opened.version,
        "fate": "kept" if row else ("quarantined" if quarantined else "dropped"),
        "origins": origins,
        "decisions": decided,
        "unreadable": [
            {
                "reason": row["reason"],
                "detail": row["detail"],
                "raw": row["raw"][:SHOWN].decode(errors="backslashreplace"),
            }
            for row in _rows(opened, "quarantine", uid)
        ],
        **(row or {}),
    }
    others = sorted(
        {entry["other_uid"] for entry in decided if entry["action"] == "drop" and entry["other_uid"]} - {uid}
    )
    found["kept_rows"] = [{"uid": other, "origins": _rows(opened, "origin", other)} for other in others[:5]]
    return found


def story(found: dict[str, Any]) -> str:
    """The explanation as lines of text."""
    lines = [f"{found['uid']} in {found['dataset']}@{found['version']}: {found['fate']}"]
    lines += [f"  read from {origin['position']} (source {origin['source']})" for origin in found["origins"]]
    for entry in found["decisions"]:
        text = f"  {entry['step']}: {entry['action']} by rule {entry['rule']}"
        if entry["value"] is not None:
            text += f", value {entry['value']:.6g}"
        if entry["threshold"] is not None:
            text += f", threshold {entry['threshold']:.6g}"
        if entry["other_uid"]:
            text += f", {_TIES.get(entry['rule'] if entry['action'] == 'drop' else entry['action'], 'duplicate of')} {entry['other_uid']}"
        if entry["similarity"] is not None:
            text += f" (similarity {entry['similarity']:.4f})"
        if entry.get("other_shard"):
            text += f", in version {entry['other_version']}: {entry['other_shard']}"
        lines.append(text)
    lines += [f"    {bad['detail']}: {bad['raw']!r}" for bad in found["unreadable"]]
    for other in found["kept_rows"]:
        lines += [
            f"  {other['uid']} was read from {origin['position']} (source {origin['source']})"
            for origin in other["origins"]
        ]
    if found["fate"] == "kept":
        lines.append(f"  now in {found['file']}" + (f", split {found['split']}" if found["split"] else ""))
        lines += [f"    {name}: {_shown(value)}" for name, value in found["row"].items()]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return repr(value[:SHOWN]) if isinstance(value, str) else "null" if value is None else str(value)


def _rows(opened: Dataset, kind: str, uid: str) -> list[dict[str, Any]]:
    """The row's lines in the ledgers; the same line of several runs once."""
    found: list[dict[str, Any]] = []
    for base in opened.manifest.ledgers:
        for name, *_ in opened.folder.list(base):
            if name.rsplit("/", 1)[-1].startswith(f"{kind}-"):
                for table in _matching(opened, name, "uid", uid):
                    found += [row for row in table.to_pylist() if row not in found]
    return found


def _kept_row(opened: Dataset, uid: str) -> dict[str, Any] | None:
    for entry in opened.files():
        for table in _matching(opened, entry.path, "_uid", uid):
            return {"file": entry.path, "split": entry.split, "row": _plain(table)}
    return None


def _matching(opened: Dataset, path: str, column: str, uid: str) -> list[pa.Table]:
    """The rows of a file whose column equals the uid; whole rows are read only from row groups that hold it."""
    file = open_parquet(opened.folder, path)
    number = file.schema_arrow.get_field_index(column)
    found = []
    for group in range(file.num_row_groups):
        statistics = file.metadata.row_group(group).column(_leaf(file, number)).statistics
        if statistics is not None and statistics.has_min_max and not statistics.min <= uid <= statistics.max:
            continue
        mask = pc.equal(file.read_row_group(group, columns=[column])[column], uid)
        if pc.any(mask).as_py():
            found.append(file.read_row_group(group).filter(mask))
    return found


def _leaf(file: Any, number: int) -> int:
    """The Parquet column of a flat Arrow field: nested fields before it have several."""
    name = file.schema_arrow.field(number).name
    names = [file.schema.column(i).path for i in range(len(file.schema))]
    return names.index(name)


def _plain(table: pa.Table) -> dict[str, Any]:
    row = table.slice(0, 1).to_pylist()[0]
    return {
        name: value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
        for name, value in row.items()
    }
