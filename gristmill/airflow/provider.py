"""What Airflow asks a provider about itself."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """The operators, decorator, link and plugin that come with gristmill."""
    return {
        "package-name": "gristmill",
        "name": "gristmill",
        "description": "Runs, validates and publishes gristmill datasets.",
        "integrations": [
            {
                "integration-name": "gristmill",
                "external-doc-url": "https://github.com/gristmill/gristmill",
                "tags": ["software"],
            }
        ],
        "operators": [{"integration-name": "gristmill", "python-modules": ["gristmill.airflow.operators"]}],
        "sensors": [{"integration-name": "gristmill", "python-modules": ["gristmill.airflow.sensors"]}],
        "triggers": [{"integration-name": "gristmill", "python-modules": ["gristmill.airflow.triggers"]}],
        "extra-links": ["gristmill.airflow.links.ReportLink"],
        "task-decorators": [{"name": "gristmill", "class-name": "gristmill.airflow.decorators.gristmill_task"}],
        "plugins": [{"name": "gristmill", "plugin-class": "gristmill.airflow.reports.GristmillPlugin"}],
    }
