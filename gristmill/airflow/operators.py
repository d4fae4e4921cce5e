"""Operators that run gristmill's command line as a process, in Airflow's environment or in another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import AssetAlias, BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from gristmill.airflow import summaries
from gristmill.airflow.credentials import connection_env
from gristmill.airflow.links import ReportLink
from gristmill.airflow.process import Finished, Process, command_line

DATASETS = AssetAlias("gristmill_datasets")
"""Gets an event for every version that is published. The assets behind it are the datasets."""


RETRIES: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(hours=1),
}


class GristmillOperator(BaseOperator):
    """The result of any gristmill command that knows `--json`, as a dict.

    arguments: the command and its arguments, such as ["verify", "shards/docs"]; templated. python: of another environment that has gristmill; None
    is Airflow's own. cwd: what relative paths are relative to. env: further variables. conn_id: a Connection whose credentials the command gets.
    data_failed: what exit status 1 does, "fail" (at once, without retries) or "return" the result all the same. map_name: what a mapped task is called
    in the UI, by map_index_template="{{ task.map_name }}".

    The command's log is the task's log. It ends with the task: its whole process group is stopped, also where the worker is killed. A retry resumes,
    as every gristmill command does. Bad input and usage fail at once; a run that failed for other reasons is tried again, by default 3 times after 1, 2, 4 minutes.
    Airflow asks for the number before it makes an operator of `partial(...).expand(...)`: give `retries` there, or to the DAG's default_args.
    """

    template_fields: Sequence[str] = ("arguments", "python", "cwd", "env", "conn_id", "map_name")
    ui_color = "#e9dfc8"
    operator_extra_links = (ReportLink(),)

    def __init__(
        self,
        *,
        arguments: Sequence[str] | None = None,
        python: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        conn_id: str | None = None,
        data_failed: str = "fail",
        map_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        given = {
            **(kwargs.get("default_args") or {}),
            **kwargs,
        }  # Airflow lays a DAG's default_args under an operator's only later
        super().__init__(**kwargs, **{name: value for name, value in RETRIES.items() if name not in given})
        if data_failed not in ("fail", "return"):
            raise ValueError(f"data_failed='{data_failed}': 'fail' or 'return'")
        self.arguments = arguments
        self.python = python
        self.cwd = cwd
        self.env = env
        self.conn_id = conn_id
        self.data_failed = data_failed
        self.map_name = map_name
        self.report: str | None = None
        self.ran: str | None = None
        self._process: Process | None = None

    def execute(self, context: Context) -> Any:
        """See the class."""
        finished = self.run(self.command())
        result = finished.result or {}
        self.report = summaries.absolute(result["report_path"], self.cwd) if result.get("report_path") else None
        return self.summary(result)

    def command(self) -> list[str]:
        """The arguments of `gristmill`."""
        if not self.arguments:
            raise AirflowFailException(
                "arguments is empty: give a gristmill command, such as ['verify', 'shards/docs']"
            )
        return [str(argument) for argument in self.arguments]

    def summary(self, result: dict[str, Any]) -> Any:
        """What goes into the XCom."""
        return summaries.of_command(self.command(), result, self.cwd)

    def run(self, arguments: Sequence[str], accept: Sequence[int] = ()) -> Finished:
        """The finished gristmill command, if its exit status is 0 or accepted; raises as `start` does."""
        return self.start(command_line(arguments, self.python), shown(arguments), accept)

    def start(self, command: Sequence[str], text: str, accept: Sequence[int] = ()) -> Finished:
        """The finished command, if its exit status is 0 or accepted. text: what is said of it in the log and in errors.

        Raises:
            AirflowFailException: the data failed a check, or the use or the input is wrong. No retry.
            AirflowException: it could not finish. Retried.
        """
        finished = self.launch(command, text)
        if finished.status == 0 or finished.status in accept:
            return finished
        if finished.status == 1 and self.data_failed == "return" and finished.result is not None:
            return finished
        error_text = f"{text} ended with {finished.status}: {finished.error or summaries.problems(finished.result) or 'no message'}"
        if finished.status in (1, 2):
            raise AirflowFailException(error_text)
        if finished.status == 127:
            raise AirflowFailException(f"{error_text}. `python` must be the path of a Python that has gristmill")
        raise AirflowException(error_text)

    def launch(
        self, command: Sequence[str], text: str, env: Mapping[str, str] | None = None, *, only_log: bool = False
    ) -> Finished:
        """The finished command, whatever its exit status. env: further variables. only_log: its stdout goes to the log too.

        Raises:
            AirflowFailException: `cwd` is no folder. No retry.
            AirflowException: the task was stopped before.
        """
        if self._process is not None and self._process.was_stopped:
            raise AirflowException("the task was stopped")
        self.ran = text
        variables = {**connection_env(self.conn_id), **(self.env or {}), **(env or {})}
        self._process = Process(command, env=variables, cwd=self.cwd, only_log=only_log)
        self.log.info("%s", text)
        try:
            return self._process.run(lambda line: self.log.info("%s", line))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise AirflowFailException(
                f"can't start in '{self.cwd}': {error.strerror}; set cwd to a folder that the worker has"
            ) from error

    def next_step(self) -> str | None:
        """What to do once it has failed, for alerts; None where there is nothing better than to clear it."""
        return None

    def on_kill(self) -> None:
        """Stops the command and all that it started."""
        if self._process is not None:
            self._process.stop()


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
        return _plan_again(self.pipeline)

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
        return _plan_again(self.pipeline)

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
    """data, suite, verdict ("passed", "warned", "failed" or, without a suite, "unverified"), rows, and what was not met.

    data: a dataset, DATASET@VERSION, DATASET@CANDIDATE, or Parquet, CSV or JSONL files. Fails closed: a critical expectation that isn't met, one that
    can't be evaluated and a suite that is missing all fail the task at once, without retries; the XCom `verdict` says why, also then.
    required: no suite at all is a failure too.
    """

    template_fields: Sequence[str] = (*GristmillOperator.template_fields, "data", "suite", "quarantine", "report_file")

    def __init__(
        self,
        *,
        data: str,
        suite: str | None = None,
        quarantine: str | None = None,
        report_file: str | None = None,
        required: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.required = required
        self.data = data
        self.suite = suite
        self.quarantine = quarantine
        self.report_file = report_file

    def execute(self, context: Context) -> Any:
        """See the class."""
        if self.suite in (None, "", "None"):
            if self.required:
                raise AirflowFailException(
                    f"no suite for {self.data}: name one, or write one with: gristmill profile {self.data} --suite suites/NAME.json"
                )
            self.log.warning("no suite: %s is not validated", self.data)
            return {"data": self.data, "suite": None, "verdict": "unverified", "unmet": 0, "expectations": []}
        finished = self.run(self.command(), accept=(1,))
        if finished.result is None or "success" not in finished.result:
            raise AirflowFailException(f"{shown(self.command())} gave no verdict: {finished.error or 'no message'}")
        found = summaries.of_verdict(finished.result, self.data)
        if finished.status == 1:
            found["verdict"] = "failed"
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
        return found

    def command(self) -> list[str]:
        options = [
            word
            for name, value in (("--quarantine", self.quarantine), ("--report", self.report_file))
            if value
            for word in (name, value)
        ]
        return ["validate", self.data, "--suite", str(self.suite), *options]

    def next_step(self) -> str:
        return look_and_settle(self.data)


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
        if is_version(name):
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
        return f"gristmill show {self.target}; gristmill publish {self.target}"

    def _version(self, dataset: str) -> dict[str, Any] | None:
        found = self.run(["show", dataset], accept=(2,)).result
        return summaries.of_version(found, self.cwd) if found else None

    def _refused(self, finished: Finished, name: str, newest: Mapping[str, Any] | None) -> AirflowException:
        """The error: without a retry where trying again can't help, as when another run published since the candidate was made."""
        text = f"{shown(['publish', self.target])} ended with {finished.status}: {finished.error}"
        if finished.status == 2:
            return AirflowFailException(text)
        parent = (self.run(["show", self.target], accept=(2,)).result or {}).get("parent")
        if newest is not None and parent != newest["version"]:
            return AirflowFailException(
                f"{text} The candidate {name} was made before version {newest['version']}: clear the task that made it."
            )
        return AirflowException(text)


def emit(
    context: Context, alias: AssetAlias, name: str, cwd: str | None, extra: Mapping[str, Any], suffix: str = ""
) -> None:
    """Adds an event of an asset called `name`, a path or URL that is also its URI; the running task must have the alias as an outlet."""
    from airflow.sdk import Asset

    place = summaries.absolute(name, cwd)
    uri = place if "://" in place else f"file://{place}"
    context["outlet_events"][alias].add(
        Asset(name=f"{name}{suffix}", uri=f"{uri}{suffix}", group="gristmill"), extra=dict(extra)
    )


def is_version(name: str) -> bool:
    """Whether what follows the @ of a dataset is a version's number, not a candidate's name."""
    return name.isdecimal() and len(name) < 16


def look_and_settle(data: str) -> str:
    """What to do about data that failed a check: a candidate can be rejected, a version rolled back."""
    dataset, at, name = str(data).rpartition("@")
    if not at:
        return "read the task's log, mend the data or the suite and clear the task"
    settle = f"rollback {dataset} VERSION" if is_version(name) else f"reject {data}"
    return f"gristmill show {data}; mend the source or the suite and clear the task, or: gristmill {settle}"


def _plan_again(pipeline: str) -> str:
    return f"gristmill plan {pipeline}; then clear the task: what is finished is not done again"


def shown(arguments: Sequence[str]) -> str:
    """The command as one would type it."""
    import shlex

    return shlex.join(["gristmill", *map(str, arguments)])


def _sets(settings: Sequence[str] | None) -> list[str]:
    return [word for setting in settings or () for word in ("--set", str(setting))]
