"""Pipeline files: YAML to a checked `Pipeline`, with errors that name the file, the line, what was found and the nearest valid name."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gristmill.errors import GristmillError, InputNotFoundError, PipelineError, did_you_mean
from gristmill.pipelines.model import Pipeline


def load_pipeline(source: str | Path | Mapping[str, Any] | Pipeline, settings: Sequence[str] = ()) -> Pipeline:
    """The checked pipeline of a file, a mapping or a model. `settings` are `key.path=value` texts laid over it (`steps.2.threshold=0.9`).

    Relative paths in a file are relative to the current folder, as on the command line.

    Raises:
        InputNotFoundError: no such file.
        PipelineError: anything in it that can't be meant; all problems are listed, each with its line.
    """
    if isinstance(source, Pipeline):
        if not settings:
            return source
        source = source.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(source, Mapping):
        return _check(_overlaid(dict(source), settings), "pipeline", None)
    path = Path(source)
    if not path.exists():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.y*ml")]) if path.parent.is_dir() else ""
        raise InputNotFoundError(f"no pipeline file '{path}'.{near}")
    if path.is_dir():
        raise PipelineError(f"'{path}' is a folder, expected a pipeline file")
    text = path.read_text(encoding="utf-8")
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise PipelineError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(data, dict):
        raise PipelineError(f"{path}:1: a pipeline is a mapping with name, sources, steps and output; got {type(data).__name__}")
    return _check(_overlaid(data, settings), str(path), tree)


def _check(data: dict[str, Any], where: str, tree: yaml.Node | None) -> Pipeline:
    try:
        return Pipeline.model_validate(data)
    except ValidationError as error:
        problems = sorted({_describe(problem, where, tree) for problem in error.errors()})
        raise PipelineError("\n".join(text for _, text in problems)) from None
    except GristmillError as error:
        raise type(error)(f"{where}: {error}", **error.context) from None


def describe_step_error(error: ValidationError, step: Mapping[str, Any]) -> str:
    """What is wrong with a step given from Python."""
    problems = [_describe({**problem, "loc": ("steps", 0, *problem["loc"])}, f"step {dict(step)}", None)[1] for problem in error.errors()]
    return "\n".join(problems)


def _overlaid(data: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise PipelineError(f"--set {setting}: write key.path=value, such as steps.2.threshold=0.9")
        at: Any = data
        *parents, last = path.split(".")
        for key in parents:
            at = _child(at, key, setting)
        value = yaml.safe_load(text)
        if isinstance(at, list):
            _child(at, last, setting)
            at[int(last)] = value
        elif isinstance(at, dict):
            at[last] = value
        else:
            raise PipelineError(f"--set {setting}: '{last}' is inside a plain value")
    return data


def _child(at: Any, key: str, setting: str) -> Any:
    if isinstance(at, dict):
        return at.setdefault(key, {})
    if isinstance(at, list) and key.isdigit() and int(key) < len(at):
        return at[int(key)]
    known = [str(i) for i in range(len(at))] if isinstance(at, list) else []
    raise PipelineError(f"--set {setting}: nothing at '{key}'.{did_you_mean(key, known)}")


def _describe(problem: ErrorDetails, where: str, tree: yaml.Node | None) -> tuple[int, str]:
    location = list(problem["loc"])
    line, path = _locate(location, tree)
    place = f"{where}:{line}" if line else where
    kind, name = problem["type"], str(location[-1]) if location else ""
    if kind == "extra_forbidden":
        text = f"unknown key '{name}'.{did_you_mean(name, _valid_keys(location[:-1]))}"
    elif kind == "union_tag_invalid":
        context = problem["ctx"]
        found, expected = str(context["tag"]), [tag.strip(" '") for tag in context["expected_tags"].split(",")]
        text = f"unknown {context['discriminator'].strip(chr(39))} '{found}'.{did_you_mean(found, expected)}"
    elif kind == "union_tag_not_found":
        text = f"{path}: needs the key {problem['ctx']['discriminator']}"
    elif kind == "missing":
        text = f"{path}: required and missing"
    else:
        text = f"{path}: {problem['msg'].removeprefix('Value error, ')} (found {problem['input']!r:.80})"
    return line, f"{place}: {text}"


def _locate(location: list[Any], tree: yaml.Node | None) -> tuple[int, str]:
    """(line, dotted path) of the deepest part of the location that the file has; tags of unions are no part of the file."""
    line, path, at = 0, [], tree
    for part in location:
        if at is None:
            path.append(str(part))
        elif isinstance(at, yaml.MappingNode):
            pair = next(((key, value) for key, value in at.value if key.value == str(part)), None)
            if pair is None:
                if part is location[-1]:
                    path.append(str(part))
                continue
            line, at = pair[0].start_mark.line + 1, pair[1]
            path.append(str(part))
        elif isinstance(at, yaml.SequenceNode) and isinstance(part, int) and part < len(at.value):
            at = at.value[part]
            line = at.start_mark.line + 1
            path.append(str(part))
    return line, ".".join(path) or "pipeline"


def _valid_keys(location: list[Any]) -> list[str]:
    """The keys that the model at the location takes."""
    models: list[type[BaseModel]] = [Pipeline]
    for part in location:
        if isinstance(part, int):
            continue
        step = [model for model in models if part in _tags(model)]
        if step:
            models = step
            continue
        found = [field.annotation for model in models for name, field in model.model_fields.items() if part in (name, field.alias)]
        models = [model for annotation in found for model in _models(annotation)] or models
    return sorted({field.alias or name for model in models for name, field in model.model_fields.items()})


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    """The values of `step` or `kind` that choose the model."""
    for name in ("step", "kind"):
        if name in model.model_fields:
            return typing.get_args(model.model_fields[name].annotation)
    return ()


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models(part)]
