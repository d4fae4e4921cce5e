"""Pipeline files: YAML to a checked `Pipeline`, with errors that name the file, the line, what was found and the nearest valid name."""

from __future__ import annotations

import contextlib
import copy
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gristmill.errors import GristmillError, InputError, InputNotFoundError, PipelineError, did_you_mean
from gristmill.pipelines.model import Pipeline

TAGS = ("step", "kind")  # the keys that choose a block's model


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
        return _check(_overlaid(copy.deepcopy(dict(source)), settings), "pipeline", None)
    path = Path(source)
    text = _read(path)
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise PipelineError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(data, dict):
        found = "an empty file" if data is None else type(data).__name__
        raise PipelineError(f"{path}:1: a pipeline is a mapping with name, sources, steps and output; got {found}")
    _refuse_repeated_keys(tree, path)
    return _check(_overlaid(data, settings), str(path), tree)


@contextlib.contextmanager
def naming_lines(source: Any) -> Iterator[None]:
    """Puts the pipeline file and line before an error whose context tells a `location` in the pipeline, such as ("steps", 2).

    Of a location over several lines it is the one that holds the value of the context's `column`, if there is one.
    """
    try:
        yield
    except GristmillError as error:
        if "location" not in error.context or not isinstance(source, str | Path):
            raise
        tree = yaml.compose(_read(Path(source)), Loader=yaml.SafeLoader)
        line, _, node = _locate(list(error.context["location"]), tree)
        line = _line_of(str(error.context.get("column")), node) or line
        raise type(error)(f"{source}:{line}: {error}", **error.context) from error


def _read(path: Path) -> str:
    if not path.exists():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.y*ml")]) if path.parent.is_dir() else ""
        raise InputNotFoundError(f"no pipeline file '{path}'.{near}")
    if path.is_dir():
        raise PipelineError(f"'{path}' is a folder, expected a pipeline file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PipelineError(
            f"{path}: not a text file in UTF-8: byte {error.start} is {error.object[error.start]:#x}"
        ) from None
    except OSError as error:
        raise InputError(f"can't read the pipeline file '{path}': {error.strerror}") from error


def _refuse_repeated_keys(node: yaml.Node | None, path: Path) -> None:
    """YAML would take the last of them without a word."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            if name in seen:
                raise PipelineError(f"{path}:{line}: key '{name}' is given twice, first in line {seen[name]}; keep one")
            seen[name] = line
            _refuse_repeated_keys(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_repeated_keys(value, path)


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
    problems = [
        _describe({**problem, "loc": ("steps", 0, *problem["loc"])}, f"step {dict(step)}", None)[1]
        for problem in error.errors()
    ]
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
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise PipelineError(
                f"--set {setting}: the value is not valid YAML; put it in quotes inside the quotes"
            ) from error
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
    line, path, _ = _locate(location, tree)
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
        said, found = problem["msg"].removeprefix("Value error, ").removeprefix(f"{name}: "), problem["input"]
        text = f"{path}: {said}" + ("" if isinstance(found, dict) or str(found) in said else f" (found {found!r:.80})")
    return line, f"{place}: {text}"


def _locate(location: list[Any], tree: yaml.Node | None) -> tuple[int, str, yaml.Node | None]:
    """(line, dotted path, node) of the deepest part of the location that the file has; tags of unions are no part of the file."""
    line, path, at = 0, [], tree
    for part in location:
        if at is None:
            path.append(str(part))
        elif isinstance(at, yaml.MappingNode):
            pair = next(((key, value) for key, value in at.value if key.value == str(part)), None)
            if pair is None:
                if part is location[-1] and not any(
                    key.value in TAGS and value.value == part for key, value in at.value
                ):
                    path.append(str(part))
                continue
            line, at = pair[0].start_mark.line + 1, pair[1]
            path.append(str(part))
        elif isinstance(at, yaml.SequenceNode) and isinstance(part, int) and part < len(at.value):
            at = at.value[part]
            line = at.start_mark.line + 1
            path.append(str(part))
    return line, ".".join(path) or "pipeline", at


def _line_of(value: str, node: yaml.Node | None) -> int:
    """The first line in the node where the value stands as a whole; 0 if there is none."""
    if isinstance(node, yaml.ScalarNode):
        return node.start_mark.line + 1 if node.value == value else 0
    below = (
        [part for pair in node.value for part in pair]
        if isinstance(node, yaml.MappingNode)
        else node.value
        if node
        else []
    )
    return next((line for line in (_line_of(value, part) for part in below) if line), 0)


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
        found = [
            field.annotation
            for model in models
            for name, field in model.model_fields.items()
            if part in (name, field.alias)
        ]
        models = [model for annotation in found for model in _models(annotation)] or models
    return sorted({field.alias or name for model in models for name, field in model.model_fields.items()})


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    """The values of `step` or `kind` that choose the model."""
    for name in TAGS:
        if name in model.model_fields:
            return typing.get_args(model.model_fields[name].annotation)
    return ()


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models(part)]
