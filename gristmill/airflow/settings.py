"""The settings of the DAGs: environment variables `GRISTMILL_*`, read when a DAG file is parsed. No database, no network."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")


@dataclass(frozen=True)
class Settings:
    """What the four DAGs are told from outside.

    folder: the project, with `pipelines/*.yaml`, `suites/*.json` and `mixes/*.yaml`; relative paths in them are relative to it.
    python: of the environment that gristmill runs in; None is Airflow's own. pool: of the tasks that work on data.
    conn_id: the Connection whose credentials the commands get. retry_delay: seconds before the first retry; doubled each time, at most an hour.
    keep: versions that maintenance leaves. parallel: pipelines of one DAG that run at once (each uses all cores).
    """

    folder: Path
    python: str | None
    pool: str
    conn_id: str | None
    etl_schedule: str
    maintenance_schedule: str
    retries: int
    retry_delay: int
    keep: int
    parallel: int

    @property
    def default_args(self) -> dict[str, Any]:
        """The defaults of every task."""
        from gristmill.airflow.alerts import alert

        return {
            "owner": "gristmill",
            "retries": self.retries,
            "retry_delay": timedelta(seconds=self.retry_delay),
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": timedelta(hours=1),
            "on_failure_callback": alert,
        }

    @property
    def process(self) -> dict[str, Any]:
        """The arguments that every gristmill operator gets."""
        return {"python": self.python, "cwd": str(self.folder), "conn_id": self.conn_id}


def settings() -> Settings:
    """The settings as the environment has them now.

    Raises:
        ValueError: one that can't be meant.
    """
    get = os.environ.get
    home = Path(get("AIRFLOW_HOME") or Path.home() / "airflow")
    return Settings(
        folder=Path(get("GRISTMILL_FOLDER") or home / "gristmill"),
        python=get("GRISTMILL_PYTHON") or None,
        pool=get("GRISTMILL_POOL") or "default_pool",
        conn_id=get("GRISTMILL_CONN_ID") or None,
        etl_schedule=_schedule("GRISTMILL_ETL_SCHEDULE", "@daily"),
        maintenance_schedule=_schedule("GRISTMILL_MAINTENANCE_SCHEDULE", "@weekly"),
        retries=_number("GRISTMILL_RETRIES", 3, least=0),
        retry_delay=_number("GRISTMILL_RETRY_SECONDS", 60, least=0),
        keep=_number("GRISTMILL_KEEP", 10, least=1),
        parallel=_number("GRISTMILL_PARALLEL", 1, least=1),
    )


def _schedule(name: str, default: str) -> str:
    from croniter import croniter

    text = os.environ.get(name) or default
    if text not in PRESETS and not croniter.is_valid(text):
        raise ValueError(
            f"{name}='{text}': a cron expression of five fields is expected, such as '0 6 * * *', or one of {', '.join(PRESETS)}"
        )
    return text


def _number(name: str, default: int, least: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.strip().isdecimal() or int(text) < least:
        raise ValueError(f"{name}='{text}': a whole number from {least} on is expected, such as {default}")
    return int(text)
