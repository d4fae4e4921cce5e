"""What the commands share: options of the same meaning, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
DatasetPath = Annotated[str, typer.Argument(help="The dataset's folder or URL, optionally with @VERSION.")]
DatasetFolder = Annotated[str, typer.Argument(help="The dataset's folder or URL.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Lay key.path=value over the file; repeatable.", metavar="KEY=VALUE")
]


def size(count: int) -> str:
    """A number of bytes with its unit."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:,.1f} {unit}"
    return f"{count} bytes"


def counted(count: int, noun: str) -> str:
    """A number with its noun: 1 row, 2,000 rows."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def print_outcome(verdict: Mapping[str, Any]) -> None:
    """A verdict in some lines: passed or failed, what failed, and where the report is."""
    print(f"  suite {verdict['suite']}: {'passed' if verdict['success'] else 'FAILED'}")
    for text in verdict["failed"]:
        print(f"    {text}")
    if verdict.get("bad_rows"):
        print(f"  bad rows: {verdict['bad_rows']}")
    if verdict.get("report"):
        print(f"  report: {verdict['report']}")
