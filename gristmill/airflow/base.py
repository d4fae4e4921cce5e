"""The operator that runs any gristmill command as a process, in Airflow's environment or in another one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from gristmill.airflow import summaries
from gristmill.airflow.credentials import connection_env
from gristmill.airflow.links import ReportLink
from gristmill.airflow.process import NOT_FOUND, PYTHON_HINT, Finished, Process, command_line

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

    The command's log is the task's log, and its result a line of it. It ends with the task: its whole process group is stopped, also where the worker is killed. A retry resumes,
    as every gristmill command does. Bad input and usage fail at once; a run that failed for other reasons is tried again, by default 3 times after 1, 2, 4 minutes.
    Airflow asks for the number before it makes an operator of `partial(...).expand(...)`: give `retries` there, or to the DAG's default_args.
    """

    template_fields: Sequence[str] = ("arguments", "python", "cwd", "env", "conn_id", "map_name")
    ui_color = "#e9dfc8"
    operator_extra_links = (ReportLink(),)
    makes_data = False

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
        found = summaries.of_command(self.command(), result, self.cwd)
        self.log.info("%s", summaries.in_a_line(found))
        return found

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
        error_text = finished.said(text, summaries.problems(finished.result))
        if finished.status == NOT_FOUND:
            raise AirflowFailException(f"{error_text}. {PYTHON_HINT}")
        raise (AirflowFailException if finished.status in (1, 2) else AirflowException)(error_text)

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


def shown(arguments: Sequence[str]) -> str:
    """The command as one would type it."""
    return shlex.join(["gristmill", *map(str, arguments)])
