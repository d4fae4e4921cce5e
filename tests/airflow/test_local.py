"""Starting and stopping the local Airflow where it goes wrong; tests of the scheduler start the real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.airflow import local
from gristmill.airflow.local import LocalAirflow

from .test_process import gone


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalAirflow:
    """One whose standalone command is `stand_in.py` of the test's."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(local, "STANDALONE", "stand_in")
    return LocalAirflow(tmp_path / "home", tmp_path / "dags", tmp_path / "project", 1)


def test_ctrl_c_while_it_starts_leaves_nothing(
    made: LocalAirflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stand_in.py").write_text("import time\ntime.sleep(300)\n")
    pids: list[int] = []

    def interrupt(self: LocalAirflow) -> bool:
        pids.append(int((self.home / "standalone.pid").read_text()))
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalAirflow, "healthy", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made.start()
    assert len(pids) == 1 and gone(pids) and not (made.home / "standalone.pid").exists()
    assert made.stop() is False


def test_one_that_ends_at_once_says_why(made: LocalAirflow, tmp_path: Path) -> None:
    (tmp_path / "stand_in.py").write_text("raise SystemExit('no room on the disk')\n")
    with pytest.raises(RuntimeError, match="(?s)did not start: it has ended.*no room on the disk"):
        made.start()
    assert not (made.home / "standalone.pid").exists()
