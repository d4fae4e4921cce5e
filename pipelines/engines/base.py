"""What an engine is: `map` a function over work items. Everything else, `exchange` too, is built on it and on files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from gristmill.errors import GristmillError, WorkItemError

TRIES = 3  # a work item that failed this often fails the run

Task = Any
"""A frozen, picklable dataclass that names one work item: `str(task)` says which, for error texts."""


class Engine(Protocol):
    """Runs functions over work items, somewhere."""

    name: str
    workers: int

    def map(self, function: Callable[[Task], dict[str, Any]], tasks: Sequence[Task], done: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
        """The results in the order of the tasks; `done` is called with each as it comes. Both pickle; each task is tried up to TRIES times.

        Raises:
            GristmillError: the function's own error, where it says the input or the use is wrong: it is not tried again.
            WorkItemError: a task failed on every try; it is named. The other tasks are finished first, so that their work is kept.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class InProcess:
    """Runs work items one after the other in this process: for small inputs, where starting anything else would take longer."""

    workers = 1

    def __init__(self, name: str = "dask") -> None:
        self.name = name

    def map(self, function: Callable[[Task], dict[str, Any]], tasks: Sequence[Task], done: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
        """See `Engine.map`."""
        results: list[dict[str, Any]] = []
        failed: list[tuple[Task, BaseException]] = []
        for task in tasks:
            outcome = guarded(function, task)
            if isinstance(outcome, BaseException):
                failed.append((task, outcome))
            else:
                results.append(outcome)
                done(outcome)
        raise_failed(failed)
        return results

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None


def final(error: BaseException) -> bool:
    """Whether trying again can't help: the input or the use is wrong, or rows can't be accounted for."""
    return isinstance(error, GristmillError) and not isinstance(error, WorkItemError)


def raise_failed(failed: Sequence[tuple[Task, BaseException]]) -> None:
    """Raises for the first failed task, if there is one."""
    if not failed:
        return
    task, error = failed[0]
    if final(error):
        raise error
    others = f" ({len(failed) - 1} more items failed too)" if len(failed) > 1 else ""
    notes = "".join(f", {note}" for note in getattr(error, "__notes__", []))
    raise WorkItemError(
        f"{task} failed {TRIES} times: {type(error).__name__}: {error}{notes}{others}. "
        "What is finished is kept: mend the cause and run the same command again."
    ) from error

def guarded(function: Callable[[Task], dict[str, Any]], task: Task) -> dict[str, Any] | BaseException:
    """The function's result, or after TRIES tries its error as a value: clusters lose an error's context on the way to the driver, which names the item."""
    for left in range(TRIES - 1, -1, -1):
        try:
            return function(task)
        except Exception as error:  # noqa: BLE001  the driver raises it
            if final(error) or not left:
                return error
    raise AssertionError("unreachable")
