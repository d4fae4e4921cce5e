"""The command line as a process: its log line by line, its JSON at the end, all of its processes gone when it is stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GRACE = 20.0  # seconds from SIGTERM to SIGKILL
NOT_FOUND = 127
PYTHON_HINT = "`python`, for the DAGs of the project GRISTMILL_PYTHON, must be the path of a Python that has gristmill"
TAIL = 30  # lines of the log that are kept for the error
GUARD = os.path.join(os.path.dirname(__file__), "guard.py")


@dataclass(frozen=True)
class Finished:
    """How a command ended. result: the JSON object on its stdout, None without one. tail: the last lines of its log."""

    command: Sequence[str]
    status: int
    result: dict[str, Any] | None
    tail: Sequence[str]

    @property
    def error(self) -> str:
        """What the command said last: from its line `gristmill: ...` on, where there is one."""
        lines = list(self.tail)
        starts = [number for number, line in enumerate(lines) if line.startswith("gristmill: ")]
        if not starts and self.status == 128 + signal.SIGKILL:
            return ""  # it had no time to say why
        return "\n".join(lines[starts[-1] :] if starts else lines[-5:]).removeprefix("gristmill: ")

    def said(self, text: str, problems: str = "") -> str:
        """The error of a command that is called `text`: how it ended and why. problems: what it found, where its log says nothing."""
        return f"{text} {self._end()}: {self.error or problems or 'no message'}"

    def _end(self) -> str:
        if self.status == 128 + signal.SIGKILL:
            return "was killed by SIGKILL (9), as happens where memory runs out"
        return f"ended with {self.status}"


class Process:
    """One command, to be run once. It ends with the process that started it, however that ends. only_log: its stdout is part of its log, not a result."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        only_log: bool = False,
    ) -> None:
        self.command = list(command)
        self._only_log = only_log
        self._env = {**os.environ, **(env or {})}
        self._cwd = cwd
        self._guard: subprocess.Popen[bytes] | None = None
        self.was_stopped = False

    def run(self, log: Callable[[str], None]) -> Finished:
        """The end of the command; each line of its log is given to `log` at once."""
        tail: deque[str] = deque(maxlen=TAIL)
        with tempfile.TemporaryFile() as output:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", GUARD, str(GRACE), *self.command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if self._only_log else output,
                stderr=subprocess.STDOUT if self._only_log else subprocess.PIPE,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )
            if self.was_stopped:  # asked to stop while it was being started
                self.stop()
            with self._guard as guard:
                lines = guard.stdout if self._only_log else guard.stderr
                assert lines is not None
                try:
                    for raw in lines:
                        line = raw.decode(errors="backslashreplace").rstrip()
                        tail.append(line)
                        log(line)
                finally:
                    if sys.exc_info()[0] is not None:
                        self.stop()
                    status = guard.wait()
            output.seek(0)
            text = output.read().decode(errors="replace").strip()
        return Finished(self.command, status, _parse(text), list(tail))

    def stop(self) -> None:
        """Asks the command and all that it started to end; returns at once. The guard sees to it."""
        self.was_stopped = True
        if self._guard is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._guard.pid, signal.SIGTERM)


def command_line(arguments: Sequence[str], python: str | None = None) -> list[str]:
    """`gristmill ARGUMENTS --json` in the environment of `python`, a path; None is the one that this runs in."""
    return [python or sys.executable, "-m", "gristmill.cli.main", *map(str, arguments), "--json"]


def _parse(text: str) -> dict[str, Any] | None:
    if not text:
        return None
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
