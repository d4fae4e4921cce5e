"""The report of a run: one JSON for programs and one page of HTML for people, beside the version."""

from __future__ import annotations

import html
import itertools
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.pipelines.ledger import DECISIONS
from gristmill.pipelines.lookup import ledger_files
from gristmill.pipelines.model import Pipeline
from gristmill.storage.folder import Folder
from gristmill.storage.manifest import Manifest
from gristmill.storage.parquet import open_parquet

if TYPE_CHECKING:
    from gristmill.pipelines.runner import Outcome

EXAMPLES = 3  # rows told of each rule
EXAMPLE_FILES = 8  # of the ledger, each of some work items, in which they are looked for
EXAMPLE_ROWS = 1 << 16  # of each of these
BEGINNING = pa.schema([DECISIONS.field(name) for name in ("step", "rule", "uid", "position")])

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1c2733}
h1{font-size:1.4rem;margin-bottom:.2rem}h2{font-size:1.05rem;margin-top:1.8rem}.sub{color:#5b6b7b;margin-top:0}
table{border-collapse:collapse;width:100%}th,td{padding:.3rem .6rem;text-align:right;border-bottom:1px solid #e3e8ee}
th:first-child,td:first-child{text-align:left}.bar{display:flex;height:1.6rem;border-radius:4px;overflow:hidden;margin:.8rem 0}
.bar span{display:block}.kept{background:#2f8f5b}.dropped{background:#c9a227}.quarantined{background:#c0453b}
.key i{display:inline-block;width:.8rem;height:.8rem;border-radius:2px;margin:0 .3rem 0 1rem}code{background:#f1f4f7;padding:.1rem .3rem}
"""


def write_report(
    folder: Folder, model: Pipeline, outcome: Outcome, seconds: dict[str, float], reused: int, manifest: Manifest
) -> str:
    """Where the HTML is. Named by the ledger, so that a version has one report however often the run is repeated."""
    facts = {
        "pipeline": model.name,
        "dataset": folder.base,
        "version": manifest.version,
        "fingerprint": manifest.fingerprint,
        "layout": manifest.layout,
        "splits": dict(manifest.splits),
        "counts": outcome.counts,
        "steps": outcome.steps,
        "examples": examples(folder, outcome.ledger),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "reused_items": reused,
        "files": len(outcome.files),
        "bytes": outcome.files.num_bytes,
        "rows": outcome.rows,
    }
    base = f"reports/{outcome.ledger.rsplit('/', 1)[-1]}"
    folder.write_atomic(f"{base}.json", json.dumps(facts, indent=1).encode())
    folder.write_atomic(f"{base}.html", render(facts).encode())
    return folder.url(f"{base}.html")


def examples(folder: Folder, ledger: str) -> dict[str, dict[str, list[dict[str, str]]]]:
    """uid and position of the first rows of each rule, by step and rule: of what the ledger's first files begin with, so that rare rules may have none."""
    found: dict[str, dict[str, list[dict[str, str]]]] = {}
    for path in itertools.islice(ledger_files(folder, [ledger], "decisions"), EXAMPLE_FILES):
        with open_parquet(folder, path) as file:
            batches = file.iter_batches(batch_size=EXAMPLE_ROWS, columns=BEGINNING.names)
            table = pa.Table.from_batches([*itertools.islice(batches, 1)], BEGINNING)
        for row in table.group_by(["step", "rule"]).aggregate([]).to_pylist():
            known = found.setdefault(row["step"], {}).setdefault(row["rule"], [])
            mine = pc.and_(pc.equal(table["step"], row["step"]), pc.equal(table["rule"], row["rule"]))
            known += table.filter(mine).select(["uid", "position"]).slice(0, EXAMPLES - len(known)).to_pylist()
    return found


def render(facts: dict[str, Any]) -> str:
    """The page: what became of the rows first, then each step and rule, splits, times."""
    counts = facts["counts"]
    whole = max(counts["read"] + counts["created"], 1)
    bar = "".join(
        f'<span class="{name}" style="width:{100 * counts[name] / whole:.3f}%"></span>'
        for name in ("kept", "dropped", "quarantined")
    )
    key = "".join(f'<i class="{name}"></i>{name} {counts[name]:,}' for name in ("kept", "dropped", "quarantined"))
    steps = []
    for name, totals in facts["steps"].items():
        steps.append(
            [
                f"<b>{_text(name)}</b>",
                *[f"{totals.get(column, 0):,}" for column in ("dropped", "quarantined", "created")],
            ]
        )
        for rule, count in sorted(totals.get("rules", {}).items(), key=lambda pair: -pair[1]):
            steps.append([f"&emsp;{_text(rule)}{_examples(facts, name, rule)}", f"{count:,}", "", ""])
        for fact, value in totals.items():
            if fact not in ("dropped", "quarantined", "created", "rules"):
                steps.append([f"&emsp;<i>{_text(fact.replace('_', ' '))}</i>", f"{value:,}", "", ""])
    body = [
        f"<h1>{_text(facts['pipeline'])}: version {facts['version']}</h1>",
        f"<p class=sub>{_text(facts['dataset'])} &middot; {facts['files']} shards, {facts['bytes'] / 1e6:,.1f} MB</p>",
        f"<p>{counts['read']:,} rows read, {counts['created']:,} created</p><div class=bar>{bar}</div><p class=key>{key}</p>",
        *([_appended(facts["rows"])] if facts.get("rows") else []),
        "<h2>Steps and rules</h2>"
        + _table(["step, rule", "dropped, or rows of a rule", "quarantined", "created"], steps),
    ]
    if facts["splits"]:
        total = max(sum(facts["splits"].values()), 1)
        rows = [[_text(name), f"{rows:,}", f"{100 * rows / total:.2f} %"] for name, rows in facts["splits"].items()]
        body.append("<h2>Splits</h2>" + _table(["split", "rows", "share"], rows))
    body.append(
        "<h2>Seconds</h2>"
        + _table(["stage", "seconds"], [[_text(name), f"{value:.2f}"] for name, value in facts["seconds"].items()])
    )
    body.append(
        f"<p class=sub>fingerprint <code>{facts['fingerprint']}</code>, layout <code>{facts['layout'][:16]}</code></p>"
    )
    return f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(facts['pipeline'])}</title><style>{_STYLE}</style>{''.join(body)}</html>"


def _examples(facts: dict[str, Any], step: str, rule: str) -> str:
    rows = facts.get("examples", {}).get(step, {}).get(rule, [])
    return "".join(
        f"<br>&emsp;&emsp;<small><code>{_text(row['uid'])}</code> {_text(row['position'])}</small>" for row in rows
    )


def _appended(rows: dict[str, int]) -> str:
    return f"<p>{rows['before']:,} rows before + {rows['added']:,} added = {rows['after']:,}</p>"


def _table(head: list[str], rows: list[list[str]]) -> str:
    first = "".join(f"<th>{name}</th>" for name in head)
    return (
        f"<table><tr>{first}</tr>"
        + "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        + "</table>"
    )


def _text(value: object) -> str:
    return html.escape(str(value))
