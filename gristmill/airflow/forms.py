"""The fields of the forms with which a DAG is triggered."""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import Param

OPTIONAL = ["null", "string"]


def etl_params(folder: Path) -> dict[str, Param]:
    """pipeline, date, engine, address, workers, memory, suite, destination."""
    names = sorted(path.name for path in (folder / "pipelines").glob("*.yaml"))
    return {
        "pipeline": Param(
            "*.yaml",
            type="string",
            minLength=1,
            title="Pipeline",
            examples=["*.yaml", *names],
            description="A pipeline file, or a glob; relative to the project's folder `pipelines`.",
        ),
        "date": Param(
            None,
            type=OPTIONAL,
            format="date",
            title="Date",
            description="Replaces `{date}` in pipeline files; the run's logical date by default.",
        ),
        "suite": Param(
            None,
            type=OPTIONAL,
            title="Suite",
            description="A suite that every chosen pipeline must pass, in place of its own.",
        ),
        "destination": Param(
            None,
            type=OPTIONAL,
            title="Destination",
            description="A folder or URL in place of the pipeline's own output.",
        ),
        "engine": Param("dask", type="string", enum=["dask", "spark"], title="Engine", section="Engine"),
        "address": Param(
            None,
            type=OPTIONAL,
            title="Address",
            section="Engine",
            description="An existing cluster, such as tcp://host:8786 or spark://host:7077.",
        ),
        "workers": Param(None, type=["null", "integer"], minimum=1, title="Workers", section="Engine"),
        "memory": Param(
            None,
            type=OPTIONAL,
            pattern=r"^\s*[0-9.]+\s*[KMGT]?i?B\s*$",
            title="Memory",
            section="Engine",
            description="Of all workers together, such as 4GB.",
        ),
    }


def validate_params() -> dict[str, Param]:
    """dataset, suite, drift, leakage, approve_warnings."""
    return {
        "dataset": Param(
            None,
            type=OPTIONAL,
            title="Dataset",
            description="A dataset, optionally @VERSION, when the run isn't started by one.",
        ),
        "suite": Param(None, type=OPTIONAL, title="Suite", description="In place of the dataset's own."),
        "drift": _outcome("warn", "Drift", "When a column drifted since the last version that passed."),
        "leakage": _outcome("fail", "Leakage", "When splits share rows, or nearly the same text."),
        "approve_warnings": Param(
            False,
            type="boolean",
            title="Approve warnings",
            description="Someone must approve a version that passed with warnings.",
        ),
    }


def _outcome(default: str, title: str, description: str) -> Param:
    return Param(default, type="string", enum=["fail", "warn", "off"], title=title, description=description)


def training_params() -> dict[str, Param]:
    """mix, again."""
    return {
        "mix": Param(
            "*.yaml",
            type="string",
            minLength=1,
            title="Mix",
            description="A mix file, or a glob; relative to the project's folder `mixes`.",
        ),
        "again": Param(
            False, type="boolean", title="Again", description="Train also on versions that have been trained on."
        ),
    }


def maintenance_params(keep: int) -> dict[str, Param]:
    """dataset, keep, fast, dry_run."""
    return {
        "dataset": Param(
            None, type=OPTIONAL, title="Dataset", description="One dataset; all of the project by default."
        ),
        "keep": Param(keep, type="integer", minimum=1, title="Keep", description="Versions of each dataset that stay."),
        "fast": Param(False, type="boolean", title="Fast", description="Compare sizes only, don't read every file."),
        "dry_run": Param(False, type="boolean", title="Dry run", description="Remove nothing, only say what would go."),
    }
