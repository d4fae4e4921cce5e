"""The gate of a dataset version: its suites judged, the verdict kept beside the content it is about, with a report and the bad rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gristmill.errors import DatasetError, InputError, SuiteError, TaintedVersionError
from gristmill.storage.dataset import Dataset
from gristmill.storage.versions import now
from gristmill.validators import history, report
from gristmill.validators.api import validate
from gristmill.validators.drift import compare
from gristmill.validators.inputs import Data, open_data
from gristmill.validators.profile import Profile, profile
from gristmill.validators.quarantine import write_bad_rows
from gristmill.validators.reference import version_before
from gristmill.validators.suites import Suite, load_suite
from gristmill.validators.verdict import Verdict, exception_message
from gristmill.validators.words import basis, describe

HASH_DIGITS = 16
TREND = 10  # versions
FAILED_SHOWN = 20


@dataclass(frozen=True)
class Judged:
    """A verdict and what its report shows. dataset: the whole version that was judged; None for other data, single splits and estimates."""

    verdict: Verdict
    data: Data
    facts: report.Facts
    dataset: Dataset | None


@dataclass(frozen=True)
class Kept:
    """A verdict as its file has it, with the URLs of file, report and bad rows (None if there are none)."""

    verdict: Mapping[str, Any]
    path: str
    report: str
    bad_rows: str | None

    @property
    def success(self) -> bool:
        """Whether the suite let it pass."""
        return self.verdict["success"] is True


def gate_entry(suite: Suite) -> str:
    """How a manifest's gate names a suite: NAME@HASH. Another suite of the same name does not open the gate."""
    return f"{suite.name}@{suite.hash[:HASH_DIGITS]}"


def verdict_path(fingerprint: str, suite_hash: str, number: int = 1) -> str:
    """Where a verdict is kept. number: 2 and on where the same suite came to another verdict before, such as after a disk error."""
    return f"verdicts/{fingerprint}/{suite_hash}{'' if number == 1 else f'~{number}'}.json"


def not_empty(suite: Suite) -> Suite:
    """The suite, which says something.

    Raises:
        SuiteError: it has no expectations.
    """
    if not suite.entries:
        raise SuiteError(f"suite '{suite.name}' has no expectations: it would let everything pass")
    return suite


def judge(dataset: Dataset, suite: Any, *, again: bool = True, consequence: str = "", **options: Any) -> Kept:
    """The verdict of a suite on a version or candidate, kept beside it with its report, its bad rows and the version's profile.

    again: evaluate also where a verdict is kept already. consequence: one sentence for the report. options: of `validate`.

    Raises:
        SuiteError: a suite that can't be evaluated as written.
        DatasetError, InputError: the version can't be read.
    """
    loaded = load_suite(suite)
    if not again and (kept := kept_verdict(dataset, loaded)) is not None:
        return kept
    return keep(judge_data(dataset, loaded, **options), consequence)


def judge_data(data: Any, suite: Any, *, split: str | None = None, **options: Any) -> Judged:
    """The verdict of a suite on anything that `open_data` takes, and the facts for its report. Nothing is kept but a version's profile.

    options: of `validate`. Raises as `judge` does.
    """
    loaded = not_empty(load_suite(suite))
    opened = open_data(data, split=split)
    verdict = validate(opened, loaded, **options)
    dataset = opened.dataset if split is None and not options.get("approximate") else None
    if dataset is None:
        return Judged(
            verdict, opened, report.Facts(verdict.to_json_dict(), verdict.shards, now(), profile(opened)), None
        )
    found = history.kept_profile(dataset)
    facts = report.Facts(verdict.to_json_dict(), verdict.shards, now(), found)
    return Judged(verdict, opened, _with_past(facts, found, dataset), dataset)


def _with_past(facts: report.Facts, found: Profile, dataset: Dataset) -> report.Facts:
    """The facts with drift against the version before, and the trend of those whose profiles are kept.

    An old version that can't be read is told in the report; it says nothing about this one.
    """
    before = version_before(dataset)
    if before is None:
        return facts
    try:
        old = history.kept_profile(before)
    except (DatasetError, InputError) as error:
        facts = replace(facts, before_problem=str(error))
    else:
        facts = replace(facts, before=old, drift=compare(old, found))
    return replace(
        facts,
        before_name=before.name,
        trend=history.trend(dataset, TREND, known=True),
        unusual=history.unusual_metrics(dataset, TREND, known=True),
    )


def keep(judged: Judged, consequence: str = "") -> Kept:
    """Keeps the verdict on a whole version: its file, made only if absent, the report, and the bad rows where something failed.

    Raises:
        TaintedVersionError: rows of it were erased while it was judged; nothing stays, as what says why would show them.
    """
    dataset, verdict = judged.dataset, judged.verdict
    assert dataset is not None
    folder, base = dataset.folder, _report_base(dataset, verdict.suite_hash)
    found_bad = bool(verdict.failed) and write_bad_rows(verdict, judged.data, folder, f"{base}/bad_rows.parquet") > 0
    facts = replace(judged.facts, consequence="" if verdict.success else consequence)
    folder.write_atomic(f"{base}/validation.html", report.render(facts).encode())
    links = {"report": f"{base}/validation.html", "bad_rows": f"{base}/bad_rows.parquet" if found_bad else None}
    plain = {**facts.verdict, "suite": verdict.suite_name, "created": facts.created, **links}
    path = _record(dataset, plain)
    if dataset.is_erased():  # looked for last: an erasure leaves its mark before it removes files
        for made in filter(None, (path, *links.values())):
            folder.delete(made)
        text = (
            f"{dataset.name}: rows of it were erased, or it was rejected, while it was judged: nothing of that is kept"
        )
        raise TaintedVersionError(f"{text}; validate a newer version", version=dataset.version)
    return _kept(dataset, plain, path)


def kept_verdict(dataset: Dataset, suite: Suite) -> Kept | None:
    """The newest verdict of the suite on this content, or None; one in which an expectation could not be evaluated doesn't count."""
    found = [verdict for verdict in dataset.verdicts if verdict.get("suite_hash") == suite.hash]
    if not found or any(exception_message(result) for result in found[-1]["results"]):
        return None
    return _kept(dataset, found[-1], verdict_path(dataset.fingerprint, suite.hash, len(found)))


def short_failures(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each of the first 20 expectations that fail, critical ones first, for a terminal."""
    failed = sorted(
        (each for each in results if not each["success"]),
        key=lambda each: report.SEVERITIES.index(report.severity(each)),
    )
    lines = []
    for result in failed[:FAILED_SHOWN]:
        config, found = result["expectation_config"], result["result"]
        text = describe(config["type"], config["kwargs"])
        if message := exception_message(result):
            text += f": could not be evaluated: {message.splitlines()[0][:300]}"
        elif "unexpected_count" in found and "element_count" in found:
            text += f": {found['unexpected_count']:,} of {found['element_count']:,} rows do not"
        elif found.get("observed_value") is not None:
            text += f": found {str(found['observed_value'])[:200]}"
        based = f" ({basis(result)})" if result.get("approximate") else ""
        lines.append(f"{report.severity(result)}: {text}{based}")
    more = len(failed) - FAILED_SHOWN
    return [*lines, f"and {more:,} more"] if more > 0 else lines


def _record(dataset: Dataset, verdict: Mapping[str, Any]) -> str:
    """Where the verdict is now: a file made only if absent, or the newest one that is there, if it came to the same."""
    content = json.dumps(verdict, indent=1).encode() + b"\n"
    number = 1
    while True:
        path = verdict_path(dataset.fingerprint, verdict["suite_hash"], number)
        try:
            dataset.folder.create(path, content)
        except FileExistsError:
            newest = not dataset.folder.exists(verdict_path(dataset.fingerprint, verdict["suite_hash"], number + 1))
            if newest and json.loads(dataset.folder.read_bytes(path))["success"] == verdict["success"]:
                return path
            number += 1
        else:
            return path


def _kept(dataset: Dataset, verdict: Mapping[str, Any], path: str) -> Kept:
    url = dataset.folder.url
    return Kept(
        verdict, url(path), url(verdict["report"]), url(verdict["bad_rows"]) if verdict.get("bad_rows") else None
    )


def _report_base(dataset: Dataset, suite_hash: str) -> str:
    """The folder of the report: that of the run which made the version, so that both are kept as long."""
    manifest = dataset.manifest
    run = manifest.ledger.rpartition("/")[2] if manifest.ledger else f"v{manifest.version:08d}"
    return f"reports/{run}/{suite_hash[:HASH_DIGITS]}"
