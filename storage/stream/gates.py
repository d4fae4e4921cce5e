"""Whether a dataset version may be streamed: the verdicts that its gate asks for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from gristmill.errors import UsageError, VerdictError, capped

log = logging.getLogger("gristmill.stream")


def check_verdict(dataset: Any, require: bool | str | None) -> None:
    """Refuses a version whose verdicts don't allow training on it.

    require None: every suite of the version's own gate must have passed (a version without a gate is free); True: at least one suite, and all of its gate; a name: that
    suite; False: nothing, but a warning is logged for a gate that has not been passed.

    Raises:
        VerdictError: with what to run.
    """
    if dataset is None:
        if require:
            raise UsageError(
                f"require_verdict={require!r}: plain Parquet files have no verdicts; stream a dataset version, or leave it out"
            )
        return
    passed, failed = outcomes(dataset)
    gate = list(dataset.manifest.gate)
    needed = [require] if isinstance(require, str) else gate
    missing = [name for name in needed if name not in passed]
    if require is False:
        if missing:
            log.warning("%s is streamed though its gate has not been passed: %s", dataset.name, capped(missing))
        return
    if missing:
        raise VerdictError(_text(dataset, missing, failed), suites=missing)
    if require is True and not passed:
        raise VerdictError(
            f"{dataset.name} has no passing verdict. Run: gristmill validate {dataset.name} --suite SUITE.json",
            suites=[],
        )


def outcomes(dataset: Any) -> tuple[set[str], set[str]]:
    """(the suites that passed, those that failed): for each the newest verdict counts; see `suite_names`."""
    passed: set[str] = set()
    failed: set[str] = set()
    for verdict in dataset.verdicts:
        names = suite_names(verdict)
        good = verdict.get("success") is True
        (passed if good else failed).update(names)
        (failed if good else passed).difference_update(names)
    return passed, failed


def suite_names(verdict: Mapping[str, Any]) -> set[str]:
    """What a verdict's suite may be called: its name, its hash, and NAME@HASH with 16 digits, as gates of pipelines have it: another suite of
    the same name does not open those.
    """
    names = {str(verdict[key]) for key in ("suite", "suite_name", "suite_hash") if verdict.get(key)}
    if verdict.get("suite_hash"):
        digits = str(verdict["suite_hash"])[:16]
        names |= {f"{verdict[key]}@{digits}" for key in ("suite", "suite_name") if verdict.get(key)}
    return names


def _text(dataset: Any, missing: list[str], failed: set[str]) -> str:
    states = [f"'{name.partition('@')[0]}' {'failed' if name in failed else 'has not been run'}" for name in missing]
    block = (dataset.manifest.pipeline or {}).get("validate") or {}
    path = block.get("suite") or f"{missing[0].partition('@')[0]}.json"
    said = f"{dataset.name} may not be streamed: suite {capped(states)}. "
    if missing[0] in failed:
        said += f"Why: gristmill show {dataset.name}"
    else:
        said += f"Run: gristmill validate {dataset.name} --suite {path}"
    return f"{said} (require_verdict=False streams it all the same, and says so in the log)"
