"""The trigger behind GristmillVersionSensor: looks now and then, in the triggerer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from gristmill.airflow.versions import LookError, newest_version

TRIES = 5  # looks in a row that may fail before the task does


class GristmillVersionTrigger(BaseTrigger):
    """Fires with the facts of the first version that is newer than `after`, or with {"error": text}."""

    def __init__(
        self,
        dataset: str,
        after: int,
        interval: float,
        *,
        python: str | None = None,
        cwd: str | None = None,
        conn_id: str | None = None,
    ) -> None:
        super().__init__()
        self.dataset, self.after, self.interval, self.python, self.cwd, self.conn_id = (
            dataset,
            after,
            interval,
            python,
            cwd,
            conn_id,
        )

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What the triggerer makes it from; no secrets."""
        names = ("dataset", "after", "interval", "python", "cwd", "conn_id")
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event."""
        failed = 0
        while True:
            try:
                found = await asyncio.to_thread(self._look)
            except LookError as error:
                failed += 1
                self.log.warning("%s (%d of %d)", error, failed, TRIES)
                if failed == TRIES:
                    yield TriggerEvent({"error": str(error)})
                    return
            else:
                failed = 0
                if found and found["version"] > self.after:
                    yield TriggerEvent(found)
                    return
            await asyncio.sleep(self.interval)

    def _look(self) -> dict[str, Any] | None:
        log = partial(self.log.info, "%s")
        return newest_version(
            self.dataset, python=self.python, cwd=self.cwd, conn_id=self.conn_id, after=self.after, log=log
        )
