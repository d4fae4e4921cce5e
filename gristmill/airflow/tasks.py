"""The light tasks of the DAGs: what there is to do, and what is known already. They run in Airflow's environment and load no data."""

from __future__ import annotations

import copy
import glob
import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import Context, get_current_context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from gristmill.airflow import accepted, summaries
from gristmill.airflow.credentials import connection_env
from gristmill.airflow.forms import etl_params, maintenance_params, training_params, validate_params
from gristmill.airflow.process import NOT_FOUND, PYTHON_HINT, Process, command_line
from gristmill.airflow.project import MixFile, find_mixes, find_pipelines, find_writer, read_mix, read_pipeline
from gristmill.airflow.settings import settings
from gristmill.airflow.summaries import absolute
from gristmill.airflow.versions import newest_manifest
from gristmill.errors import UsageError, did_you_mean


def moment_of(context: Context | Mapping[str, Any]) -> datetime:
    """The moment that a run is for: the form's date, else the logical date (the start of the interval), else when the run was asked for; in UTC."""
    given = (context.get("params") or {}).get("date")
    if given:
        return datetime.fromisoformat(str(given)).replace(tzinfo=UTC)
    run = context["dag_run"]
    found = run.logical_date or run.run_after
    return datetime.fromtimestamp(found.timestamp(), UTC)


def list_pipelines() -> list[dict[str, Any]]:
    """The pipeline files to run, as arguments of the mapped group: what to call each, its path, and the moment that the run is for."""
    context = get_current_context()
    folder = settings().folder
    params = form(context, etl_params(folder))
    paths = _found(find_pipelines, folder, params.get("pipeline"))
    if len(paths) > 1 and params.get("destination"):
        raise AirflowFailException(
            f"destination '{params['destination']}' is for one pipeline, but {len(paths)} are chosen; name one in `pipeline`"
        )
    moment = moment_of(context)
    return [
        {"name": read_pipeline(path, folder, moment).name, "path": path, "moment": moment.isoformat()} for path in paths
    ]


def form(context: Context | Mapping[str, Any], fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of the run's form, if whoever asked for the run gave no field that it doesn't have: Airflow takes any."""
    for name in context["dag_run"].conf or {}:
        if name not in fields:
            raise AirflowFailException(f"the form has no field '{name}'.{did_you_mean(name, fields)}")
    return context["params"]


def _found(find: Callable[[Path, str | None], list[str]], folder: Path, pattern: str | None) -> list[str]:
    try:
        return find(folder, pattern)
    except UsageError as error:
        raise AirflowFailException(str(error)) from error


def list_versions() -> list[dict[str, Any]]:
    """The versions to validate: of the events that started the run, else the one that the form names; dataset, target, asset and suite of each.

    What was accepted of them before is so no longer, until this run is through.
    """
    context = get_current_context()
    folder = settings().folder
    params = form(context, validate_params())
    started = context.get("triggering_asset_events") or {}
    found: dict[str, dict[str, Any]] = {}
    for events in started.values():  # by asset, and once more by alias
        for event in events:
            extra = dict(event.extra or {})
            if extra.get("dataset") and extra.get("version"):
                accepted.withdraw(folder, str(extra["dataset"]), str(extra.get("fingerprint")))
                each = _version(extra, event.asset.name, params.get("suite") or extra.get("suite"))
                found[each["target"]] = each
    if not found and params.get("dataset"):
        facts = _existing(params["dataset"])
        accepted.withdraw(folder, facts["dataset"], facts["fingerprint"])
        writer = find_writer(folder, facts["dataset"])
        name = str(params["dataset"]).partition("@")[0].rstrip("/")
        each = _version(facts, writer.asset if writer else name, params.get("suite"))
        found[each["target"]] = each
    if not found and not started:
        raise AirflowFailException("nothing to validate: no asset started this run; name a `dataset` in the form")
    return list(found.values())


def _version(facts: Mapping[str, Any], asset: str | None, suite: str | None) -> dict[str, Any]:
    dataset, version = str(facts["dataset"]), int(facts["version"])
    target = f"{dataset}@{version}"
    return {"dataset": dataset, "version": version, "target": target, "asset": asset, "suite": suite}


def list_datasets() -> list[dict[str, Any]]:
    """The datasets that the project's pipelines write, those that have a version; of `{date}` all partitions that are there."""
    config = settings()
    folder = str(config.folder)
    params = form(get_current_context(), maintenance_params(config.keep))
    if params.get("dataset"):
        return [{"dataset": _existing(params["dataset"])["dataset"]}]
    outputs: list[str] = []
    for path in find_pipelines(config.folder):
        pattern = read_pipeline(path, config.folder, datetime.now(UTC)).pattern
        if pattern and "://" not in pattern:
            anything = glob.escape(absolute(pattern, folder)).replace("{date}", "*").replace("{hour}", "*")
            outputs += [each for each in sorted(glob.glob(anything)) if newest_manifest(each)]
        elif pattern and pattern.partition("{")[0] == pattern and look(pattern) is not None:
            outputs.append(pattern)
    return [{"dataset": dataset} for dataset in dict.fromkeys(outputs)]


def _existing(dataset: str) -> dict[str, Any]:
    facts = look(str(dataset))
    if facts is None:
        raise AirflowFailException(f"no version of '{dataset}' (in {settings().folder}): the log says what is there")
    return facts


def list_mixes() -> list[dict[str, Any]]:
    """The mix files to look at: those that have a dataset of the events that started the run, else those that the form names, else all."""
    context = get_current_context()
    folder = settings().folder
    paths = _found(find_mixes, folder, form(context, training_params()).get("mix"))
    events = (context.get("triggering_asset_events") or {}).values()
    changed = {str((event.extra or {}).get("dataset")) for each in events for event in each}
    return [{"path": path} for path in paths if not changed or changed & _datasets_of(path, folder, changed)]


def _datasets_of(path: str, folder: Path, otherwise: set[str]) -> set[str]:
    try:
        return {absolute(data.partition("@")[0], str(folder)) for data in read_mix(path).datasets}
    except UsageError:
        return otherwise  # so that its `pin` says what is wrong


def pin_mix(path: str) -> dict[str, Any]:
    """The mix with its datasets at their newest versions, once all of them passed; written to `ready/NAME-DIGEST.json` of the project.

    Skips while one of them has no version, no verdict, a failed one, or one that gristmill_validate has not accepted, and where this very mix has been trained on (unless the form says `again`).
    Fails where one of them isn't there and no pipeline of the project makes it.
    """
    context = get_current_context()
    folder = settings().folder
    try:
        mix = read_mix(path)
    except UsageError as error:
        raise AirflowFailException(str(error)) from error
    facts = [look(data) for data in mix.datasets]
    for data in (data for data, fact in zip(mix.datasets, facts, strict=True) if fact is None):
        _refuse_unknown(mix, data, folder)
    reasons = [
        f"{data}: {reason}" for data, fact in zip(mix.datasets, facts, strict=True) if (reason := _not_ready(fact))
    ]
    if reasons:
        raise AirflowSkipException(f"mix '{mix.name}' waits for " + "; ".join(reasons))
    pinned = _pinned(mix, facts)
    digest = hashlib.sha256(json.dumps(pinned, sort_keys=True).encode()).hexdigest()[:12]
    ready = folder / "ready" / f"{mix.name}-{digest}.json"
    if ready.with_suffix(".trained").exists() and not context["params"].get("again"):
        raise AirflowSkipException(f"mix '{mix.name}' has been trained on in these very versions: {ready}")
    accepted.write_text(ready, json.dumps(pinned, indent=1))
    return {"mix": str(ready), "command": mix.command, "stream": mix.stream}


def _refuse_unknown(mix: MixFile, data: str, folder: Path) -> None:
    if find_writer(folder, data.partition("@")[0]) is None:
        now = datetime.now(UTC)
        made = [read_pipeline(path, folder, now).pattern for path in find_pipelines(folder)]
        raise AirflowFailException(
            f"mix '{mix.path}': no dataset '{data}', and no pipeline of the project makes it.{did_you_mean(data, filter(None, made))}"
        )


def look(dataset: str) -> dict[str, Any] | None:
    """What `gristmill show` says of the dataset, small; None where there is no such version."""
    config = settings()
    command = command_line(["show", dataset], config.python)
    finished = Process(command, env=connection_env(config.conn_id), cwd=str(config.folder)).run(print)
    if finished.status == 2:
        return None
    if finished.status == NOT_FOUND:
        raise AirflowFailException(f"{finished.said(f'gristmill show {dataset}')}. {PYTHON_HINT}")
    if finished.status or finished.result is None:
        raise RuntimeError(finished.said(f"gristmill show {dataset}"))
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


def _pinned(mix: MixFile, facts: list[dict[str, Any] | None]) -> dict[str, Any]:
    data: dict[str, Any] = copy.deepcopy(mix.data)
    for entry, fact in zip(data["datasets"], facts, strict=True):
        assert fact is not None
        entry["data"], entry["fingerprint"] = f"{fact['dataset']}@{fact['version']}", fact["fingerprint"]
    return data
