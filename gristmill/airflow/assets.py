"""The assets that the DAGs tell each other of: datasets, and the aliases that they stand behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import Asset, AssetAlias, Context

from gristmill.airflow import summaries

DATASETS = AssetAlias("gristmill_datasets")
"""Gets an event for every version that is published. The assets behind it are the datasets."""

VALIDATED = AssetAlias("gristmill_validated")
"""Gets an event for every version that gristmill_validate accepts. The assets behind it are the datasets, named with `:validated`."""


def emit(
    context: Context, alias: AssetAlias, name: str, cwd: str | None, extra: Mapping[str, Any], suffix: str = ""
) -> None:
    """Adds an event of an asset called `name`, a path or URL that is also its URI; the running task must have the alias as an outlet."""
    place = summaries.absolute(name, cwd)
    uri = place if "://" in place else f"file://{place}"
    context["outlet_events"][alias].add(
        Asset(name=f"{name}{suffix}", uri=f"{uri}{suffix}", group="gristmill"), extra=dict(extra)
    )
