"""Operators for the steps of a dataset: plan, run, validate, publish."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from gristmill.airflow import advice, summaries
from gristmill.airflow.assets import DATASETS, emit
from gristmill.airflow.base import GristmillOperator, shown
from gristmill.airflow.process import Finished


class GristmillPlanOperator(GristmillOperator):
    """What a run of the pipeline would read and redo. Changes nothing; fails at once where the pipeline file is missing or wrong."""

    template_fields: Sequence[str] = (*GristmillOperator.template_fields, "pipeline", "settings")

    def __init__(self, *, pipeline: str, settings: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.settings = settings

    def command(self) -> list[str]:
        return ["plan", self.pipeline, *_sets(self.settings)]

    def next_step(self) -> str:
        return f"{shown(self.command())}; mend what it says and clear {self.task_id}"

    def summary(self, result: dict[str, Any]) -> Any:
        found = summaries.of_plan(result)
        self.log.info(
            "to read: %d items, %.1f MB; %d items are done already",
            found["read"],
            found["read_bytes"] / 1e6,
            found["reuse"],
        )
        return found


class GristmillRunOperator(GristmillOperator):
    """dataset, target, version, candidate, counts, splits, fingerprint, report and seconds of a run, each an XCom of its own too.

    candidate: publishes nothing; `target` is then DATASET@CANDIDATE, to be validated and published. Where the newest version holds the result already
    there is no candidate and `target` is that version. engine, address, workers, memory, scratch, settings: as for `gristmill run`.
    """

    makes_data = True
    template_fields: Sequence[str] = (
        *GristmillOperator.template_fields,
        *("pipeline", "settings", "engine", "address", "workers", "memory", "scratch", "candidate"),
    )

    def __init__(
        self,
        *,
        pipeline: str,
        settings: Sequence[str] = (),
        engine: str | None = None,
        address: str | None = None,
        workers: int | str | None = None,
        memory: str | None = None,
        scratch: str | None = None,
        candidate: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.settings = settings
        self.engine = engine
        self.address = address
        self.workers = workers
        self.memory = memory
        self.scratch = scratch
        self.candidate = candidate

    def command(self) -> list[str]:
        options = {
            name: getattr(self, name)
            for name in ("engine", "address", "workers", "memory", "scratch")
            if getattr(self, name) not in (None, "", "None")
        }
        flags = ["--candidate"] if self.candidate else []
        return [
            "run",
            self.pipeline,
            *flags,
            *(word for name, value in options.items() for word in (f"--{name}", str(value))),
            *_sets(self.settings),
        ]

    def next_step(self) -> str:
        plan = shown(["plan", self.pipeline, *_sets(self.settings)])
        return f"{plan}; clear {self.task_id}: what is finished is not done again"

    def summary(self, result: dict[str, Any]) -> Any:
        found = summaries.of_run(result, self.cwd)
        counts = found["counts"]
        self.log.info(
            "%s: %s read, %s kept, %s dropped, %s quarantined in %.1f s; report: %s",
            *(
                found["target"],
                *(f"{counts[name]:,}" for name in ("read", "kept", "dropped", "quarantined")),
                found["seconds"],
                found["report"],
            ),
        )
        return found


class GristmillValidateOperator(GristmillOperator):
    """data, suite, its file, verdict ("passed", "warned", "failed" or, without a suite, "unverified"), rows, and what was not met.

    data: a dataset, DATASET@VERSION, DATASET@CANDIDATE, or Parquet, CSV or JSONL files. Fails closed: a critical expectation that isn't met, one that
    can't be evaluated and a suite that is missing all fail the task at once, without retries; the XCom `verdict` says why, also then.
    parameters: values for the suite's {"$PARAMETER": name}. required: no suite at all is a failure too.
    """

    template_fields: Sequence[str] = (
        *GristmillOperator.template_fields,
        "data",
        "suite",
        "parameters",
        "quarantine",
        "report_file",
    )

    def __init__(
        self,
        *,
        data: str,
        suite: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        quarantine: str | None = None,
        report_file: str | None = None,
        required: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.required = required
        self.data = data
        self.suite = suite
        self.parameters = parameters
        self.quarantine = quarantine
        self.report_file = report_file

    def execute(self, context: Context) -> Any:
        """See the class."""
        if self.suite in (None, "", "None"):
            if self.required:
                raise AirflowFailException(
                    f"no suite for {self.data}: name one, or write one with: gristmill profile {self.data} --suite {self.proposed_suite()}"
                )
            self.log.warning("no suite: %s is not validated", self.data)
            return {**summaries.NO_VERDICT, "data": self.data}
        finished = self.run(self.command(), accept=(1,))
        if finished.result is None or "success" not in finished.result:
            raise AirflowFailException(f"{shown(self.command())} gave no verdict: {finished.error or 'no message'}")
        found = summaries.of_verdict(finished.result, self.data)
        if finished.status == 1:
            found["verdict"] = "failed"
        found["suite_path"] = summaries.absolute(str(self.suite), self.cwd)
        report = self.report_file or finished.result.get("report")
        self.report = summaries.absolute(report, self.cwd) if report else None
        context["ti"].xcom_push(key="verdict", value=found)
        lines = [summaries.expectation_text(each) for each in found["expectations"]]
        for line in lines:
            self.log.warning("not met: %s", line)
        if found["verdict"] == "failed" and self.data_failed == "fail":
            raise AirflowFailException(
                f"{self.data} failed suite {found['suite'] or self.suite}: {'; '.join(lines[:5]) or finished.error}"
            )
        self.log.info("%s: %s", self.data, summaries.verdict_text(found))
        return found

    def proposed_suite(self) -> str:
        """Where a suite for the data could be."""
        return f"{os.path.basename(self.data.partition('@')[0].rstrip('/'))}.json"

    def command(self) -> list[str]:
        options = [
            word
            for name, value in (("--quarantine", self.quarantine), ("--report", self.report_file))
            if value
            for word in (name, value)
        ]
        for name, value in (self.parameters or {}).items():
            options += ["--parameter", f"{name}={json.dumps(value)}"]
        return ["validate", self.data, "--suite", str(self.suite), *options]

    def next_step(self) -> str:
        return advice.look_and_settle(self, self.data)


class GristmillPublishOperator(GristmillOperator):
    """dataset, version, rows, fingerprint, verdict of the version that a candidate became, also in the event that the dataset's asset gets.

    target: DATASET@CANDIDATE. Where it names a version there is nothing to publish: the task is skipped and no event is emitted. verdict: what
    GristmillValidateOperator returned. asset: the asset's name, a path (all partitions of a dataset may share one); the dataset's own by default. extra: further small facts for the event.
    """

    template_fields: Sequence[str] = (*GristmillOperator.template_fields, "target", "verdict", "asset", "extra")

    def __init__(
        self,
        *,
        target: str,
        verdict: Mapping[str, Any] | None = None,
        asset: str | None = None,
        extra: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("outlets", [DATASETS])
        super().__init__(**kwargs)
        self.target = target
        self.verdict = verdict
        self.asset = asset
        self.extra = extra

    def execute(self, context: Context) -> Any:
        """See the class."""
        dataset, _, name = self.target.rpartition("@")
        if advice.is_version(name):
            raise AirflowSkipException(f"nothing new: version {name} of {dataset} holds this already")
        finished = self.run(["publish", self.target], accept=(2, 3))
        made = (finished.result or {}).get("version")
        shown_version = self._version(f"{dataset}@{made}" if made else dataset)
        if finished.status and not (shown_version or {}).get("fingerprint", "").startswith(
            name
        ):  # else an earlier try of this task published it
            raise self._refused(finished, name, shown_version)
        assert shown_version is not None
        outcome = self.verdict or {}
        found = {
            **(self.extra or {}),
            **{key: shown_version[key] for key in ("dataset", "version", "rows", "fingerprint")},
            "verdict": outcome.get("verdict", "unverified"),
            "suite": outcome.get("suite_path"),
            "suite_name": outcome.get("suite"),
        }
        self.log.info(
            "published version %s of %s: %s rows, %s",
            found["version"],
            found["dataset"],
            f"{found['rows']:,}",
            found["verdict"],
        )
        emit(context, DATASETS, self.asset or str(found["dataset"]), self.cwd, found)
        return found

    def next_step(self) -> str:
        return f"gristmill show {self.target}; clear {self.task_id}, or: gristmill publish {self.target}"

    def _version(self, dataset: str) -> dict[str, Any] | None:
        found = self.run(["show", dataset], accept=(2,)).result
        return summaries.of_version(found, self.cwd) if found else None

    def _refused(self, finished: Finished, name: str, newest: Mapping[str, Any] | None) -> AirflowException:
        """The error: without a retry where trying again can't help, as when another run published since the candidate was made."""
        text = finished.said(shown(["publish", self.target]))
        if finished.status == 2:
            return AirflowFailException(text)
        parent = (self.run(["show", self.target], accept=(2,)).result or {}).get("parent")
        if newest is not None and parent != newest["version"]:
            return AirflowFailException(
                f"{text} The candidate {name} was made before version {newest['version']}: clear {advice.makers(self)}."
            )
        return AirflowException(text)


def _sets(settings: Sequence[str] | None) -> list[str]:
    return [word for setting in settings or () for word in ("--set", str(setting))]
