"""The light tasks of the DAGs: what there is to do, and what is known already. They run in Airflow's environment and load no data."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from airflow.sdk import Context, get_current_context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from gristmill.airflow import accepted, summaries
from gristmill.airflow.credentials import connection_env
from gristmill.airflow.process import Process, command_line
from gristmill.airflow.project import find_pipelines, find_suite, read_mixes, read_pipeline
from gristmill.airflow.settings import settings
from gristmill.errors import UsageError

T = TypeVar("T")


def moment_of(context: Context | Mapping[str, Any]) -> datetime:
    """The moment that a run is for: the form's date, else the logical date (the start of the interval), else when the run was asked for; in UTC."""
    given = (context.get("params") or {}).get("date")
    if given:
        return datetime.fromisoformat(str(given)).replace(tzinfo=UTC)
    run = context["dag_run"]
    found = run.logical_date or run.run_after
    return datetime.fromtimestamp(found.timestamp(), UTC)


def list_pipelines() -> list[dict[str, Any]]:
    """The pipeline files to run, as arguments of the mapped group."""
    context = get_current_context()
    params, folder = context["params"], settings().folder
    overrides = {name: params.get(name) for name in ("suite", "destination")}
    paths = _found(find_pipelines, folder, params.get("pipeline"))
    if len(paths) > 1 and overrides["destination"]:
        raise AirflowFailException(
            f"destination '{overrides['destination']}' is for one pipeline, but {len(paths)} are chosen; name one in `pipeline`"
        )
    return [read_pipeline(path, folder, moment_of(context), overrides).as_arguments() for path in paths]


def _found(find: Callable[[Path, str | None], list[T]], folder: Path, pattern: str | None) -> list[T]:
    try:
        return find(folder, pattern)
    except UsageError as error:
        raise AirflowFailException(str(error)) from error


def list_versions() -> list[dict[str, Any]]:
    """The versions to validate: of the events that started the run, else the one that the form names; dataset, target, name and suite of each.

    What was accepted of them before is so no longer, until this run is through.
    """
    context = get_current_context()
    params, folder = context["params"], settings().folder
    found: dict[str, dict[str, Any]] = {}
    for events in (context.get("triggering_asset_events") or {}).values():  # by asset, and once more by alias
        for event in events:
            extra = dict(event.extra or {})
            if extra.get("dataset") and extra.get("version"):
                target = f"{extra['dataset']}@{extra['version']}"
                accepted.withdraw(folder, str(extra["dataset"]), str(extra.get("fingerprint")))
                name = str(extra.get("pipeline") or os.path.basename(str(extra["dataset"])))
                found[target] = _version(
                    str(extra["dataset"]), int(extra["version"]), event.asset.name, name, extra.get("suite")
                )
    if not found and params.get("dataset"):
        dataset = str(params["dataset"]).partition("@")[0]
        facts = look(params["dataset"])
        if facts is None:
            raise AirflowFailException(f"no version of '{params['dataset']}' (in {folder})")
        accepted.withdraw(folder, facts["dataset"], facts["fingerprint"])
        target = f"{facts['dataset']}@{facts['version']}"
        found[target] = _version(facts["dataset"], facts["version"], dataset, os.path.basename(dataset), None)
    return list(found.values())


def _version(dataset: str, version: int, asset: str | None, name: str, suite: str | None) -> dict[str, Any]:
    given = get_current_context()["params"].get("suite")
    return {
        "dataset": dataset,
        "version": version,
        "target": f"{dataset}@{version}",
        "asset": asset,
        "suite": given or suite or find_suite(settings().folder, name),
    }


def list_datasets() -> list[dict[str, Any]]:
    """The datasets that the project's pipelines write, those that exist; of `{date}` all partitions that are there."""
    config = settings()
    given = get_current_context()["params"].get("dataset")
    moment = datetime.now(UTC)
    outputs: list[str] = [given] if given else []
    for path in [] if given else find_pipelines(config.folder):
        every = read_pipeline(path, config.folder, moment)
        if every.output and every.output == every.asset:
            outputs.append(every.output)
        elif every.output and every.asset is not None and "://" not in every.output:
            text = _output_text(path)
            outputs += sorted(
                glob.glob(summaries.absolute(text.replace("{date}", "*").replace("{hour}", "*"), str(config.folder)))
            )
    found = [summaries.absolute(output, str(config.folder)) for output in outputs]
    return [
        {"dataset": dataset}
        for dataset in dict.fromkeys(found)
        if "://" in dataset or os.path.isdir(os.path.join(dataset, "manifests"))
    ]


def _output_text(path: str) -> str:
    import yaml

    return str(yaml.safe_load(Path(path).read_text(encoding="utf-8"))["output"]["path"])


def list_mixes() -> list[dict[str, Any]]:
    """The mixes to look at: those that have a dataset of the events that started the run, else those that the form names, else all."""
    context = get_current_context()
    folder = settings().folder
    mixes = _found(read_mixes, folder, context["params"].get("mix"))
    events = (context.get("triggering_asset_events") or {}).values()
    changed = {str((event.extra or {}).get("dataset")) for each in events for event in each}
    if changed:
        mixes = [
            mix
            for mix in mixes
            if mix.get("error")
            or changed & {summaries.absolute(data.partition("@")[0], str(folder)) for data in mix["datasets"]}
        ]
    return [{"mix": mix} for mix in mixes]


def pin_mix(mix: dict[str, Any]) -> dict[str, Any]:
    """The mix with its datasets at their newest versions, once all of them passed; written to `ready/NAME-DIGEST.json` of the project.

    Skips while one of them has no version, no verdict, a failed one, or one that gristmill_validate has not accepted, and where this very mix has been trained on (unless the form says `again`).
    """
    context = get_current_context()
    folder = settings().folder
    if mix.get("error"):
        raise AirflowFailException(mix["error"])
    facts = [look(data) for data in mix["datasets"]]
    reasons = [
        f"{data}: {reason}" for data, fact in zip(mix["datasets"], facts, strict=True) if (reason := _not_ready(fact))
    ]
    if reasons:
        raise AirflowSkipException(f"mix '{mix['name']}' waits for " + "; ".join(reasons))
    pinned = _pinned(mix, facts)
    digest = hashlib.sha256(json.dumps(pinned, sort_keys=True).encode()).hexdigest()[:12]
    path = folder / "ready" / f"{mix['name']}-{digest}.json"
    if path.with_suffix(".trained").exists() and not context["params"].get("again"):
        raise AirflowSkipException(f"mix '{mix['name']}' has been trained on in these very versions: {path}")
    accepted.write_text(path, json.dumps(pinned, indent=1))
    return {"mix": str(path), "command": mix.get("command"), "stream": mix.get("stream") or {}}


def look(dataset: str) -> dict[str, Any] | None:
    """What `gristmill show` says of the dataset, small; None where there is no such version."""
    config = settings()
    command = command_line(["show", dataset], config.python)
    finished = Process(command, env=connection_env(config.conn_id), cwd=str(config.folder)).run(print)
    if finished.status == 2:
        return None
    if finished.status or finished.result is None:
        raise RuntimeError(f"gristmill show {dataset} ended with {finished.status}: {finished.error}")
    return summaries.of_version(finished.result, str(config.folder))


def _not_ready(fact: dict[str, Any] | None) -> str | None:
    if fact is None:
        return "no version yet"
    failed = [name for name, good in fact["verdicts"].items() if not good]
    if failed:
        return f"version {fact['version']} failed {', '.join(failed)}"
    missing = [name for name in fact["gate"] if name not in fact["verdicts"]]
    if missing or not fact["verdicts"]:
        return f"version {fact['version']} has no verdict" + (f" of {', '.join(missing)}" if missing else "")
    if not accepted.is_accepted(settings().folder, fact["dataset"], fact["fingerprint"]):
        return f"version {fact['version']} was not accepted by gristmill_validate"
    return None


def _pinned(mix: dict[str, Any], facts: list[dict[str, Any] | None]) -> dict[str, Any]:
    import yaml

    data: dict[str, Any] = yaml.safe_load(Path(mix["path"]).read_text(encoding="utf-8"))
    for entry, fact in zip(data["datasets"], facts, strict=True):
        assert fact is not None
        entry["data"], entry["fingerprint"] = f"{fact['dataset']}@{fact['version']}", fact["fingerprint"]
    return data
