"""Every new version once more, as a whole: its suite, drift against the last good version, leakage between its splits. Fails closed.

Starts on the assets that gristmill_etl publishes. A version that passes is an event of `gristmill_validated`; gristmill_training_ready starts on it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, task, task_group

from gristmill.airflow import DATASETS
from gristmill.airflow.approval import GristmillApprovalOperator
from gristmill.airflow.assets import VALIDATED
from gristmill.airflow.checks import GristmillCheckOperator, accept_version
from gristmill.airflow.forms import validate_params
from gristmill.airflow.of_project import ProjectValidateOperator
from gristmill.airflow.settings import settings
from gristmill.airflow.tasks import list_versions

config = settings()

with DAG(
    "gristmill_validate",
    description="The suite, drift and leakage of every published version",
    schedule=DATASETS,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args=config.default_args,
    params=validate_params(),
    doc_md=__doc__,
    tags=["gristmill"],
) as dag:

    @task_group
    def each(dataset: str, version: int, target: str, asset: str, suite: str) -> None:
        common = {
            **config.process,
            "pool": config.pool,
            "map_index_template": "{{ task.map_name }}",
            "map_name": target,
        }
        checks = [
            ProjectValidateOperator(task_id="suite", data=target, suite=suite, required=True, **common),
            GristmillCheckOperator(
                task_id="drift", check="drift", data=target, on_found="{{ params.drift }}", **common
            ),
            GristmillCheckOperator(
                task_id="leakage", check="leakage", data=target, on_found="{{ params.leakage }}", **common
            ),
        ]
        found = [check.output for check in checks]
        approve = GristmillApprovalOperator(
            task_id="approve",
            found=found,
            wanted="{{ params.approve_warnings }}",
            subject="Is this version good enough to train on?",
            body="It passed with warnings: see the logs of suite, drift and leakage of this run.",
        )
        approve >> task(accept_version, task_id="accept", outlets=[VALIDATED])(dataset, version, asset, found)

    each.expand_kwargs(task(list_versions, task_id="versions")())
