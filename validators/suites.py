"""A Great Expectations suite, checked: from its JSON, a file, or Great Expectations' own objects."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gristmill.errors import InputError, InputNotFoundError, SuiteError
from gristmill.validators.formats import jsonable

SEVERITIES = ("critical", "warning", "info")


@dataclass(frozen=True)
class Entry:
    """One expectation of a suite as it was written. given: Great Expectations' own object, where it came as one."""

    type: str
    kwargs: dict[str, Any]
    id: str
    severity: str = "critical"
    meta: dict[str, Any] = field(default_factory=dict)
    notes: Any = None
    description: str | None = None
    named: bool = True
    given: Any = None

    def config(self) -> dict[str, Any]:
        """The "expectation_config" of its result."""
        config: dict[str, Any] = {
            "type": self.type,
            "kwargs": self.kwargs,
            "meta": self.meta,
            "id": self.id,
            "severity": self.severity,
        }
        if self.notes is not None:
            config["notes"] = self.notes
        if self.description is not None:
            config["description"] = self.description
        return config


@dataclass(frozen=True)
class Suite:
    """A suite. hash: sha256 over types, parameters and severities, 64 hex digits: free of ids, notes, meta and order."""

    name: str
    entries: list[Entry]
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """What verdicts are bound to."""
        return hashlib.sha256(json.dumps(sorted(map(_identity, self.entries))).encode()).hexdigest()


def _identity(entry: Entry) -> str:
    return json.dumps([entry.type, jsonable(entry.kwargs), entry.severity], sort_keys=True, default=str)


def load_suite(given: Any, parameters: Mapping[str, Any] | None = None) -> Suite:
    """The suite of a path, a JSON text or dict, a Great Expectations suite or expectation, or a list of expectations.

    parameters: values for {"$PARAMETER": name}. An expectation without an id gets one made of its type and parameters.

    Raises:
        InputNotFoundError: no such file.
        SuiteError: not a suite; a parameter without a value.
    """
    if isinstance(given, Suite):
        return given
    if isinstance(given, (str, os.PathLike)):
        content = _read(given)
        try:
            return load_suite(content, parameters)
        except SuiteError as error:
            raise SuiteError(str(error) if _is_json(given) else f"'{os.fspath(given)}': {error}") from None
    if hasattr(given, "expectations") and hasattr(given, "to_json_dict"):
        given = {"name": given.name, "expectations": list(given.expectations), "meta": dict(given.meta or {})}
    elif hasattr(given, "configuration"):
        given = {"name": "expectation", "expectations": [given]}
    elif isinstance(given, (list, tuple)):
        given = {"name": "expectations", "expectations": list(given)}
    elif isinstance(given, Mapping) and "type" in given and "expectations" not in given:
        given = {"name": "expectation", "expectations": [given]}
    if not isinstance(given, Mapping) or not isinstance(given.get("expectations"), list):
        raise SuiteError(
            'a suite is {"name": ..., "expectations": [{"type": ..., "kwargs": {...}}, ...]}, its file, or a Great Expectations object; '
            f"got {type(given).__name__}"
        )
    entries: list[Entry] = []
    taken: dict[str, int] = {}
    for number, one in enumerate(given["expectations"]):
        entry = _entry(one, number, parameters or {})
        taken[entry.id] = taken.get(entry.id, 0) + 1
        if taken[entry.id] > 1:
            entry = Entry(**{**entry.__dict__, "id": f"{entry.id}~{taken[entry.id]}"})
        entries.append(entry)
    return Suite(
        str(given.get("name") or given.get("expectation_suite_name") or "suite"), entries, dict(given.get("meta") or {})
    )


def _is_json(given: str | os.PathLike[str]) -> bool:
    return os.fspath(given).lstrip().startswith("{")


def _read(path: str | os.PathLike[str]) -> Any:
    text = os.fspath(path)
    if not _is_json(path):
        try:
            text = Path(text).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise InputNotFoundError(f"no suite at '{path}'", path=text) from None
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise InputError(f"can't read the suite '{path}': {reason}", path=text) from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SuiteError(f"'{path}' is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from error


def _entry(given: Any, number: int, parameters: Mapping[str, Any]) -> Entry:
    where = f"expectation {number + 1}"
    source = None
    if hasattr(given, "configuration"):
        source, config = given, given.configuration
        notes, description = getattr(given, "notes", None), getattr(given, "description", None)
        given = {
            "type": config.type,
            "kwargs": dict(config.kwargs),
            "meta": dict(config.meta or {}),
            "id": given.id,
            "severity": getattr(given.severity, "value", given.severity),
            "notes": notes,
            "description": description,
        }
    if not isinstance(given, Mapping):
        raise SuiteError(f"{where}: expected an object with 'type' and 'kwargs', got {type(given).__name__}")
    kind = given.get("type") or given.get("expectation_type")
    if not isinstance(kind, str):
        raise SuiteError(
            f"{where} has no 'type'; write the expectation's name, such as expect_column_values_to_not_be_null"
        )
    severity = str(given.get("severity") or "critical")
    if severity not in SEVERITIES:
        raise SuiteError(f"{where} ({kind}): severity '{severity}' is none of critical, warning, info")
    kwargs = {
        key: _resolve(value, parameters, f"{where} ({kind})") for key, value in (given.get("kwargs") or {}).items()
    }
    named = given.get("id") is not None
    made = hashlib.sha256(json.dumps([kind, jsonable(kwargs)], sort_keys=True, default=str).encode()).hexdigest()[:16]
    return Entry(
        kind,
        kwargs,
        str(given["id"]) if named else made,
        severity,
        dict(given.get("meta") or {}),
        given.get("notes"),
        given.get("description"),
        named,
        source,
    )


def _resolve(value: Any, parameters: Mapping[str, Any], where: str) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {"$PARAMETER"}:
            name = value["$PARAMETER"]
            if name in parameters:
                return parameters[name]
            from gristmill.validators.handover import suite_parameter

            return suite_parameter(name, parameters, where)
        return {key: _resolve(item, parameters, where) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_resolve(item, parameters, where) for item in value]
    return value
