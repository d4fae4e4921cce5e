"""Progress on stderr: a bar for each stage on a terminal, plain lines elsewhere, nothing when asked for quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

EVERY = 5.0  # seconds between plain lines of one stage
BAR = (8, 40)  # characters, least and most
BESIDE_BAR = 74  # characters of a line that aren't the bar


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
        """A stage of so many items; its line or bar ends with the block. A stage without items shows nothing."""
        if self._mode == "bar" and items:
            with _bar(name, items) as stage:
                yield stage
            return
        lines = _Lines(name, items, self)
        yield lines
        lines.finish()


@dataclass
class _Rate:
    """Rows and bytes since the stage began."""

    start: float = field(default_factory=time.monotonic)
    rows: int = 0
    bytes: int = 0

    def count(self, summary: dict[str, Any]) -> None:
        self.rows += summary.get("rows", 0)
        self.bytes += summary.get("bytes", 0)

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self.start, 1e-6)

    def __str__(self) -> str:
        rows = f"{self.rows / self.seconds:,.0f} rows/s, " if self.rows else ""
        speed = self.bytes / self.seconds / 1e6
        return f"{rows}{f'{speed:,.{0 if speed >= 10 else 1}f} MB/s, ' if self.bytes else ''}{self.seconds:.1f} s"


class _Lines:
    def __init__(self, name: str, items: int, progress: Progress) -> None:
        self._name, self._items, self._progress = name, items, progress
        self._rate, self._done = _Rate(), 0
        self._last = self._rate.start

    def advance(self, summary: dict[str, Any]) -> None:
        self._done += 1
        self._rate.count(summary)
        if time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            self._say()

    def finish(self) -> None:
        if self._items:
            self._say()

    def _say(self) -> None:
        left = self._rate.seconds / max(self._done, 1) * (self._items - self._done)
        ahead = f", about {left:.0f} s left" if self._done < self._items else ""
        rows = f", {self._rate.rows:,} rows" if self._rate.rows else ""
        self._progress.note(f"{self._name}: {self._done}/{self._items} items{rows}, {self._rate}{ahead}")


@dataclass
class _Bar:
    bar: Any
    task: Any
    rate: _Rate

    def advance(self, summary: dict[str, Any]) -> None:
        self.rate.count(summary)
        self.bar.advance(self.task)


@contextmanager
def _bar(name: str, items: int) -> Iterator[Stage]:
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    least, most = BAR
    columns = (
        progress.TextColumn("{task.description:<20}"),
        progress.BarColumn(bar_width=max(least, min(most, console.width - BESIDE_BAR))),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(compact=True),
        progress.TextColumn("left, {task.fields[rate]}"),
    )
    with progress.Progress(*columns, console=console) as bar:
        rate = _Rate()  # the bar formats it anew at every refresh
        yield _Bar(bar, bar.add_task(name, total=items, rate=rate), rate)
