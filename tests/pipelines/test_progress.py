"""What is shown while a run works: bars on a terminal, lines elsewhere, nothing when quiet."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest

from gristmill.pipelines import progress
from gristmill.pipelines.progress import Progress

CODE = """
import sys, time
from gristmill.pipelines.progress import Progress
shown = Progress()
shown.note("2 workers")
with shown.stage("ingest", 4) as stage:
    for _ in range(4):
        time.sleep(0.15)
        stage.advance({"rows": 1000, "bytes": 5_000_000})
"""


def on_terminal(code: str, columns: int) -> str:
    """What a program writes to a terminal of this width."""
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-c", code], stdin=child, stdout=child, stderr=child, env=environment)
    os.close(child)
    content = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not part:
            break
        content += part
    os.close(parent)
    assert process.wait(60) == 0, content.decode()
    return content.decode()


def test_a_terminal_gets_a_bar_with_rates_and_time_left():
    text = on_terminal(CODE, 100)
    assert "2 workers" in text and "ingest" in text and "━" in text
    assert "1/4" in text and "4/4" in text and "left" in text and "rows/s" in text and "MB/s" in text


def test_a_narrow_terminal_gets_each_stage_in_one_line():
    import re

    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", on_terminal(CODE, 80))]
    bars = [line for line in lines if "/4" in line]
    assert bars and all(line.startswith("ingest") and line.rstrip().endswith(" s") and len(line) <= 80 for line in bars)


def lines(capsys: pytest.CaptureFixture[str], mode: str | None = None, items: int = 3) -> list[str]:
    with Progress(mode).stage("steps 1/1", items) as stage:
        for _ in range(items):
            stage.advance({"rows": 10, "bytes": 4_000})
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    Progress().note("hello")
    assert sys.stderr.getvalue() == "hello\n"
    monkeypatch.undo()
    (line,) = lines(capsys)
    assert line.startswith("steps 1/1: 3/3 items, 30 rows, ") and "rows/s" in line and "left" not in line


def test_a_long_stage_says_how_much_is_left(capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    found = lines(capsys)
    assert ["left" in line for line in found] == [True, True, False, False]


def test_quiet_and_stages_without_items_say_nothing(capsys):
    assert lines(capsys, "quiet") == [] == lines(capsys, items=0) == lines(capsys, "bar", items=0)
