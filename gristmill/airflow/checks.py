"""Operators and tasks around whole versions: drift, leakage, integrity, collection, and what is made of their outcomes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import AssetAlias, Context, get_current_context
from airflow.sdk.exceptions import AirflowFailException

from gristmill.airflow import accepted
from gristmill.airflow.operators import GristmillOperator, emit, look_and_settle
from gristmill.airflow.settings import settings

VALIDATED = AssetAlias("gristmill_validated")
"""Gets an event for every version that gristmill_validate accepts. The assets behind it are the datasets, named with `:validated`."""


class GristmillCheckOperator(GristmillOperator):
    """check, verdict ("passed", "warned" or, where there is nothing to check, "unverified") and what was found, by `python -m gristmill.airflow.data_checks`.

    check: "drift" against the last version that was accepted (in the project `cwd`), else that passed its suites, or "leakage" between splits. on_found: "fail" at once, "warn", or "off".
    """

    template_fields: Sequence[str] = (*GristmillOperator.template_fields, "data", "on_found")

    def __init__(self, *, check: str, data: str, on_found: str = "fail", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check = check
        self.data = data
        self.on_found = on_found

    def execute(self, context: Context) -> Any:
        """See the class."""
        if self.on_found == "off":
            return {"check": self.check, "verdict": "unverified", "found": []}
        command = [self.python or sys.executable, "-m", "gristmill.airflow.data_checks", self.check, self.data]
        command += [os.path.abspath(self.cwd)] if self.cwd else []
        finished = self.start(command, f"{self.check} of {self.data}", accept=(1,))
        found = finished.result
        if found is None:
            raise AirflowFailException(f"{self.ran} gave no result: {finished.error or 'no message'}")
        context["ti"].xcom_push(key="verdict", value=found)
        for each in found["found"]:
            self.log.warning("%s: %s", self.check, each)
        if found["found"] and self.on_found != "warn":
            raise AirflowFailException(f"{self.check} of {self.data}: {'; '.join(found['found'][:5])}")
        return found

    def next_step(self) -> str:
        return look_and_settle(self.data)


class GristmillVerifyOperator(GristmillOperator):
    """path, version, whole: whether every file of the newest version is what its manifest says. Fails at once where it isn't."""

    template_fields: Sequence[str] = (*GristmillOperator.template_fields, "dataset", "fast")

    def __init__(self, *, dataset: str, fast: bool | str = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.fast = fast

    def command(self) -> list[str]:
        return ["verify", self.dataset, *(["--fast"] if str(self.fast) == "True" else [])]

    def next_step(self) -> str:
        return f"gristmill verify {self.dataset}; run its pipeline again, or: gristmill rollback {self.dataset} VERSION"

    def summary(self, result: dict[str, Any]) -> Any:
        return {name: result.get(name) for name in ("path", "version", "whole")}


class GristmillGcOperator(GristmillOperator):
    """versions, files and bytes that `gristmill gc` removed; with dry_run those that would go. keep: newest versions that stay."""

    template_fields: Sequence[str] = (*GristmillOperator.template_fields, "dataset", "keep", "dry_run")

    def __init__(self, *, dataset: str, keep: int | str, dry_run: bool | str = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.keep = keep
        self.dry_run = dry_run

    def command(self) -> list[str]:
        return ["gc", self.dataset, "--keep", str(self.keep), *(["--dry-run"] if str(self.dry_run) == "True" else [])]

    def summary(self, result: dict[str, Any]) -> Any:
        found = {
            "versions": result["versions"],
            "files": len(result["files"]),
            "bytes": result["bytes"],
            "dry_run": result["dry_run"],
        }
        self.log.info("%s", found)
        return found


def accept_version(dataset: str, version: int, asset: str | None, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The accepted version, which is also the event of its asset, and is kept in the project: only what is there is trained on."""
    facts: dict[str, Any] = {
        "dataset": dataset,
        "version": version,
        "fingerprint": found[0]["fingerprint"],
        "verdict": verdict_of(found),
        "suite": found[0].get("suite"),
        "rows": found[0].get("rows"),
    }
    accepted.accept(settings().folder, facts)
    emit(get_current_context(), VALIDATED, asset or dataset, str(settings().folder), facts, suffix=":validated")
    return facts


def verdict_of(found: Sequence[Mapping[str, Any]]) -> str:
    """`warned` where one of the checks has something to say, else `passed`. A check that failed has stopped the run before."""
    return "warned" if any(each.get("verdict") == "warned" for each in found) else "passed"
