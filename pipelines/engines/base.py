"""What an engine is: `map` a function over work items. Everything else, `exchange` too, is built on it and on files."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

from gristmill.errors import GristmillError, StoreUnreachableError, WorkItemError
from gristmill.pipelines.engines.watch import Watch, quiet

TRIES = 3  # a work item that failed this often fails the run
TOGETHER = 0.1  # seconds of work that are sent to a worker at least, where there is as much
ENOUGH = 1.0  # seconds after which a worker gives back what is left of such work, which takes longer than was thought
PAUSE = 0.5  # seconds before an item is tried again that could not read or write; longer each time

Task = Any
"""A frozen, picklable dataclass that names one work item: `str(task)` says which, for error texts."""


class Engine(Protocol):
    """Runs functions over work items, somewhere."""

    name: str
    workers: int
    note: Callable[[str], None]
    """Is told in a line what takes long."""

    def map(
        self, function: Callable[[Task], dict[str, Any]], tasks: Sequence[Task], done: Callable[[dict[str, Any]], None]
    ) -> list[dict[str, Any]]:
        """The results in the order of the tasks; `done` is called with each as it comes. Both pickle; each task is tried up to TRIES times.

        Raises:
            GristmillError: the function's own error, where it says the input or the use is wrong: it is not tried again.
            WorkItemError: a task failed on every try; it is named. The other tasks are finished first, so that their work is kept.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class InProcess:
    """Runs work items in this process, `workers` at a time: no process to start, and kernels, Arrow and compression release the GIL."""

    def __init__(self, name: str = "dask", workers: int = 1) -> None:
        self.name = name
        self.workers = workers
        self.note: Callable[[str], None] = quiet

    def map(
        self, function: Callable[[Task], dict[str, Any]], tasks: Sequence[Task], done: Callable[[dict[str, Any]], None]
    ) -> list[dict[str, Any]]:
        """See `Engine.map`."""
        with Watch(tasks, self.workers, self.note) as watch:
            return gather(tasks, self._outcomes(function, tasks), done, watch)

    def _outcomes(self, function: Callable[[Task], dict[str, Any]], tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        """(number of the task, its outcome) as they come."""
        if self.workers == 1 or len(tasks) == 1:
            with _interrupts() as check:
                for number, task in enumerate(tasks):
                    outcome = guarded(function, task)
                    check()
                    yield number, outcome
            return
        with ThreadPoolExecutor(self.workers) as threads:
            numbers = {threads.submit(guarded, function, task): number for number, task in enumerate(tasks)}
            try:
                for future in as_completed(numbers):
                    yield numbers[future], future.result()
            finally:
                threads.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C no further item is begun

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], None]]:
    """A check that raises KeyboardInterrupt if Ctrl-C came meanwhile and was lost: while a kernel runs it is raised inside of Numba, which swallows it."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    came = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        before(number, frame)

    def check() -> None:
        if came:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)


def gather(
    tasks: Sequence[Task], outcomes: Iterable[tuple[int, Any]], done: Callable[[dict[str, Any]], None], watch: Watch
) -> list[dict[str, Any]]:
    """The results in the order of the tasks, from (number of the task, its result or error) as they come; raises as `Engine.map` does."""
    results: list[dict[str, Any]] = [{} for _ in tasks]
    failed: dict[int, BaseException] = {}
    for number, outcome in outcomes:
        watch.done(number)
        if isinstance(outcome, BaseException):
            failed[number] = outcome
        else:
            results[number] = outcome
            done(outcome)
    raise_failed([(tasks[number], failed[number]) for number in sorted(failed)])
    return results


def probes(count: int, slots: int) -> int:
    """How many of the tasks are sent one by one at first, to see how long they take: all, if they are few."""
    return count if count <= 4 * slots else 2 * slots


def singly(numbers: Iterable[int]) -> list[range]:
    """A group for each."""
    return [range(number, number + 1) for number in numbers]


def together(numbers: range, slots: int, seconds: float) -> list[range]:
    """The tasks, each of so many seconds, in groups that take TOGETHER seconds, if there are two such groups for each slot."""
    each = max(1, min(int(TOGETHER / max(seconds, 1e-6)), len(numbers) // (2 * slots)))
    return [numbers[start : start + each] for start in range(0, len(numbers), each)]


def final(error: BaseException) -> bool:
    """Whether trying again can't help: the input or the use is wrong, a disk is full, or rows can't be accounted for."""
    return isinstance(error, GristmillError) and not isinstance(error, WorkItemError | StoreUnreachableError)


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
            if isinstance(error, OSError):
                time.sleep(PAUSE * 3 ** (TRIES - 1 - left))
    raise AssertionError("unreachable")


def begun(function: Callable[[Task], dict[str, Any]], tasks: Sequence[Task]) -> tuple[list[Any], float]:
    """(what `guarded` gives for each task, or for the first ones only, where ENOUGH seconds are over; the seconds of one)."""
    start = time.monotonic()
    outcomes = []
    for task in tasks:
        outcomes.append(guarded(function, task))
        if time.monotonic() - start >= ENOUGH:
            break
    return outcomes, (time.monotonic() - start) / len(outcomes)
