"""What of a command's JSON goes into an XCom: small facts only, the same size for ten rows and for ten billion."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 20  # failed expectations, problems
NO_VERDICT: dict[str, Any] = {
    "suite": None,
    "suite_path": None,
    "verdict": "unverified",
    "unmet": 0,
    "expectations": [],
}
LINE = 500
LISTED = 100  # of a list in the JSON of any other command


def of_command(arguments: Sequence[str], found: Mapping[str, Any], cwd: str | None) -> dict[str, Any]:
    """The summary of any command's JSON. Of those that have none below it is what they print, with lists cut to LISTED and their length beside as NAME_total."""
    name, data = arguments[0], arguments[1] if len(arguments) > 1 else ""
    if name == "plan":
        return of_plan(found)
    if name == "run":
        return of_run(found, cwd)
    if name == "show":
        return of_version(found, cwd)
    return of_verdict(found, data) if name == "validate" else _cut(found)


def _cut(found: Mapping[str, Any]) -> dict[str, Any]:
    small: dict[str, Any] = {}
    for name, value in found.items():
        small[name] = value
        if isinstance(value, list) and len(value) > LISTED:
            small[name], small[f"{name}_total"] = value[:LISTED], len(value)
    return small


def of_plan(found: Mapping[str, Any]) -> dict[str, Any]:
    """pipeline, output, newest_version; items and bytes to read, items to reuse, files that are gone."""
    read = [item for item in found["items"] if item["action"] == "read"]
    return {
        "pipeline": found["pipeline"],
        "output": found["output"],
        "newest_version": found["newest_version"],
        "read": len(read),
        "read_bytes": sum(item["bytes"] for item in read),
        "reuse": len(found["items"]) - len(read),
        "removed_files": len(found["removed_files"]),
    }


def of_run(found: Mapping[str, Any], cwd: str | None) -> dict[str, Any]:
    """Dataset (absolute), target (dataset@candidate or dataset@version), version, candidate, published, counts, splits, fingerprint, report, seconds."""
    dataset = absolute(found["path"], cwd)
    candidate = found.get("candidate")
    return {
        "dataset": dataset,
        "target": f"{dataset}@{candidate or found['version']}",
        **{
            name: found.get(name)
            for name in ("version", "candidate", "published", "counts", "splits", "fingerprint", "reused_items")
        },
        "report": absolute(found["report_path"], cwd),
        "seconds": round(found["seconds"]["total"], 3),
    }


def of_verdict(found: Mapping[str, Any], data: str) -> dict[str, Any]:
    """data, suite, verdict (passed, warned or failed), report, rows, evaluated, and up to SHOWN of what was not met: type, column, severity, unexpected."""
    unmet = [result for result in found.get("results", []) if not result.get("success")]
    verdict = "failed" if not found.get("success") else "warned" if unmet else "passed"
    return {
        "data": data,
        "suite": found.get("suite_name"),
        "verdict": verdict,
        "report": found.get("report"),
        "rows": found.get("num_rows"),
        "fingerprint": found.get("fingerprint"),
        "evaluated": (found.get("statistics") or {}).get("evaluated_expectations"),
        "unmet": len(unmet),
        "expectations": [_expectation(result) for result in unmet[:SHOWN]],
    }


def of_version(found: Mapping[str, Any], cwd: str | None) -> dict[str, Any]:
    """Dataset (absolute), version, rows, splits, fingerprint, gate and the newest verdict of each suite (NAME@HASH) of what `gristmill show` says."""
    return {
        "dataset": absolute(found["path"], cwd),
        "version": found["version"],
        "rows": found["num_rows"],
        "splits": found.get("splits") or {},
        "fingerprint": found["fingerprint"],
        "gate": list(found.get("gate") or []),
        "verdicts": {
            f"{each['suite']}@{str(each['suite_hash'])[:16]}": bool(each.get("success"))
            for each in found.get("verdicts") or []
        },
    }


def in_a_line(found: Mapping[str, Any]) -> str:
    """The facts as NAME VALUE, NAME VALUE, cut where it is long."""
    text = ", ".join(f"{name} {json.dumps(value, default=str)}" for name, value in found.items())
    return text if len(text) <= LINE else text[: LINE - 3] + "..."


def verdict_text(found: Mapping[str, Any]) -> str:
    """A verdict in a line."""
    unmet = f", {found['unmet']} of them not met" if found["unmet"] else ""
    rows = "" if found["rows"] is None else f" on {found['rows']:,} rows"
    return f"{found['verdict']}, {found['evaluated']} expectations{unmet}{rows}"


def problems(found: Mapping[str, Any] | None) -> str:
    """What `gristmill verify` found, in a line."""
    every = (found or {}).get("problems") or []
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return "; ".join(f"{each['path']}: {each['what']}" for each in every[:SHOWN]) + more


def absolute(path: str, cwd: str | None) -> str:
    """The path as seen from anywhere; a URL as it is."""
    return path if "://" in path else os.path.abspath(os.path.join(cwd or os.getcwd(), path))


def expectation_text(expectation: Mapping[str, Any]) -> str:
    """One unmet expectation in a line."""
    at = f" of '{expectation['column']}'" if expectation.get("column") else ""
    count = f", {expectation['unexpected']:,} rows" if expectation.get("unexpected") else ""
    said = f": {expectation['error']}" if expectation.get("error") else ""
    return f"{expectation['type']}{at} ({expectation['severity']}{count}){said}"


def _expectation(result: Mapping[str, Any]) -> dict[str, Any]:
    config = result.get("expectation_config") or {}
    kwargs = config.get("kwargs") or {}
    columns = kwargs.get("column") or ", ".join(
        str(kwargs[name]) for name in ("column_A", "column_B") if name in kwargs
    )
    raised = (result.get("exception_info") or {}).get("exception_message")
    return {
        "type": config.get("type") or config.get("expectation_type") or "expectation",
        "column": columns or ", ".join(kwargs.get("column_list") or []) or None,
        "severity": config.get("severity") or "critical",
        "unexpected": (result.get("result") or {}).get("unexpected_count"),
        "error": str(raised)[:300] if raised else None,
    }
