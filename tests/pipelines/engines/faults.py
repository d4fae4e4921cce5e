"""Faults that strike real processes at a chosen work item of each kind: kills, errors, delays. Workers import this module."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from gristmill.pipelines.work import WorkStore

COOKIE = "GRISTMILL_TEST_COOKIE"  # environment variable that all processes of one run share
NEVER = 600.0  # seconds after which something has hung


@dataclass(frozen=True)
class Faults:
    """Stands in for `work.once`: does a task as that does, and strikes one task of each phase, a phase being a kind of work item.

    folder: where it is noted what has come, so that nothing is struck twice. kind: what happens, see `strike`; "" only counts. at: for each
    phase that is struck, which arrival it is. driver: the process of the run.
    """

    folder: str
    kind: str = ""
    at: tuple[tuple[str, int], ...] = ()
    driver: int = 0
    others: int = 0  # slow: how many tasks the phase has

    def __call__(self, function: Callable[[Any], dict[str, Any]], task: Any) -> dict[str, Any]:
        done: dict[str, Any] | None = task.store.done(task.key)
        if done is not None:
            return done
        phase = type(task).__name__
        number = self._arrival(phase, task.key)
        if number == dict(self.at).get(phase):
            if self.kind == "slow":
                self._wait_for_others(phase)
            elif self.kind == "fail":
                self._fail()
            else:
                task = dataclasses.replace(task, store=Doomed(task.store.root, self.kind, self.driver))
        return function(task)

    def _arrival(self, phase: str, key: str) -> int:
        """The number of this arrival of the phase, counted by all processes together; a task that always fails comes under one number."""
        for number in range(1, 10**6):
            mark = Path(f"{self.folder}/{phase}-{number}")
            try:
                with mark.open("x") as out:
                    out.write(key)
            except FileExistsError:
                if self.kind == "fail" and mark.read_text() == key:
                    return number
                continue
            return number
        raise AssertionError("too many")

    def _fail(self) -> None:
        """Notes the try, and fails until the cause is mended."""
        if not Path(f"{self.folder}/mended").exists():
            with open(f"{self.folder}/tries", "a") as out:
                out.write("x")
            raise OSError("the disk hiccuped")

    def _wait_for_others(self, phase: str) -> None:
        """Waits until all others of the phase have come, and some seconds more."""
        last = time.monotonic() + NEVER
        while len(list(Path(self.folder).glob(f"{phase}-*"))) < self.others:
            assert time.monotonic() < last, "the others wait for this one"
            time.sleep(0.05)
        time.sleep(3)


@dataclass(frozen=True)
class Doomed(WorkStore):
    """Strikes when the work is written and not yet visible."""

    kind: str = ""
    driver: int = 0

    @contextlib.contextmanager
    def create(self, key: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        with super().create(key) as made:
            yield made
            strike(self.kind, self.driver)


def strike(kind: str, driver: int) -> None:
    """worker: this process is killed. executor: the JVM that it works for. driver: the run's own process; this one then hangs."""
    if kind == "worker":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "executor":
        psutil.Process(os.getppid()).parent().kill()
        time.sleep(NEVER)
    elif kind == "driver":
        os.kill(driver, signal.SIGKILL)
        time.sleep(NEVER)


def counted(folder: Path) -> dict[str, int]:
    """How many tasks of each phase came."""
    found: dict[str, int] = {}
    for path in folder.iterdir():
        phase, _, number = path.name.rpartition("-")
        if number.isdigit():
            found[phase] = found.get(phase, 0) + 1
    return found


def running(cookie: str) -> list[psutil.Process]:
    """The processes that have the cookie, whoever their parents are."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(COOKIE) == cookie and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
