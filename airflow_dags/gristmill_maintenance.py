"""Every dataset of the project: all files of its newest version are read and compared with its manifest, then old versions and orphans go.

A dataset that isn't whole is left as it is: nothing of it is removed.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, CronDataIntervalTimetable, task, task_group

from gristmill.airflow.checks import GristmillGcOperator, GristmillVerifyOperator
from gristmill.airflow.forms import maintenance_params
from gristmill.airflow.settings import settings
from gristmill.airflow.tasks import list_datasets

config = settings()

with DAG(
    "gristmill_maintenance",
    description="Verifies every dataset, then removes old versions and orphans",
    schedule=CronDataIntervalTimetable(config.maintenance_schedule, timezone="UTC"),
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=config.default_args,
    params=maintenance_params(config.keep),
    doc_md=__doc__,
    tags=["gristmill"],
) as dag:

    @task_group
    def each(dataset: str) -> None:
        common = {
            **config.process,
            "pool": config.pool,
            "map_index_template": "{{ task.map_name }}",
            "map_name": dataset,
        }
        verify = GristmillVerifyOperator(task_id="verify", dataset=dataset, fast="{{ params.fast }}", **common)
        collect = GristmillGcOperator(
            task_id="gc", dataset=dataset, keep="{{ params.keep }}", dry_run="{{ params.dry_run }}", **common
        )
        verify >> collect

    each.expand_kwargs(task(list_datasets, task_id="datasets")())
