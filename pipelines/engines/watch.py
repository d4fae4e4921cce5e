"""What keeps a stage waiting, told while it does: items that take far longer than the others, a cluster without workers."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from gristmill.errors import RunError

SLOW_SECONDS = 60.0  # an item that is at work for less is never told
SLOW_TIMES = 5.0  # nor one for less than so many times the median of those that are done
LOOKS = 12  # in SLOW_SECONDS
LOOK_SOON = 1.0  # seconds between looks while there are no workers
TOLD_AFTER = 3.0  # seconds without workers after which it is told, and again when it has lasted four times as long
WAIT = 120.0  # seconds without workers after which a run gives up, unless it is told otherwise


def quiet(text: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Workers:
    """The workers of a cluster, which may not be there yet, or no longer. missing: what the stage waits for, or None. advice: what to check.

    wait: seconds after which the stage is given up, by calling `give_up`.
    """

    missing: Callable[[], str | None]
    advice: Callable[[], str]
    wait: float
    give_up: Callable[[], None] = lambda: None


class Watch:
    """Tells, while the block runs, which tasks are slow, each again whenever its time has doubled; and that a cluster has no workers.

    When a task began is taken from the order: engines begin tasks in it, `slots` at a time. What was sent together (`group`) counts as one.
    """

    def __init__(
        self,
        tasks: Sequence[Any],
        slots: int,
        note: Callable[[str], None],
        workers: Workers | None = None,
    ) -> None:
        self._tasks, self._note, self._workers = tasks, note, workers
        self._gave_up: str | None = None
        self._groups = [range(number, number + 1) for number in range(len(tasks))]
        self._last = {number: number for number in range(len(tasks))}  # of each group, by its first number
        self._next = min(max(slots, 1), len(tasks))  # of the groups
        self._began = dict.fromkeys(range(self._next), time.monotonic())  # by the first number of each
        self._told: dict[int, float] = {}
        self._took: list[float] = []
        self._lock = threading.Lock()
        self._over = threading.Event()

    def group(self, groups: Sequence[range]) -> None:
        """Takes note that the last tasks are sent in these groups, in order; no worker has begun one of them."""
        with self._lock:
            self._groups[groups[0].start :] = groups
            self._last = {group.start: group[-1] for group in self._groups}

    def done(self, number: int) -> None:
        """Takes note that the task of this number has ended; of a group all end together."""
        now = time.monotonic()
        with self._lock:
            began = self._began.pop(number, None)
            if began is not None:
                self._took.append(now - began)
            elif number not in self._last:
                return
            self._begin(now)

    def again(self, numbers: Sequence[int]) -> None:
        """Takes note that these tasks, which their group has not done, are sent once more, each by itself, after all others."""
        with self._lock:
            over = [number for number in numbers if self._began.pop(number, None) is not None]
            self._groups += [range(number, number + 1) for number in numbers]
            self._last.update((number, number) for number in numbers)
            for _ in over:
                self._begin(time.monotonic())

    def _begin(self, now: float) -> None:
        """The next group has begun, where there is one."""
        if self._next < len(self._groups):
            self._began[self._groups[self._next].start] = now
            self._next += 1

    def slow(self) -> list[tuple[int, float]]:
        """(number, seconds at work so far) of the tasks that are to be told now."""
        now = time.monotonic()
        with self._lock:
            least = max(SLOW_SECONDS, SLOW_TIMES * statistics.median(self._took) if self._took else 0.0)
            found = [(number, now - began) for number, began in self._began.items()]
            late = [(number, took) for number, took in found if took >= max(least, 2 * self._told.get(number, 0.0))]
            self._told.update(late)
        return late

    def check(self) -> None:
        """Ends a stage that has waited too long for workers.

        Raises:
            RunError: it has; says what to check.
        """
        if self._gave_up:
            raise RunError(self._gave_up)

    def _look(self) -> None:
        since = None if self._workers is None else time.monotonic()  # when workers were last not known to be there
        due = TOLD_AFTER
        while not self._over.wait(SLOW_SECONDS / LOOKS if since is None else LOOK_SOON):
            reason = None if self._workers is None else self._workers.missing()
            if self._workers is not None and reason is not None:
                now = time.monotonic()
                since = now if since is None else since
                if now - since >= self._workers.wait:
                    self._gave_up = (
                        f"waited {now - since:.0f} s for {reason}. {self._workers.advice()} --wait SECONDS waits longer. "
                        "What is finished is kept: the same command resumes."
                    )
                    self._workers.give_up()
                    return
                if now - since >= due:
                    self._note(f"waiting for {reason}, for {now - since:.0f} s so far")
                    due *= 4
                continue
            since, due = None, TOLD_AFTER
            for number, took in self.slow():
                others = (
                    f"; half of the others took less than {statistics.median(self._took):.0f} s" if self._took else ""
                )
                self._note(f"still at work after {took:.0f} s: {self._named(number)}{others}")

    def _named(self, number: int) -> str:
        more = self._last[number] - number
        return f"{self._tasks[number]}{f' or one of the {more} items after it' if more else ''}"

    def __enter__(self) -> Self:
        if self._tasks:
            threading.Thread(target=self._look, name="gristmill watch", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
