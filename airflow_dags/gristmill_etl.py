"""Every pipeline of the project on a schedule: plan, run to a candidate, validate it, publish it or leave it.

A published version is an event of its dataset's asset, with version, rows, fingerprint and verdict; gristmill_validate starts on it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, CronDataIntervalTimetable, task, task_group

from gristmill.airflow import GristmillPublishOperator
from gristmill.airflow.forms import etl_params
from gristmill.airflow.of_project import ProjectPlanOperator, ProjectRunOperator, ProjectValidateOperator
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
    def each(name: str, path: str, moment: str) -> None:
        common = {**config.process, "map_index_template": SHOWN, "map_name": name}
        file = {"pipeline": path, "moment": moment}
        destination, suite = "{{ params.destination or '' }}", "{{ params.suite or '' }}"
        plan = ProjectPlanOperator(task_id="plan", destination=destination, suite=suite, **file, **common)
        run = ProjectRunOperator(
            task_id="run",
            destination=destination,
            candidate=True,
            engine="{{ params.engine }}",
            address="{{ params.address or '' }}",
            workers="{{ params.workers or '' }}",
            memory="{{ params.memory or '' }}",
            pool=config.pool,
            priority_weight=10,
            max_active_tis_per_dag=config.parallel,
            **file,
            **common,
        )
        target = run.output["target"]
        validate = ProjectValidateOperator(
            task_id="validate", data=target, suite=suite, pool=config.pool, **file, **common
        )
        publish = GristmillPublishOperator(
            task_id="publish",
            target=target,
            verdict=validate.output,
            asset=run.output["asset"],
            extra={"pipeline": name, "counts": run.output["counts"], "report": run.output["report"]},
            **common,
        )
        plan >> run >> validate >> publish

    each.expand_kwargs(task(list_pipelines, task_id="pipelines")())
