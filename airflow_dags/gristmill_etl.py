"""Every pipeline of the project on a schedule: plan, run to a candidate, validate it, publish it or leave it.

A published version is an event of its dataset's asset, with version, rows, fingerprint and verdict; gristmill_validate starts on it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, CronDataIntervalTimetable, task, task_group

from gristmill.airflow import (
    GristmillPlanOperator,
    GristmillPublishOperator,
    GristmillRunOperator,
    GristmillValidateOperator,
)
from gristmill.airflow.forms import etl_params
from gristmill.airflow.settings import settings
from gristmill.airflow.tasks import list_pipelines

config = settings()
SHOWN = "{{ task.map_name }}"

with (
    DAG(
        "gristmill_etl",
        description="Raw data in, a validated and published version out, for every pipeline of the project",
        schedule=CronDataIntervalTimetable(config.etl_schedule, timezone="UTC"),
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,  # in order of their dates: what a pipeline drops as a duplicate depends on what is published before
        default_args=config.default_args,
        params=etl_params(config.folder),
        doc_md=__doc__,
        tags=["gristmill"],
    ) as dag
):

    @task_group
    def each(name: str, path: str, asset: str, suite: str, settings: list[str]) -> None:
        common = {**config.process, "map_index_template": SHOWN, "map_name": name}
        plan = GristmillPlanOperator(task_id="plan", pipeline=path, settings=settings, **common)
        run = GristmillRunOperator(
            task_id="run",
            pipeline=path,
            settings=settings,
            candidate=True,
            engine="{{ params.engine }}",
            address="{{ params.address or '' }}",
            workers="{{ params.workers or '' }}",
            memory="{{ params.memory or '' }}",
            pool=config.pool,
            priority_weight=10,
            max_active_tis_per_dag=config.parallel,
            **common,
        )
        validate = GristmillValidateOperator(
            task_id="validate", data=run.output["target"], suite=suite, pool=config.pool, **common
        )
        publish = GristmillPublishOperator(
            task_id="publish",
            target=run.output["target"],
            verdict=validate.output,
            asset=asset,
            extra={"pipeline": name, "suite": suite, "counts": run.output["counts"], "report": run.output["report"]},
            **common,
        )
        plan >> run >> validate >> publish

    each.expand_kwargs(task(list_pipelines, task_id="pipelines")())
