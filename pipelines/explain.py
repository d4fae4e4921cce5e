"""One row's whole story, from the ledger of a version and the version itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from gristmill.errors import DatasetNotFoundError, UsageError, capped
from gristmill.pipelines.lookup import ledger_rows, matching_rows, other_ledgers
from gristmill.storage.dataset import Dataset, open_dataset
from gristmill.storage.erasing import DUPLICATES
from gristmill.storage.tombstones import base_uids, read_tombstones

SHOWN = 300  # characters of a row's text that are shown
MOST = 5  # other rows, or records of one name, that are told one by one
LEAVING = ("drop", "quarantine")
_TIES = {
    "create": "made from",
    "bridges_splits": "linked to",
    "already_published": "as",
    "conflicting_id": "another content of",
}  # how a decision's other row is tied to it, by rule or action


def explain_row(
    dataset: str | Dataset, uid: str, *, position: str | None = None, run: str | None = None
) -> dict[str, Any]:
    """uid, fate (kept, dropped, quarantined, erased), origins, decisions in order (each as in the ledger), split, file and the row itself if kept.

    position: of several records with the uid, the one that was read there. For a duplicate, `kept_rows` tell where the row that was kept in its
    place came from, and what became of that; of a row that was kept, `duplicates` are those that left for it: their number and the first.
    `erased`: since when a tombstone matches the uid, else None. `run`: the ledger of a run that published nothing, where only that knows the row, or
    where it is asked for.
    One pass over the ledgers of the version (of each run that added to it, oldest first), reading only the row groups that may hold the uid.

    Raises:
        UsageError: no such row in the version's ledgers; says which version or candidate has it.
    """
    opened = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    folder, ledgers = opened.folder, opened.manifest.ledgers
    if not ledgers:
        raise DatasetNotFoundError(f"version {opened.version} of {opened.path} has no ledger")
    erased, names = _tombstone(opened, uid)
    origins, decided = _told(opened, ledgers, names)
    if run is None and not origins and not decided and not erased:
        run = _unpublished_run(opened, uid)
    if run is not None:
        ledgers = [run]
        origins, decided = _told(opened, ledgers, names)
    unreadable = ledger_rows(folder, ledgers, "quarantine", names)
    if position is not None:
        origins, decided, unreadable = (
            [each for each in rows if each["position"] == position] for rows in (origins, decided, unreadable)
        )
    row = None if position is not None and _left(decided, position) else _kept_row(opened, uid)
    if not origins:  # what could not be read has no row, but a place and raw bytes
        origins = [{name: entry[name] for name in ("uid", "source", "position")} for entry in decided[:1]]
    tied = [entry["other_uid"] for entry in decided if entry["action"] == "drop" and entry["other_uid"]]
    return {
        "uid": uid,
        "dataset": opened.path,
        "version": opened.version,
        "fate": "kept" if row else "erased" if erased else _reason(decided),
        "erased": erased,
        "run": run,
        "origins": [{**origin, **_left(decided, origin["position"])} for origin in origins],
        "decisions": decided,
        "unreadable": [
            {
                "reason": bad["reason"],
                "detail": bad["detail"],
                "raw": bad["raw"][:SHOWN].decode(errors="backslashreplace"),
            }
            for bad in unreadable
            if bad["raw"] is not None
        ],
        **(row or {}),
        "kept_rows": _others(opened, ledgers, sorted(set(tied) - {uid})[:MOST]),
        "duplicates": _duplicates(opened, ledgers, uid) if row else {"rows": 0, "first": []},
    }


def _reason(decided: Sequence[dict[str, Any]]) -> str:
    """Why a row isn't there."""
    return "quarantined" if any(entry["action"] == "quarantine" for entry in decided) else "dropped"


def _told(
    opened: Dataset, ledgers: Sequence[str], names: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(where the row was read, what was decided about it)."""
    origins, decided = (ledger_rows(opened.folder, ledgers, kind, names) for kind in ("origin", "decisions"))
    return origins, decided


def _left(decided: Sequence[dict[str, Any]], position: str) -> dict[str, Any]:
    """action, step, rule: by which the record that was read there left; {} if it stayed."""
    found = [entry for entry in decided if entry["action"] in LEAVING and entry["position"] == position]
    return {name: found[0][name] for name in ("action", "step", "rule")} if found else {}


def _tombstone(opened: Dataset, uid: str) -> tuple[str | None, list[str]]:
    """(since when the uid is erased, or None; the names that it has in ledgers)."""
    marks = read_tombstones(opened.folder)
    if not marks:
        return None, [uid]
    by_id = bool((opened.manifest.pipeline or {}).get("id"))
    since, mark = marks.since(base_uids(pa.array([uid], pa.large_string()), by_id=by_id)[0].as_py())
    if since is None:
        return None, [uid]
    return dt.datetime.fromtimestamp(since, dt.UTC).isoformat(timespec="seconds"), [uid, mark]


def _unpublished_run(opened: Dataset, uid: str) -> str:
    """The ledger of a run that published nothing and read the row. Such a run leaves its ledger until `gc`.

    Raises:
        UsageError: there is none; names versions and candidates that know the row.
    """
    beside = other_ledgers(opened)
    having = [
        ledger
        for ledger in beside
        if any(ledger_rows(opened.folder, [ledger], kind, [uid]) for kind in ("origin", "decisions"))
    ]
    others = sorted({name for ledger in having if (name := beside[ledger]) is not None})
    alone = [ledger for ledger in having if beside[ledger] is None]
    if alone and not others:
        return alone[0]
    hint = (
        f". In {capped(others, MOST)} it is"
        if others
        else (
            "; uids are in column _uid and in the ledger. What a run read that published nothing can be explained until `gristmill gc`"
        )
    )
    raise UsageError(f"version {opened.version} of {opened.path} never saw a row '{uid}'{hint}", uid=uid)


def _others(opened: Dataset, ledgers: Sequence[str], uids: Sequence[str]) -> list[dict[str, Any]]:
    """uid, origins, left: of rows that stayed in the place of another one; `left` tells how they left later, if they did."""
    if not uids:
        return []
    origins, decided = _told(opened, ledgers, uids)
    found = []
    for uid in uids:
        leaving = [entry for entry in decided if entry["uid"] == uid and entry["action"] in LEAVING]
        kept = not leaving or _kept_row(opened, uid) is not None
        left = None if kept else {name: leaving[-1][name] for name in ("action", "step", "rule")}
        found.append({"uid": uid, "origins": [origin for origin in origins if origin["uid"] == uid], "left": left})
    return found


def _duplicates(opened: Dataset, ledgers: Sequence[str], uid: str) -> dict[str, Any]:
    """rows: how many left as duplicates of this one; first: uid, step and similarity of some of them."""
    tied = ledger_rows(opened.folder, ledgers, "decisions", [uid], "other_uid")
    found = [entry for entry in tied if entry["action"] == "drop" and entry["rule"] in DUPLICATES]
    first = [{name: entry[name] for name in ("uid", "step", "similarity")} for entry in found[:MOST]]
    return {"rows": len(found), "first": first}


def story(found: dict[str, Any]) -> str:
    """The explanation as lines of text."""
    lines = [f"{found['uid']} in {found['dataset']}@{found['version']}: {_fate(found)}"]
    several = len(found["origins"]) > 1
    for origin in found["origins"]:
        text = f"  read from {origin['position']} (source {origin['source']})"
        if several:
            text += f": {_ended(origin)}" if "action" in origin else f": this one is {found['fate']}"
        lines.append(text)
    lines += [_decision(entry) for entry in found["decisions"]]
    lines += [f"    {bad['detail']}: {bad['raw']!r}" for bad in found["unreadable"][:MOST]]
    for other in found["kept_rows"]:
        where = [f"read from {origin['position']} (source {origin['source']})" for origin in other["origins"]]
        later = f"; later {_ended(other['left'])}" if other["left"] else ""
        lines.append(
            f"  {'it stayed' if other['left'] else 'kept'} in its place: {', '.join([other['uid'], *where])}{later}"
        )
    if found["duplicates"]["rows"]:
        names = [
            f"{each['uid']} ({each['step']}, similarity {each['similarity']:.4f})"
            if each["similarity"] is not None
            else f"{each['uid']} ({each['step']})"
            for each in found["duplicates"]["first"]
        ]
        more = found["duplicates"]["rows"] - len(names)
        lines.append(f"  dropped as duplicates of it: {', '.join(names)}{f' and {more} more' if more else ''}")
    if found["fate"] == "kept":
        lines.append(f"  now in {found['file']}" + (f", split {found['split']}" if found["split"] else ""))
        lines += [f"    {name}: {_shown(value)}" for name, value in found["row"].items()]
    return "\n".join(lines)


def _fate(found: dict[str, Any]) -> str:
    text = str(found["fate"])
    dropped = [entry for entry in found["decisions"] if entry["action"] == "drop"]
    if found["fate"] == "dropped" and dropped and dropped[-1]["rule"] in DUPLICATES:
        text += f" as a duplicate of {dropped[-1]['other_uid']}"
    if found["erased"]:
        text += f": a tombstone of {found['erased']} matches it, so that no run keeps it"
    if found["run"]:
        text += f" by a run that published nothing ({found['run']})"
    return text


def _ended(by: dict[str, Any]) -> str:
    return f"{'dropped' if by['action'] == 'drop' else 'quarantined'} by {by['step']} (rule {by['rule']})"


def _decision(entry: dict[str, Any]) -> str:
    text = f"  {entry['step']}: {entry['action']} by rule {entry['rule']}"
    if entry["value"] is not None:
        text += f", value {entry['value']:.6g}"
    if entry["threshold"] is not None:
        text += f", threshold {entry['threshold']:.6g}"
    if entry["other_uid"]:
        tie = _TIES.get(entry["rule"]) or _TIES.get(entry["action"], "duplicate of")
        text += f", {tie} {entry['other_uid']}"
    if entry["similarity"] is not None:
        text += f" (similarity {entry['similarity']:.4f})"
    if entry.get("other_shard"):
        text += f", in version {entry['other_version']}: {entry['other_shard']}"
    return text


def _shown(value: Any) -> str:
    return repr(value[:SHOWN]) if isinstance(value, str) else "null" if value is None else str(value)


def _kept_row(opened: Dataset, uid: str) -> dict[str, Any] | None:
    for entry in opened.files():
        for table in matching_rows(opened.folder, entry.path, "_uid", [uid]):
            return {"file": entry.path, "split": entry.split, "row": _plain(table)}
    return None


def _plain(table: pa.Table) -> dict[str, Any]:
    row = table.slice(0, 1).to_pylist()[0]
    return {
        name: value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
        for name, value in row.items()
    }
