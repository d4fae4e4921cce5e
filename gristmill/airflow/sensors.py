"""A sensor that waits for a new version of a dataset without holding a worker."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from airflow.sdk import BaseSensorOperator, Context
from airflow.sdk.exceptions import AirflowException

from gristmill.airflow.versions import newest_version


class GristmillVersionSensor(BaseSensorOperator):
    """dataset, version, rows, fingerprint and verdicts of the dataset's newest version, once that is newer than `after`.

    after: a version; 0 waits for the first one, None for one that is newer than what is there when the task first starts. The dataset need not exist yet.
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
        after = self._after(context)
        self.log.info("waiting for a version of %s after %s", self.dataset, after or "none")
        self.after = after
        if not self.deferrable:
            return self._seen(context, super().execute(context))
        if (found := self._look()) is not None:
            return self._seen(context, found)
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
        return self._seen(context, event)

    def _seen(self, context: Context, found: Any) -> Any:
        context["task_state_store"].delete("after")  # else, were the task cleared, it would count from there
        return found

    def _after(self, context: Context) -> int:
        if self.after not in (None, "", "None"):
            return int(str(self.after))
        store = context["task_state_store"]  # a retry, or a look in mode "reschedule", starts the task anew
        kept = store.get("after")
        if kept is None:
            found = self._newest()
            kept = found["version"] if found else 0
            store.set("after", kept)
        return int(str(kept))

    def _look(self) -> dict[str, Any] | None:
        after = int(str(self.after))
        found = self._newest(after)
        return found if found and found["version"] > after else None

    def _newest(self, after: int = -1) -> dict[str, Any] | None:
        log = partial(self.log.info, "%s")
        return newest_version(
            self.dataset, python=self.python, cwd=self.cwd, conn_id=self.conn_id, after=after, log=log
        )
