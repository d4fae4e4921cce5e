"""What keeps a stage waiting, told while it does: items that take far longer than the others, a cluster without workers."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

SLOW_SECONDS = 60.0  # an item that is at work for less is never told
SLOW_TIMES = 5.0  # nor one for less than so many times the median of those that are done
LOOKS = 12  # in SLOW_SECONDS


def quiet(text: str) -> None:
    """Tells nobody."""


class Watch:
    """Tells, while the block runs, which tasks are slow; each again whenever its time has doubled.

    When a task began is taken from the order: engines begin tasks in it, `slots` at a time. idle: says what the whole stage waits for, or None.
    """

    def __init__(
        self,
        tasks: Sequence[Any],
        slots: int,
        note: Callable[[str], None],
        idle: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._tasks, self._note, self._idle = tasks, note, idle
        self._next = min(max(slots, 1), len(tasks))
        self._began = dict.fromkeys(range(self._next), time.monotonic())
        self._told: dict[int, float] = {}
        self._took: list[float] = []
        self._lock = threading.Lock()
        self._over = threading.Event()

    def done(self, number: int) -> None:
        """Takes note that the task of this number has ended."""
        now = time.monotonic()
        with self._lock:
            began = self._began.pop(number, None)
            if began is not None:
                self._took.append(now - began)
            if self._next < len(self._tasks):
                self._began[self._next] = now
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

    def _look(self) -> None:
        waited = 0.0
        while not self._over.wait(SLOW_SECONDS / LOOKS):
            reason = self._idle()
            waited = waited + SLOW_SECONDS / LOOKS if reason else 0.0
            if reason:
                if waited >= SLOW_SECONDS:
                    self._note(f"{reason}; waiting for them")
                    waited = 0.0
                continue
            for number, took in self.slow():
                others = (
                    f"; half of the others took less than {statistics.median(self._took):.0f} s" if self._took else ""
                )
                self._note(f"still at work after {took:.0f} s: {self._tasks[number]}{others}")

    def __enter__(self) -> Self:
        if self._tasks:
            threading.Thread(target=self._look, name="gristmill watch", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
