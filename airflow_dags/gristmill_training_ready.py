"""Every mix of the project whose datasets all passed: its versions are pinned, the loader streams it, the training command runs.

Starts on the versions that gristmill_validate accepts. A mix waits (its tasks are skipped) until all of its datasets have passed.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, task, task_group

from gristmill.airflow.assets import VALIDATED
from gristmill.airflow.forms import training_params
from gristmill.airflow.settings import settings
from gristmill.airflow.tasks import list_mixes, pin_mix
from gristmill.airflow.training import GristmillStreamCheckOperator, GristmillTrainOperator

config = settings()

with DAG(
    "gristmill_training_ready",
    description="Mixes of datasets that all passed: checked with the loader, then trained on",
    schedule=VALIDATED,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=config.default_args,
    params=training_params(),
    doc_md=__doc__,
    tags=["gristmill"],
) as dag:

    @task_group
    def each(path: str) -> None:
        pinned = task(pin_mix, task_id="pin", multiple_outputs=True)(path)
        stream = GristmillStreamCheckOperator(
            task_id="stream", mix=pinned["mix"], stream=pinned["stream"], pool=config.pool, **config.process
        )
        train = GristmillTrainOperator(
            task_id="train",
            command=pinned["command"],
            mix=pinned["mix"],
            stream=pinned["stream"],
            pool=config.pool,
            **config.process,
        )
        stream >> train

    each.expand_kwargs(task(list_mixes, task_id="mixes")())
