"""What Airflow asks a provider about itself."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """The operators, decorator and link that come with gristmill; its plugin has an entry point of its own."""
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
        "operators": [
            {
                "integration-name": "gristmill",
                "python-modules": ["gristmill.airflow.base", "gristmill.airflow.operators"],
            }
        ],
        "sensors": [{"integration-name": "gristmill", "python-modules": ["gristmill.airflow.sensors"]}],
        "triggers": [{"integration-name": "gristmill", "python-modules": ["gristmill.airflow.triggers"]}],
        "extra-links": ["gristmill.airflow.links.ReportLink"],
        "task-decorators": [{"name": "gristmill", "class-name": "gristmill.airflow.decorators.gristmill_task"}],
    }
