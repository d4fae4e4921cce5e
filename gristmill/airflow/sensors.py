"""A sensor that waits for a new version of a dataset without holding a worker."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator, Context
from airflow.sdk.exceptions import AirflowException

from gristmill.airflow.credentials import connection_env
from gristmill.airflow.versions import newest_version


class GristmillVersionSensor(BaseSensorOperator):
    """dataset, version, rows, fingerprint and verdicts of the dataset's newest version, once that is newer than `after`.

    after: a version; 0 waits for the first one, None for one that is newer than what is there when the task starts. The dataset need not exist yet.
    deferrable: waits in the triggerer (default); else in the worker, by `mode`. A folder is listed; for a URL `gristmill show` is run each time.
    """

    template_fields: Sequence[str] = ("dataset", "after", "python", "cwd", "conn_id")
    ui_color = "#dbe7e4"

    def __init__(
        self,
        *,
        dataset: str,
        after: int | str | None = None,
        python: str | None = None,
        cwd: str | None = None,
        conn_id: str | None = None,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.after = after
        self.python = python
        self.cwd = cwd
        self.conn_id = conn_id
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """See the class."""
        after = self._after()
        self.log.info("waiting for a version of %s after %s", self.dataset, after or "none")
        self.after = after
        if not self.deferrable:
            return super().execute(context)
        if (found := self._look()) is not None:
            return found
        from gristmill.airflow.triggers import GristmillVersionTrigger

        trigger = GristmillVersionTrigger(
            self.dataset, after, self.poke_interval, python=self.python, cwd=self.cwd, conn_id=self.conn_id
        )
        return self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))

    def poke(self, context: Context) -> Any:
        """Whether there is a newer version, with its facts."""
        from airflow.sdk import PokeReturnValue

        found = self._look()
        return PokeReturnValue(is_done=found is not None, xcom_value=found)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """The facts that the trigger found."""
        if "error" in event:
            raise AirflowException(event["error"])
        return event

    def _after(self) -> int:
        if self.after not in (None, "", "None"):
            return int(str(self.after))
        found = newest_version(self.dataset, python=self.python, cwd=self.cwd, env=connection_env(self.conn_id))
        return found["version"] if found else 0

    def _look(self) -> dict[str, Any] | None:
        found = newest_version(
            self.dataset, python=self.python, cwd=self.cwd, env=connection_env(self.conn_id), after=int(str(self.after))
        )
        return found if found and found["version"] > int(str(self.after)) else None
