"""The command line called in this process and through the console script; a small dataset that `init` and `run` made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gristmill.cli.main import main

SCRIPT = Path(sys.executable).parent / "gristmill"


@dataclass
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        assert self.status in (0, 1), self.err
        return json.loads(self.out)


Cli = Callable[..., Done]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """cli("show", "mine/shards", ...) -> Done, in this process."""

    def call(*words: Any) -> Done:
        monkeypatch.setattr(sys, "argv", ["gristmill", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        return Done(status, *capsys.readouterr())

    return call


def console(*words: Any, **options: Any) -> Done:
    """The same through the installed script, in a process of its own."""
    done = subprocess.run([SCRIPT, *map(str, words)], capture_output=True, text=True, timeout=120, **options)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def _mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with mine/ as `gristmill init` and `gristmill run` leave it."""
    folder = tmp_path_factory.mktemp("starter")
    assert console("init", "mine", cwd=folder).status == 0
    assert console("run", "mine/pipeline.yaml", cwd=folder).status == 0
    return folder


@pytest.fixture
def mine(_mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with mine/pipeline.yaml, mine/raw/notes.jsonl and the dataset mine/shards of one version."""
    shutil.copytree(_mine / "mine", tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    return tmp_path
