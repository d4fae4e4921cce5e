"""Progress on stderr: a bar for each stage on a terminal, plain lines elsewhere, nothing when asked for quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

EVERY = 5.0  # seconds between plain lines of one stage


class Stage(Protocol):
    """Counts one stage's finished items."""

    def advance(self, summary: dict[str, Any]) -> None:
        """Counts one item by its summary: `rows` and `bytes`."""
        ...


class Progress:
    """Shows stages. `mode`: bar, lines, quiet; None chooses bar on a terminal, else lines."""

    def __init__(self, mode: str | None = None) -> None:
        self._mode = mode or ("bar" if sys.stderr.isatty() else "lines")

    def note(self, text: str) -> None:
        """One line of information."""
        if self._mode != "quiet":
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def stage(self, name: str, items: int) -> Iterator[Stage]:
        """A stage of so many items; its line or bar ends with the block."""
        if self._mode == "bar":
            with _bar(name, items) as stage:
                yield stage
            return
        lines = _Lines(name, items, quiet=self._mode == "quiet")
        yield lines
        lines.finish()


class _Lines:
    def __init__(self, name: str, items: int, *, quiet: bool) -> None:
        self._name, self._items, self._quiet = name, items, quiet
        self._start = self._last = time.monotonic()
        self._done = self._rows = self._bytes = 0

    def advance(self, summary: dict[str, Any]) -> None:
        self._done += 1
        self._rows += summary.get("rows", 0)
        self._bytes += summary.get("bytes", 0)
        if time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            self._say()

    def finish(self) -> None:
        if self._items:
            self._say()

    def _say(self) -> None:
        seconds = max(time.monotonic() - self._start, 1e-6)
        left = seconds / max(self._done, 1) * (self._items - self._done)
        ahead = f", about {left:.0f} s left" if self._done < self._items else ""
        if not self._quiet:
            print(f"{self._name}: {self._done}/{self._items} items{_rates(self._rows, self._bytes, seconds)}{ahead}", file=sys.stderr, flush=True)


def _rates(rows: int, size: int, seconds: float) -> str:
    text = f", {rows:,} rows ({rows / seconds:,.0f}/s)" if rows else ""
    return text + (f", {size / seconds / 1e6:,.0f} MB/s" if size else "") + f", {seconds:.1f} s"


class _Bar:
    def __init__(self, bar: Any, task: Any) -> None:
        self._bar, self._task = bar, task
        self._start, self._rows, self._bytes = time.monotonic(), 0, 0

    def advance(self, summary: dict[str, Any]) -> None:
        self._rows += summary.get("rows", 0)
        self._bytes += summary.get("bytes", 0)
        seconds = max(time.monotonic() - self._start, 1e-6)
        self._bar.update(self._task, advance=1, rates=_rates(self._rows, self._bytes, seconds).removeprefix(", "))


@contextmanager
def _bar(name: str, items: int) -> Iterator[Stage]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description:<28}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[rates]}"),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        yield _Bar(bar, bar.add_task(name, total=items, rates=""))
