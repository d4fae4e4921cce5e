"""A verdict as one self-contained page: the verdict first, what failed with examples and their place, drift, trends, columns, what passed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import accumulate
from typing import Any

import pyarrow as pa

from gristmill.validators.charts import column_chart, line, short
from gristmill.validators.drift import ColumnDrift
from gristmill.validators.history import Unusual
from gristmill.validators.profile import ColumnProfile, Profile
from gristmill.validators.style import STYLE
from gristmill.validators.verdict import exception_message
from gristmill.validators.words import basis, describe

EXAMPLES = 6  # values shown of a failing expectation
PLACES = 3
DETAILED = 100  # failing expectations with examples; the rest is a list
CHARTS = 60  # columns with a picture; the rest is a table
SEVERITIES = ("critical", "warning", "info")


@dataclass(frozen=True)
class Facts:
    """What the page shows. verdict: as `Verdict.to_json_dict()`. shards: (name, rows) in order, for the place of examples.

    before: the profile of the version before, and its name. trend: as `history.trend`.
    """

    verdict: Mapping[str, Any]
    shards: Sequence[tuple[str, int]]
    created: str
    profile: Profile | None = None
    before: Profile | None = None
    before_name: str = ""
    before_problem: str = ""
    drift: Sequence[ColumnDrift] = ()
    trend: pa.Table | None = None
    unusual: Mapping[str, Unusual] = field(default_factory=dict)
    consequence: str = ""


def render(facts: Facts) -> str:
    """The page, as HTML without scripts or links to anywhere."""
    verdict = facts.verdict
    failed = [result for result in verdict["results"] if not result["success"]]
    failed.sort(key=lambda result: SEVERITIES.index(severity(result)))
    passed = [result for result in verdict["results"] if result["success"]]
    title = f"{verdict['suite_name']} on {verdict['data']}"
    body = [
        _head(facts, failed),
        _failures(failed, facts.shards),
        _drift(facts),
        _trend(facts),
        _columns(facts),
        _passed(passed),
        _foot(verdict),
    ]
    mark = "passed" if verdict["success"] else "failed"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{mark}: {escape(title)}</title><style>{STYLE}</style></head><body>{''.join(body)}</body></html>"
    )


def severity(result: Mapping[str, Any]) -> str:
    """critical, warning or info."""
    return str(result["expectation_config"].get("severity") or "critical")


def _head(facts: Facts, failed: Sequence[Mapping[str, Any]]) -> str:
    verdict = facts.verdict
    count = len(verdict["results"])
    critical = sum(severity(result) == "critical" for result in failed)
    good = verdict["success"]
    if not failed:
        said = f"all {count:,} expectations hold"
    elif good:
        said = f"{len(failed):,} of {count:,} expectations don't hold, none of them critical"
    else:
        said = f"{critical:,} critical {'expectation fails' if critical == 1 else 'expectations fail'}"
        said += f", {len(failed) - critical:,} others" if len(failed) > critical else ""
    estimates = sum(bool(result.get("approximate")) for result in verdict["results"])
    tiles = [
        ("rows", f"{verdict['num_rows']:,}"),
        ("expectations", f"{count:,}"),
        ("hold", f"{count - len(failed):,}"),
        ("fail", f"{len(failed):,}"),
        *([("are estimates", f"{estimates:,}")] if estimates else []),
    ]
    shown = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in tiles)
    also = f'<p class="also">{escape(facts.consequence)}</p>' if facts.consequence else ""
    return (
        f'<header class="{"good" if good else "bad"}"><p class="mark">{"Passed" if good else "Failed"}</p>'
        f"<h1>{escape(said[0].upper() + said[1:])}</h1><p>Suite <b>{escape(verdict['suite_name'])}</b> on <b>{escape(verdict['data'])}</b>"
        f', {escape(facts.created)}</p>{also}</header><section class="tiles">{shown}</section>'
    )


def _failures(failed: Sequence[Mapping[str, Any]], shards: Sequence[tuple[str, int]]) -> str:
    if not failed:
        return ""
    starts = list(accumulate((rows for _, rows in shards), initial=0))
    cards = [_failure(result, shards, starts) for result in failed[:DETAILED]]
    rest = failed[DETAILED:]
    more = f"<details><summary>{len(rest):,} more that fail</summary>{_lines(rest)}</details>" if rest else ""
    return f"<h2>What fails</h2>{''.join(cards)}{more}"


def _failure(result: Mapping[str, Any], shards: Sequence[tuple[str, int]], starts: Sequence[int]) -> str:
    config = result["expectation_config"]
    found = result["result"]
    level = severity(result)
    notes = config.get("notes")
    why = f'<p class="why">{escape(_text(notes))}</p>' if notes else ""
    return (
        f'<article class="fail {level}"><div class="row"><h3>{escape(describe(config["type"], config["kwargs"]))}</h3>'
        f'<span class="tag {level}">{level}</span></div>{_observed(result)}{_based(result)}{why}{_examples(found, shards, starts)}'
        f"<code>{escape(config['type'])}</code></article>"
    )


def _based(result: Mapping[str, Any]) -> str:
    """That it is an estimate, or that no row was read for it."""
    text = basis(result)
    return f'<p class="{"estimate" if result.get("approximate") else "why"}">{escape(text)}</p>' if text else ""


def _observed(result: Mapping[str, Any]) -> str:
    """What was found, in one line, with a bar where rows are counted."""
    if message := exception_message(result):
        return f'<p class="error">Could not be evaluated: {escape(message[:600])}</p>'
    found = result["result"]
    if "unexpected_count" in found and "element_count" in found:
        count, of = found["unexpected_count"], found["element_count"]
        share = found.get("unexpected_percent") or 0.0
        missing = f", {found['missing_count']:,} missing" if found.get("missing_count") else ""
        text = f"<b>{count:,}</b> of {of:,} rows do not ({share:.3g} %){missing}"
        return f'<p>{text}</p><div class="meter"><i style="width:{min(max(share, 0.5), 100):.2f}%"></i></div>'
    if found.get("observed_value") is not None:
        return f"<p>Found: <b>{escape(_text(found['observed_value']))}</b>{_lists(found)}</p>{_details(found.get('details'))}"
    return f"<p>{_lists(found) or 'It does not hold.'}</p>{_details(found.get('details'))}"


def _lists(found: Mapping[str, Any]) -> str:
    parts = []
    for key, name in (("partial_unexpected_list", "not expected"), ("partial_missing_list", "missing")):
        if found.get(key):
            parts.append(f" {name}: <b>{escape(_text(found[key][:EXAMPLES]))}</b>")
    return "".join(parts)


def _details(details: Any) -> str:
    if not details:
        return ""
    return f"<details><summary>details</summary><pre>{escape(_text(details, 3000))}</pre></details>"


def _examples(found: Mapping[str, Any], shards: Sequence[tuple[str, int]], starts: Sequence[int]) -> str:
    """The first values that are not expected, each with its first places."""
    values = found.get("partial_unexpected_list") or []
    if not values or "element_count" not in found:
        return ""
    labels = found.get("partial_unexpected_index_list") or []
    grouped: dict[str, list[str]] = {}
    for number, value in enumerate(values):
        places = grouped.setdefault(_cell(value), [])
        if number < len(labels):
            places.append(_place(labels[number], shards, starts))
    rows = [[value, _places(places)] for value, places in list(grouped.items())[:EXAMPLES]]
    return _table(["value", "place"], rows, "examples")


def _places(places: Sequence[str]) -> str:
    """Up to three places; rows of one shard together."""
    if not places:
        return ""
    shard = places[0].partition(" of ")[2]
    rows = [place.partition(" of ")[0].removeprefix("row ") for place in places if place.partition(" of ")[2] == shard]
    if not shard:
        return "; ".join(places[:PLACES])
    more = f" and {len(places) - PLACES} more listed" if len(places) > PLACES else ""
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(rows[:PLACES])}{more} of {shard}"


def _place(label: Any, shards: Sequence[tuple[str, int]], starts: Sequence[int]) -> str:
    """The shard and the row in it, from 0; what the label says where rows are named otherwise."""
    if isinstance(label, int) and starts and 0 <= label < starts[-1]:
        number = bisect_right(starts, label) - 1
        return f"row {label - starts[number]:,} of {escape(_tail(shards[number][0]))}"
    return escape(_text(label))


def _tail(name: str) -> str:
    """The end of a long path: a shard's name is a hash."""
    *folders, file = name.split("/")
    short_file = file if len(file) <= 32 else f"{file[:12]}\u2026{file[-8:]}"
    return "/".join([*folders[-2:], short_file])


def _drift(facts: Facts) -> str:
    if facts.before_problem:
        return f"<h2>Against {escape(facts.before_name)}</h2><p class=error>Could not be compared: {escape(facts.before_problem)}</p>"
    if facts.before is None:
        return ""
    rows: list[list[str]] = []
    quiet: list[list[str]] = []
    for each in sorted(facts.drift, key=lambda drift: -max(drift.effect, abs(drift.missing_change))):
        new = ", ".join(f"{escape(str(value)[:30])} ({share:.1%})" for value, share in each.new[:3])
        gone = ", ".join(escape(str(value)[:30]) for value, _ in each.vanished[:3])
        cells = [
            f"<b>{escape(each.column)}</b>",
            each.of,
            f'<span class="meter inline"><i style="width:{min(100 * each.effect, 100):.1f}%"></i></span> {each.effect:.3f}',
            f"{each.psi:.3f}",
            f"{each.jensen_shannon:.3f}",
            _p(each.p_adjusted),
            f"{each.missing_change:+.2%}" if each.missing_change else "0",
            f"{new}{' / gone: ' + gone if gone else ''}",
        ]
        (rows if each.drifted() or each.new or each.vanished else quiet).append(cells)
    head = ["column", "of", "effect", "PSI", "JS", "p (adjusted)", "missing", "new values"]
    shown = (
        _table(head, rows, "numbers")
        if rows
        else "<p>No column has changed by more than chance and an effect of 0.1.</p>"
    )
    rest = (
        f"<details><summary>{len(quiet):,} columns as before</summary>{_table(head, quiet, 'numbers')}</details>"
        if quiet
        else ""
    )
    absent = [name for name in facts.before.columns if facts.profile is not None and name not in facts.profile.columns]
    lost = f"<p>Columns that are gone: {escape(', '.join(absent))}</p>" if absent else ""
    return f"<h2>Against {escape(facts.before_name)}</h2>{lost}{shown}{rest}"


def _trend(facts: Facts) -> str:
    if facts.trend is None or facts.trend.num_columns < 3:
        return ""
    names = facts.trend.column_names[1:]
    rows: list[list[str]] = []
    quiet: list[list[str]] = []
    for values in facts.trend.to_pylist():
        metric = values["metric"]
        series = [values[name] for name in names]
        usual = facts.unusual.get(metric)
        said = f"usual: {short(usual.usual[0])} to {short(usual.usual[1])}" if usual is not None else ""
        cells = [
            f"<b>{escape(metric)}</b>",
            line(series),
            *["" if value is None else short(value) for value in series[-5:]],
            said,
        ]
        (rows if usual is not None or metric == "row_count" else quiet).append(cells)
    head = ["metric", "", *names[-5:], ""]
    rest = (
        f"<details><summary>{len(quiet):,} more metrics</summary>{_table(head, quiet[:400], 'numbers')}</details>"
        if quiet
        else ""
    )
    return f"<h2>Over {len(names)} versions</h2>{_table(head, rows, 'numbers')}{rest}"


def _columns(facts: Facts) -> str:
    if facts.profile is None:
        return ""
    columns = [column for column in facts.profile.columns.values() if not column.name.startswith("_")]
    cards = []
    for column in columns[:CHARTS]:
        before = facts.before.columns.get(column.name) if facts.before is not None else None
        cards.append(_card(column, before if before is not None and before.kind == column.kind else None))
    rest = [_row(column) for column in columns[CHARTS:]]
    head = ["column", "type", "missing", "different", "least", "median", "greatest"]
    more = (
        f"<details><summary>{len(rest):,} more columns</summary>{_table(head, rest[:2000], 'numbers')}</details>"
        if rest
        else ""
    )
    key = (
        '<p class="key"><i class="now"></i>this version<i class="old"></i>the version before</p>'
        if facts.before is not None
        else ""
    )
    return f'<h2>Columns</h2>{key}<div class="cards">{"".join(cards)}</div>{more}'


def _card(column: ColumnProfile, before: ColumnProfile | None) -> str:
    missing = (column.nulls + column.nans) / max(column.rows, 1)
    facts = [f"{missing:.2%} missing" if missing else "none missing"]
    if column.distinct is not None:
        facts.append(f"{'about ' if column.distinct_error else ''}{column.distinct:,} different")
    numbers = column.numbers
    if numbers is not None and numbers.count and column.kind == "number" and numbers.mean is not None:
        facts.append(f"mean {short(numbers.mean)}")
        if outliers := sum(numbers.outliers):
            facts.append(f"{'about ' if numbers.rank_error else ''}{outliers:,} outliers")
    return (
        f'<div class="card"><div class="row"><h3>{escape(column.name)}</h3><span class="tag">{escape(column.type)}</span></div>'
        f"{column_chart(column, before)}<p>{' &middot; '.join(facts)}</p></div>"
    )


def _row(column: ColumnProfile) -> list[str]:
    numbers = column.numbers
    middle = "" if numbers is None or not numbers.count else short(column.value(numbers.at(0.5)))
    middle = f"about {middle}" if middle and numbers is not None and numbers.rank_error else middle
    ends = ["" if value is None else short(value) for value in (column.low, column.high)]
    missing = (column.nulls + column.nans) / max(column.rows, 1)
    different = "" if column.distinct is None else f"{'about ' if column.distinct_error else ''}{column.distinct:,}"
    return [f"<b>{escape(column.name)}</b>", escape(column.type), f"{missing:.2%}", different, ends[0], middle, ends[1]]


def _passed(passed: Sequence[Mapping[str, Any]]) -> str:
    if not passed:
        return ""
    return f"<h2>What holds</h2><details><summary>{len(passed):,} expectations</summary>{_lines(passed)}</details>"


def _lines(results: Iterable[Mapping[str, Any]]) -> str:
    lines = []
    for each in results:
        text = describe(each["expectation_config"]["type"], each["expectation_config"]["kwargs"])[:240]
        found = f"<em> &middot; {escape(based)}</em>" if (based := basis(each)) else ""
        lines.append(f"<li>{escape(text)}{found}")
    return f"<ul>{''.join(lines)}</ul>"


def _foot(verdict: Mapping[str, Any]) -> str:
    facts = [f"suite {verdict['suite_hash'][:16]}"]
    if verdict.get("fingerprint"):
        facts.append(f"content {verdict['fingerprint'][:16]}")
    return f"<footer>{' &middot; '.join(facts)}</footer>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str) -> str:
    first = "".join(f"<th>{name}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table class="{kind}"><tr>{first}</tr>{body}</table></div>'


def _cell(value: Any) -> str:
    if value is None:
        return "<em>null</em>"
    text = _text(value, 200)
    return f"<q>{escape(text)}</q>" if isinstance(value, str) else escape(text)


def _text(value: Any, limit: int = 300) -> str:
    if isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, int) and not isinstance(value, bool):
        text = f"{value:,}"
    elif isinstance(value, Mapping):
        text = ", ".join(f"{key}: {_text(item, limit)}" for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        text = ", ".join(_text(item, limit) for item in value)
    else:
        text = str(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}\u2026"


def _p(value: float) -> str:
    return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"
