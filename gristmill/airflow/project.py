"""The project folder of the DAGs: pipeline files, suites and mixes, read as plain YAML. What is wrong in a pipeline file gristmill itself says."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gristmill.airflow.summaries import absolute
from gristmill.errors import UsageError

PIPELINES, SUITES, MIXES = "pipelines", "suites", "mixes"
EVERY = "*.yaml"


@dataclass(frozen=True)
class PipelineFile:
    """A pipeline file, as the tasks of a run need it.

    settings: KEY=VALUE for `--set`: `{date}` and `{hour}` in the file's texts replaced by those of the run. pattern: the output as it is in the file.
    asset: the name of the dataset's asset, its path in the project up to the first `{`, so that all partitions are one asset. parameters: values for the suite.
    """

    name: str
    path: str
    pattern: str | None
    output: str | None
    asset: str | None
    suite: str | None
    parameters: dict[str, Any]
    settings: list[str]

    def writes(self, dataset: str, folder: Path) -> bool:
        """Whether the dataset, or partition of one, is what the pipeline makes."""
        if self.pattern is None:
            return False
        text = re.escape(absolute(self.pattern, str(folder)))
        for name, digits in (("{date}", r"\d{4}-\d\d-\d\d"), ("{hour}", r"\d\d")):
            text = text.replace(re.escape(name), digits)
        return re.fullmatch(text, absolute(dataset, str(folder))) is not None


@dataclass(frozen=True)
class MixFile:
    """What training gets. data: the whole file. datasets: those that it names. stream: arguments of `gristmill.stream`; command: of the training."""

    path: str
    data: dict[str, Any]
    datasets: list[str]
    stream: dict[str, Any]
    command: str | None

    @property
    def name(self) -> str:
        """Of the file."""
        return Path(self.path).stem


def find_pipelines(folder: Path, pattern: str | None = None) -> list[str]:
    """The pipeline files that a pattern names, sorted: a path, or a glob of `pipelines/`. A plain path that doesn't exist is given back as it is.

    Raises:
        UsageError: a pattern other than `*.yaml` that fits no file.
    """
    where = absolute(pattern or EVERY, str(folder / PIPELINES))
    found = sorted(glob.glob(where, recursive=True))
    if found or (pattern or EVERY) == EVERY:
        return found
    if glob.has_magic(pattern or ""):
        raise _nothing(pattern, folder / PIPELINES)
    in_project = absolute(pattern or "", str(folder))
    return [in_project if os.path.exists(in_project) else where]


def read_pipeline(
    path: str, folder: Path, moment: datetime, overrides: dict[str, str | None] | None = None
) -> PipelineFile:
    """The file as a run at `moment` needs it. overrides: `suite` and `destination` where they are given. One that isn't YAML is left to `gristmill plan`."""
    import yaml

    given = overrides or {}
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        data = None
    data = _mapping(data)
    output = _mapping(data.get("output"))
    where = given.get("destination") or output.get("path")
    settings = [
        f"{key}={json.dumps(fill(text, moment))}"
        for key, text in _texts(data)
        if fill(text, moment) != text and key != "output.path"
    ]
    if isinstance(where, str) and (given.get("destination") or fill(where, moment) != where):
        settings.append(f"output.path={json.dumps(fill(where, moment))}")
    name = str(data.get("name") or Path(path).stem)
    checks = _mapping(data.get("validate"))
    suite = given.get("suite") or checks.get("suite") or find_suite(folder, name)
    return PipelineFile(
        name=name,
        path=path,
        pattern=where if isinstance(where, str) else None,
        output=fill(where, moment) if isinstance(where, str) else None,
        asset=where.partition("{")[0].rstrip("/") if isinstance(where, str) else None,
        suite=fill(suite, moment) if isinstance(suite, str) else None,
        parameters=_mapping(checks.get("parameters")),
        settings=settings,
    )


def find_suite(folder: Path, name: str) -> str | None:
    """`suites/NAME.json` of the project, if it is there."""
    path = folder / SUITES / f"{name}.json"
    return str(path) if path.is_file() else None


def find_writer(folder: Path, dataset: str) -> PipelineFile | None:
    """The pipeline file of the project that makes the dataset."""
    every = (read_pipeline(path, folder, datetime.now(UTC)) for path in find_pipelines(folder))
    return next((each for each in every if each.writes(dataset, folder)), None)


def find_mixes(folder: Path, pattern: str | None = None) -> list[str]:
    """The mix files that a pattern names, sorted.

    Raises:
        UsageError: a pattern other than `*.yaml` that fits no file.
    """
    paths = sorted(glob.glob(absolute(pattern or EVERY, str(folder / MIXES))))
    if not paths and (pattern or EVERY) != EVERY:
        raise _nothing(pattern, folder / MIXES)
    return paths


def read_mix(path: str) -> MixFile:
    """The mix as its file is now.

    Raises:
        UsageError: it isn't one.
    """
    import yaml

    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        names = [str(each["data"]) for each in data["datasets"]]
        return MixFile(path, data, names, dict(data.get("stream") or {}), data.get("command"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise UsageError(
            f"'{path}' is not a mix file: it needs datasets, each with data and weight ({error})"
        ) from error


def fill(text: str, moment: datetime) -> str:
    """The text with `{date}` (2026-01-31) and `{hour}` (00 to 23) of the moment."""
    return text.replace("{date}", moment.strftime("%Y-%m-%d")).replace("{hour}", moment.strftime("%H"))


def _nothing(pattern: str | None, folder: Path) -> UsageError:
    names = sorted(path.name for path in folder.glob(EVERY))
    there = f"it has {', '.join(names[:20])}" if names else f"it has no {EVERY}"
    return UsageError(f"no file '{pattern}' in {folder}: {there}")


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted path, text) of every string in it."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(item, f"{path}.{number}" if path else str(number))
