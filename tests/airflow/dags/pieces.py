"""DAGs for the tests: TaskFlow, the sensor, and a command of another Python."""

from __future__ import annotations

import datetime as dt
import os

from airflow.sdk import dag, task

from gristmill.airflow import GristmillRunOperator, GristmillVersionSensor

FOLDER = os.environ.get("GRISTMILL_FOLDER", ".")


@dag(
    schedule=None, start_date=dt.datetime(2024, 1, 1), params={"pipeline": "pipelines/daily.yaml", "day": "2026-01-01"}
)
def pieces_taskflow():
    @task.gristmill(cwd=FOLDER, retries=0)
    def run(params=None) -> list[str]:
        day = params["day"]
        return [
            "run",
            params["pipeline"],
            "--set",
            f"sources.0.path=raw/daily/{day}/*.jsonl",
            "--set",
            f"output.path=shards/daily/{day}",
        ]

    @task
    def rows(found: dict) -> int:
        return found["counts"]["kept"]

    rows(run())


@dag(
    schedule=None, start_date=dt.datetime(2024, 1, 1), params={"dataset": "shards/x", "after": "0", "deferrable": True}
)
def pieces_sensor():
    GristmillVersionSensor(
        task_id="wait",
        dataset="{{ params.dataset }}",
        after="{{ params.after }}",
        cwd=FOLDER,
        poke_interval=0.5,
        timeout=60,
        retries=0,
    )


@dag(schedule=None, start_date=dt.datetime(2024, 1, 1), params={"dataset": "shards/x"})
def pieces_sensor_reschedule():
    GristmillVersionSensor(
        task_id="wait",
        dataset="{{ params.dataset }}",
        cwd=FOLDER,
        deferrable=False,
        mode="reschedule",
        poke_interval=1,
        timeout=120,
        retries=0,
    )


@dag(schedule=None, start_date=dt.datetime(2024, 1, 1), params={"dataset": "s3://bucket/x"})
def pieces_sensor_remote():
    GristmillVersionSensor(
        task_id="wait",
        dataset="{{ params.dataset }}",
        after=0,
        python=os.path.join(FOLDER, "telltale"),
        conn_id="lake",
        poke_interval=2,
        timeout=300,
        retries=0,
    )


@dag(schedule=None, start_date=dt.datetime(2024, 1, 1))
def pieces_python():
    GristmillRunOperator(
        task_id="run", pipeline="pipelines/daily.yaml", python=os.path.join(FOLDER, "python"), cwd=FOLDER, retries=0
    )


pieces_taskflow()
pieces_sensor()
pieces_sensor_reschedule()
pieces_sensor_remote()
pieces_python()
