"""Starting and stopping the local Airflow where it goes wrong; tests of the scheduler start the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.airflow import local
from gristmill.airflow.local import LocalAirflow
from gristmill.airflow.local_config import kept_port, write_config

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


def test_every_airflow_command_of_its_home_is_the_same_airflow(tmp_path: Path) -> None:
    """AIRFLOW_HOME alone must do, as one types it: examples, DAG folder and database are those of the server."""
    home = tmp_path / "a 100% home"
    home.mkdir()
    (home / "airflow.cfg").write_text("[core]\nparallelism = 9\n[smtp]\nsmtp_host = mail\n")
    write_config(home, tmp_path / "dags", 8081)
    first = (home / "airflow.cfg").read_text()
    write_config(home, tmp_path / "dags", 8082)
    again = (home / "airflow.cfg").read_text()
    assert [line for line in again.splitlines() if line not in first] == [
        "port = 8082",
        "base_url = http://127.0.0.1:8082",
    ], "secrets and settings of the user's stay"
    assert "smtp_host = mail" in again and kept_port(home) == 8082 and (home / "airflow.cfg").stat().st_mode & 0o77 == 0
    code = (
        "from airflow.configuration import conf; import json; print(json.dumps([conf.get('core', 'dags_folder'), conf.getboolean('core', "
        "'load_examples'), conf.get('database', 'sql_alchemy_conn'), len(conf.get('core', 'fernet_key'))]))"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**env, "AIRFLOW_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [
        *(str(tmp_path / "dags"), False, f"sqlite:///{home}/airflow.db?timeout=60"),
        44,
    ]


def test_started_twice_it_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(tmp_path, tmp_path, 8085)
    (tmp_path / "standalone.pid").write_text(str(os.getpid()))
    (tmp_path / "simple_auth_manager_passwords.json.generated").write_text('{"admin": "pass word"}')
    monkeypatch.setattr(local, "is_ours", lambda pid: pid == os.getpid())
    monkeypatch.setattr(sys, "argv", ["local", "start", "--home", str(tmp_path)])
    local.main()
    said = capsys.readouterr().out
    assert "running already" in said and "http://127.0.0.1:8085" in said and "admin / pass word" in said


@pytest.mark.parametrize(
    ("name", "text"), [("GRISTMILL_ETL_SCHEDULE", "every day"), ("GRISTMILL_PYTHON", "/nope/bin/python")]
)
def test_settings_that_can_not_be_meant_are_refused_at_the_start(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)
    monkeypatch.setattr(sys, "argv", ["local", "start", "--home", str(tmp_path / "home")])
    with pytest.raises(SystemExit, match=f"{name}='{text}'"):
        local.main()
    assert not (tmp_path / "home").exists()
