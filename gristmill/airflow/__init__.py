"""gristmill on Airflow 3.3: operators, a sensor, `@task.gristmill`, alerts. Importing it loads nothing of Airflow until a name is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gristmill.airflow.alerts import alert, failure_text
    from gristmill.airflow.assets import DATASETS
    from gristmill.airflow.base import GristmillOperator
    from gristmill.airflow.operators import (
        GristmillPlanOperator,
        GristmillPublishOperator,
        GristmillRunOperator,
        GristmillValidateOperator,
    )
    from gristmill.airflow.sensors import GristmillVersionSensor

_PUBLIC = {
    "DATASETS": "assets",
    "GristmillOperator": "base",
    "GristmillPlanOperator": "operators",
    "GristmillPublishOperator": "operators",
    "GristmillRunOperator": "operators",
    "GristmillValidateOperator": "operators",
    "GristmillVersionSensor": "sensors",
    "alert": "alerts",
    "failure_text": "alerts",
}

__all__ = [
    "DATASETS",
    "GristmillOperator",
    "GristmillPlanOperator",
    "GristmillPublishOperator",
    "GristmillRunOperator",
    "GristmillValidateOperator",
    "GristmillVersionSensor",
    "alert",
    "failure_text",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'gristmill.airflow' has no attribute '{name}'")
    return getattr(importlib.import_module(f"gristmill.airflow.{_PUBLIC[name]}"), name)
