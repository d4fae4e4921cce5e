"""An Airflow of the tests' own: its home is a temporary folder; DAGs are run in another process, so that nothing of Airflow's set-up leaks into other tests."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow", reason="Airflow is not installed: pip install 'gristmill[airflow]'")

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "airflow_dags"
HOME = Path(tempfile.mkdtemp(prefix="gristmill-airflow-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ["AIRFLOW_HOME"] = str(HOME)  # before anything imports airflow, which makes the folder and a configuration
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"


class Driver:
    """Runs DAGs with `dag.test` in one other process, that keeps its database from run to run."""

    def __init__(self, project: Path) -> None:
        self.project = project
        dags = project.parent / "dags"
        shutil.copytree(DAGS, dags, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(Path(__file__).with_name("dags"), dags / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        env = {
            **os.environ,
            "GRISTMILL_FOLDER": str(project),
            "GRISTMILL_RETRIES": "0",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        }
        self._log = open(project.parent / "driver.log", "w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("driver.py")), str(dags)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=env,
        )

    def run(self, dag: str, *, conf: dict[str, Any] | None = None, date: str | None = None) -> dict[str, Any]:
        """{"state", "tasks": {"each.run[0]": state}, "xcoms": {"each.run[0]": {key: value}}, "events": [asset events], "log": text}."""
        assert self._process.stdin and self._process.stdout
        start = os.fstat(self._log.fileno()).st_size
        self._process.stdin.write(json.dumps({"dag": dag, "conf": conf or {}, "date": date}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, Path(self._log.name).read_text()[-4000:]
        return {**json.loads(answer), "log": Path(self._log.name).read_text()[start:]}

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._log.close()


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """The process; its project folder is made by each test's `project`."""
    found = Driver(tmp_path_factory.mktemp("airflow") / "project")
    yield found
    found.close()


@pytest.fixture
def project(driver: Driver) -> Path:
    """The example project, as new."""
    from gristmill.airflow.example import make_project

    shutil.rmtree(driver.project, ignore_errors=True)
    return make_project(driver.project, days=3)
