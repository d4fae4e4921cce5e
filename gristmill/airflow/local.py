"""A whole Airflow on this machine, without containers: `python -m gristmill.airflow.local start|stop`. For trying things out, and for tests.

It listens on 127.0.0.1 only and keeps all that it has in one folder (`.airflow`): database (SQLite), logs, example project.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from gristmill.airflow.local_config import USER, kept_port, write_config
from gristmill.airflow.settings import settings

START_SECONDS = 180.0
STOP_SECONDS = 30.0
ANSWER_SECONDS = 120.0  # a busy laptop answers late
STANDALONE = "gristmill.airflow.standalone"


@dataclass(frozen=True)
class LocalAirflow:
    """`airflow standalone` with its home, DAG folder, project and port."""

    home: Path
    dags: Path
    project: Path
    port: int

    @property
    def url(self) -> str:
        """Of the web page."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables of all its processes; all else is in `airflow.cfg`. What the caller has set for gristmill counts more."""
        return {
            "GRISTMILL_FOLDER": str(self.project),
            **os.environ,
            "AIRFLOW_HOME": str(self.home),
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]),
        }

    @property
    def password(self) -> str:
        """Of the user `admin`; made at the first start."""
        return str(json.loads((self.home / "simple_auth_manager_passwords.json.generated").read_text())[USER])

    def airflow(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """What `airflow ARGUMENTS` said."""
        command = [sys.executable, "-m", "airflow", *arguments]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def start(self) -> None:
        """Returns when it answers and all its parts are healthy.

        Raises:
            RuntimeError: it ended, or isn't there in time; what it logged last is in the text.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        write_config(self.home, self.dags, self.port)
        with open(self.home / "standalone.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", STANDALONE],
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        (self.home / "standalone.pid").write_text(str(process.pid))
        try:
            wait_for(self.healthy, START_SECONDS, alive=lambda: process.poll() is None)
        except TimeoutError as error:
            self.stop()
            lines = (self.home / "standalone.log").read_text(errors="replace").splitlines()[-15:]
            raise RuntimeError(f"Airflow did not start: {error}\n" + "\n".join(lines)) from error
        except BaseException:  # Ctrl-C while it starts
            self.stop()
            raise

    def stop(self) -> bool:
        """Whether it ran; all of its processes are gone then, and those of its tasks too."""
        path = self.home / "standalone.pid"
        try:
            group = int(path.read_text())
        except FileNotFoundError:
            return False
        was = is_ours(group)
        if was:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, number)
                with contextlib.suppress(TimeoutError):
                    wait_for(lambda: not group_alive(group), STOP_SECONDS / 3)
                    break
        path.unlink(missing_ok=True)
        return was

    def healthy(self) -> bool:
        """Whether scheduler, triggerer and DAG processor have been heard of lately."""
        try:
            with urllib.request.urlopen(f"{self.url}/api/v2/monitor/health", timeout=5) as answer:  # noqa: S310  our own address
                parts = json.load(answer)
        except (OSError, json.JSONDecodeError):
            return False
        return all(
            (parts.get(name) or {}).get("status") == "healthy"
            for name in ("metadatabase", "scheduler", "triggerer", "dag_processor")
        )

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON that the REST API answers; its errors as urllib's HTTPError with the text in the message."""
        return call(method, f"{self.url}/api/v2/{path}", body, self._token())

    def _token(self) -> str:
        return str(
            call("POST", f"{self.url}/auth/token", {"username": USER, "password": self.password})["access_token"]
        )


def call(method: str, url: str, body: Any = None, token: str | None = None) -> Any:
    """The JSON of an answer; None for an empty one."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers, method=method)  # noqa: S310  our own address
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
            text = answer.read()
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{method} {url}: {error.code} {error.read().decode(errors='replace')[:500]}") from error
    return json.loads(text) if text else None


def wait_for(
    done: Callable[[], Any], seconds: float, alive: Callable[[], bool] = lambda: True, every: float = 0.5
) -> Any:
    """What `done` gives once it is true.

    Raises:
        TimeoutError: not in time, or what it waits for is no longer alive.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := done():
            return found
        if not alive():
            raise TimeoutError("it has ended")
        time.sleep(every)
    raise TimeoutError(f"not within {seconds:.0f} s")


def group_alive(group: int) -> bool:
    """Whether a process of the group is running; a zombie is not."""
    return any(
        _group_of(process) == group and process.status() != psutil.STATUS_ZOMBIE for process in psutil.process_iter()
    )


def is_ours(pid: int) -> bool:
    """Whether the process is a local Airflow, not another one that got its number since."""
    try:
        process = psutil.Process(pid)
        with contextlib.suppress(TimeoutError):  # a process that is being started has no command line for a moment
            wait_for(lambda: bool(process.cmdline()) or process.status() == psutil.STATUS_ZOMBIE, 10)
        return STANDALONE in process.cmdline()
    except psutil.Error:
        return False


def _group_of(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


def free_port(first: int) -> int:
    """The first of some ports from `first` on that is free."""
    for port in range(first, first + 50):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise RuntimeError(f"no free port from {first} on")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m gristmill.airflow.local", description=__doc__)
    parser.add_argument("do", choices=["start", "stop"])
    parser.add_argument("--home", default=".airflow", help="folder of all that it keeps")
    parser.add_argument("--dags", default="airflow_dags", help="folder of DAG files")
    parser.add_argument("--port", type=int, default=8080, help="of the web page; the next free one where it is taken")
    given = parser.parse_args()
    home = Path(given.home).resolve()
    if given.do == "stop":
        print("stopped" if LocalAirflow(home, Path(), Path(), 0).stop() else "it was not running")
        return
    project, running = home / "gristmill", home / "standalone.pid"  # as the settings have it by default
    if running.exists() and is_ours(int(running.read_text())):
        print(f"Airflow is running already\n{shown(LocalAirflow(home, Path(), project, kept_port(home)))}")
        return
    check_settings()
    from gristmill.airflow.example import make_project

    first = not (home / "airflow.db").exists()
    made = LocalAirflow(home, Path(given.dags).resolve(), make_project(project), free_port(given.port))
    print("starting Airflow; the first time this takes a minute", flush=True)
    made.start()
    begun = "gristmill_etl has begun its run for yesterday; gristmill_validate and gristmill_training_ready follow it."
    print(
        f"{shown(made)}\n\n{begun if first else 'gristmill_etl runs by its schedule, or when it is triggered there.'}"
    )
    print("stop it with    make airflow-stop")


def check_settings() -> None:
    """Ends the process where a variable of the DAGs can't be meant."""
    try:
        python = settings().python
    except ValueError as error:
        raise SystemExit(str(error)) from error
    if python and shutil.which(python) is None:
        raise SystemExit(f"GRISTMILL_PYTHON='{python}': no such program")


def shown(made: LocalAirflow) -> str:
    """Where it is and how to get in."""
    return f"""
Airflow is at   {made.url}
login           {USER} / {made.password}
project         {made.project}      pipelines, suites, mixes and raw data: edit them
log             {made.home / "standalone.log"}"""


if __name__ == "__main__":
    main()
