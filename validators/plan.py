"""A suite made ready for some data: its expectations as models, and what must be worked out for them, each thing once."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import ValidationError

from gristmill.errors import ColumnError, DamagedStateError, SuiteError, did_you_mean
from gristmill.validators.accumulators import Accumulator
from gristmill.validators.conditions import Condition
from gristmill.validators.expectations import EXPECTATIONS
from gristmill.validators.expectations.base import Expectation, Need, Setting
from gristmill.validators.expectations.tables import ColumnTypeToBe, missing_column
from gristmill.validators.handover import is_for_gx
from gristmill.validators.inputs import Data
from gristmill.validators.suites import Entry, Suite


class Key(NamedTuple):
    """What tells one thing to work out from another: the row condition and the need."""

    condition: str
    need: str


@dataclass(frozen=True)
class Task:
    """One thing to work out. columns: what must be read for it, those of its condition too."""

    key: Key
    make: Callable[[], Accumulator]
    condition: Condition | None
    columns: tuple[str, ...]


@dataclass
class Planned:
    """An expectation on its way. model None: Great Expectations evaluates it. error: why it can't be, with its trace."""

    entry: Entry
    model: Expectation | None
    keys: dict[str, Key] = field(default_factory=dict)
    again: dict[str, Key] = field(default_factory=dict)
    error: tuple[str, str] | None = None
    flat: bool = False

    def fail(self, error: BaseException, *, flat: bool = False) -> None:
        """Makes the error its result. flat: it arose from what was found, not while that was worked out."""
        self.flat = self.flat or (flat and self.error is None)
        text = "".join(traceback.format_exception(error))
        message = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
        self.error = self.error or (str(message) or type(error).__name__, text)


def plan_suite(suite: Suite, data: Data) -> list[Planned]:
    """Each entry with its model, in order. A column that isn't there is the error of its expectation.

    Raises:
        SuiteError: an unknown expectation, or a parameter that is unknown, missing or wrong.
    """
    planned = []
    for entry in suite.entries:
        if is_for_gx(entry, EXPECTATIONS):
            planned.append(Planned(entry, None))
            continue
        one = Planned(entry, _model(entry))
        assert one.model is not None
        for name in one.model.columns_used():
            if name not in data.columns:
                one.fail(
                    ColumnError(missing_column(name, data.columns), column=name),
                    flat=isinstance(one.model, ColumnTypeToBe),
                )
        planned.append(one)
    return planned


def _model(entry: Entry) -> Expectation:
    kind = EXPECTATIONS[entry.type]
    try:
        model = kind.model_validate(entry.kwargs)
        model.condition()
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = [
                key
                for key in kind.model_fields
                if key not in ("batch_id", "windows", "result_format", "catch_exceptions")
            ]
            raise SuiteError(
                f"{entry.type}: unknown parameter '{name}'.{did_you_mean(name, known)}", parameter=name
            ) from None
        if first["type"] == "missing":
            raise SuiteError(f"{entry.type}: parameter '{name}' is missing", parameter=name) from None
        told = first["msg"].removeprefix("Value error, ")
        got = f", got {first['input']!r}" if name and ", got " not in told else ""
        raise SuiteError(f"{entry.type}: {f'{name}: ' if name else ''}{told}{got}", parameter=name) from None
    return model


def tasks_of(
    planned: Iterable[Planned], setting: Setting, needs: Callable[[Planned], Mapping[str, Need]], *, again: bool = False
) -> list[Task]:
    """The things that the expectations need, each once; their keys are noted in `keys`, or `again`."""
    tasks: dict[Key, Task] = {}
    for one in planned:
        if one.error or one.model is None:
            continue
        try:
            condition = one.model.condition()
            wanted = needs(one)
            for name, need in wanted.items():
                key = Key(condition.key if condition else "", need.key)
                if key not in tasks:
                    tasks[key] = Task(key, need.make, condition, _columns(need, condition, setting.data))
                (one.again if again else one.keys)[name] = key
        except DamagedStateError:
            raise
        except Exception as error:  # noqa: BLE001  the failure of this expectation, not of the others
            one.fail(error)
    return list(tasks.values())


def _columns(need: Need, condition: Condition | None, data: Data) -> tuple[str, ...]:
    columns = list(need.make().columns)
    if condition is not None:
        others = data.columns if condition.columns is None else condition.columns
        for name in others:
            if name not in data.columns:
                raise ColumnError(missing_column(name, data.columns), column=name)
        columns += others
    return tuple(dict.fromkeys(columns))


def exception_info(one: Planned) -> dict[str, Any]:
    """The "exception_info" as Great Expectations has it: by what could not be worked out, else flat."""
    if one.error is None:
        return {"raised_exception": False, "exception_traceback": None, "exception_message": None}
    message, trace = one.error
    info = {"raised_exception": True, "exception_traceback": trace, "exception_message": message}
    return info if one.flat else {str((one.entry.type, one.entry.id)): info}
