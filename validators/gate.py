"""The gate of a dataset version: its suites judged, the verdict kept beside the content it is about, with a report and the bad rows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from gristmill.storage.dataset import Dataset
from gristmill.storage.parquet import ParquetSettings
from gristmill.storage.versions import now
from gristmill.validators import history, report
from gristmill.validators.api import validate
from gristmill.validators.drift import ColumnDrift, compare
from gristmill.validators.inputs import open_data
from gristmill.validators.profile import profile
from gristmill.validators.reference import version_before
from gristmill.validators.suites import Suite, load_suite
from gristmill.validators.verdict import BAD_ROWS, Verdict

HASH_DIGITS = 16
TREND = 10  # versions
FAILED_SHOWN = 20


@dataclass(frozen=True)
class Judged:
    """What a suite says of a version. verdict: plain values, as its file has them. path, report, bad_rows: URLs; bad_rows None if there are none.

    reused: the content had been judged by this suite before, and nothing was evaluated.
    """

    success: bool
    verdict: dict[str, Any]
    path: str
    report: str
    bad_rows: str | None = None
    drift: Sequence[ColumnDrift] = ()
    reused: bool = False

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The results that are no success, critical ones first."""
        found = [result for result in self.verdict["results"] if not result["success"]]
        return sorted(found, key=lambda result: report.SEVERITIES.index(report.severity(result)))


def gate_entry(suite: Suite) -> str:
    """How a manifest's gate names a suite: NAME@HASH. Another suite of the same name does not open the gate."""
    return f"{suite.name}@{suite.hash[:HASH_DIGITS]}"


def verdict_path(fingerprint: str, suite_hash: str, number: int = 1) -> str:
    """Where a verdict is kept. number: 2 and on where the same suite came to another verdict before, such as after a disk error."""
    return f"verdicts/{fingerprint}/{suite_hash}{'' if number == 1 else f'~{number}'}.json"


def judge(dataset: Dataset, suite: Any, *, again: bool = True, consequence: str = "", **options: Any) -> Judged:
    """The verdict of a suite on a version or candidate, kept beside it with a report, the bad rows and the version's profile.

    again: evaluate also where a verdict is kept already. consequence: one sentence for the report. options: of `validate`.

    An error while evaluating is a failing verdict, which is not kept in place of a later one.

    Raises:
        SuiteError: a suite that can't be evaluated as written.
        DatasetError, InputError: the version can't be read.
    """
    loaded = load_suite(suite)
    if not again and (kept := kept_verdict(dataset, loaded)) is not None:
        return kept
    verdict = validate(dataset, loaded, **options)
    folder, base = dataset.folder, _report_base(dataset, loaded)
    bad_rows = _write_bad_rows(dataset, verdict, f"{base}/bad_rows.parquet") if verdict.failed else None
    facts = _facts(dataset, verdict, consequence)
    folder.write_atomic(f"{base}/validation.html", report.render(facts).encode())
    links = {"report": f"{base}/validation.html", "bad_rows": f"{base}/bad_rows.parquet" if bad_rows else None}
    plain = {**facts.verdict, "suite": loaded.name, "created": facts.created, **links}
    path = record(dataset, plain)
    return Judged(verdict.success, plain, folder.url(path), folder.url(links["report"] or ""), bad_rows, facts.drift)


def record(dataset: Dataset, verdict: dict[str, Any]) -> str:
    """Where the verdict is kept: a file made only if absent; the one that is there already, if it came to the same."""
    content = json.dumps(verdict, indent=1).encode() + b"\n"
    number = 1
    while True:
        path = verdict_path(dataset.fingerprint, verdict["suite_hash"], number)
        try:
            dataset.folder.create(path, content)
        except FileExistsError:
            later = dataset.folder.exists(verdict_path(dataset.fingerprint, verdict["suite_hash"], number + 1))
            if not later and json.loads(dataset.folder.read_bytes(path))["success"] == verdict["success"]:
                return path
            number += 1
        else:
            return path


def kept_verdict(dataset: Dataset, suite: Suite) -> Judged | None:
    """The newest verdict of the suite on this content, or None; one in which an expectation could not be evaluated doesn't count."""
    found = [verdict for verdict in dataset.verdicts if verdict.get("suite_hash") == suite.hash]
    if not found or any(report.exception_message(result) for result in found[-1]["results"]):
        return None
    number = len(found)
    verdict, url = found[-1], dataset.folder.url
    bad_rows = url(verdict["bad_rows"]) if verdict.get("bad_rows") else None
    path = url(verdict_path(dataset.fingerprint, suite.hash, number))
    return Judged(verdict["success"], verdict, path, url(verdict["report"]), bad_rows, reused=True)


def judge_data(data: Any, suite: Any, **options: Any) -> tuple[Verdict, report.Facts]:
    """The verdict on anything else than a dataset, and the facts of its report; nothing is kept."""
    opened = open_data(data)
    verdict = validate(opened, suite, **options)
    facts = report.Facts(verdict.to_json_dict(), verdict.shards, now(), profile(opened))
    return verdict, facts


def facts_of(dataset: Dataset, judged: Judged) -> report.Facts:
    """The facts of a kept verdict's report."""
    shards = [(entry.path, entry.rows) for entry in dataset.files()]
    return report.Facts(judged.verdict, shards, judged.verdict["created"], history.kept_profile(dataset))


def _facts(dataset: Dataset, verdict: Verdict, consequence: str) -> report.Facts:
    found = history.kept_profile(dataset)
    facts = report.Facts(verdict.to_json_dict(), verdict.shards, now(), found, consequence=consequence)
    before = version_before(dataset)
    if before is None:
        return facts
    old = history.kept_profile(before)
    return replace(
        facts,
        before=old,
        before_name=before.name,
        drift=compare(old, found),
        trend=history.trend(dataset, TREND),
        unusual=history.unusual_metrics(dataset, TREND),
    )


def _write_bad_rows(dataset: Dataset, verdict: Verdict, path: str) -> str | None:
    """The bad rows whole, each with its place and the ids of all expectations that it failed; None if there are none."""
    data = open_data(dataset)
    schema = pa.schema([*data.schema, *[each.with_name(f"_{each.name}") for each in BAD_ROWS]])
    tables = verdict.bad_rows()
    first = next(tables, None)
    if first is None:
        return None
    with dataset.folder.writer(path) as target, ParquetSettings().writer(target.sink, schema) as writer:
        for places in itertools.chain([first], tables):
            rows = data.take(places["row"].to_numpy(), data.columns).table
            writer.write_table(pa.table([*rows.columns, *places.columns], schema=schema))
    return dataset.folder.url(path)


def _report_base(dataset: Dataset, suite: Suite) -> str:
    """The folder of the report: that of the run which made the version, so that both are kept as long."""
    manifest = dataset.manifest
    run = manifest.ledger.rpartition("/")[2] if manifest.ledger else f"v{manifest.version:08d}"
    return f"reports/{run}/{suite.hash[:HASH_DIGITS]}"


def short_failures(judged: Judged) -> list[str]:
    """One line a failing expectation, for a terminal."""
    from gristmill.validators.words import describe

    lines = []
    for result in judged.failed[:FAILED_SHOWN]:
        config, found = result["expectation_config"], result["result"]
        text = describe(config["type"], config["kwargs"])
        if message := report.exception_message(result):
            text += f": could not be evaluated: {message.splitlines()[0][:300]}"
        elif "unexpected_count" in found and "element_count" in found:
            text += f": {found['unexpected_count']:,} of {found['element_count']:,} rows do not"
        elif found.get("observed_value") is not None:
            text += f": found {str(found['observed_value'])[:200]}"
        lines.append(f"{report.severity(result)}: {text}")
    more = len(judged.failed) - FAILED_SHOWN
    return [*lines, f"and {more:,} more"] if more > 0 else lines
