"""Operators and tasks around whole versions: drift, leakage, integrity, collection, and what is made of their outcomes."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import Context, get_current_context
from airflow.sdk.exceptions import AirflowFailException

from gristmill.airflow import accepted, advice, summaries
from gristmill.airflow.assets import VALIDATED, emit
from gristmill.airflow.base import GristmillOperator, shown
from gristmill.airflow.settings import settings


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
        finished = self.start(command, shlex.join(command), accept=(1,))
        found = finished.result
        if found is None:
            raise AirflowFailException(finished.said(str(self.ran)))
        context["ti"].xcom_push(key="verdict", value=found)
        for each in found["found"]:
            self.log.warning("%s: %s", self.check, each)
        self.log.info("%s", checked(found))
        if found["found"] and self.on_found != "warn":
            raise AirflowFailException(f"{self.check} of {self.data}: {'; '.join(found['found'][:5])}")
        return found

    def next_step(self) -> str:
        return advice.look_and_settle(self, self.data, suite=False)


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
        return f"{shown(self.command())}; run its pipeline again, or: gristmill rollback {self.dataset} VERSION"

    def summary(self, result: dict[str, Any]) -> Any:
        self.log.info("version %s of %s is whole", result.get("version"), result.get("path"))
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
        self.log.info("%s", summaries.in_a_line(found))
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


def checked(found: Mapping[str, Any]) -> str:
    """What a check found, in a line."""
    if found["verdict"] == "unverified":
        nothing = "no good version before this one" if found["check"] == "drift" else "fewer than two splits with rows"
        return f"{found['check']}: nothing to compare, {nothing}"
    against = f" against version {found['against']}" if found.get("against") else ""
    return f"{found['check']}{against}: {found['verdict']}, {len(found['found'])} findings"


def verdict_of(found: Sequence[Mapping[str, Any]]) -> str:
    """`warned` where one of the checks has something to say, else `passed`. A check that failed has stopped the run before."""
    return "warned" if any(each.get("verdict") == "warned" for each in found) else "passed"
