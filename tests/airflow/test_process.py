"""Processes: what they say, how they end, and that nothing of them stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from gristmill.airflow import process as process_module
from gristmill.airflow.process import Process, command_line

FAMILY = textwrap.dedent("""
    import os, subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
    print("started", file=sys.stderr, flush=True)
    time.sleep(300)
""")


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def read_pids(path: Path, seconds: float = 20) -> list[int]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists() and len(path.read_text().split()) == 2:
            return [int(pid) for pid in path.read_text().split()]
        time.sleep(0.05)
    raise AssertionError("the command did not start")


def gone(pids: list[int], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
            return True
        time.sleep(0.05)
    return False


def test_lines_come_while_it_runs_and_json_at_the_end() -> None:
    code = "import sys, time; print('one', file=sys.stderr, flush=True); time.sleep(1); print('two', file=sys.stderr); print('{\"a\": 1}')"
    came: list[tuple[str, float]] = []
    found = Process(python(code)).run(lambda line: came.append((line, time.monotonic())))
    assert [line for line, _ in came] == ["one", "two"] and came[1][1] - came[0][1] > 0.5
    assert (found.status, found.result, found.tail) == (0, {"a": 1}, ["one", "two"])


@pytest.mark.parametrize("status", [0, 1, 2, 3, 130])
def test_the_exit_status_comes_through(status: int) -> None:
    assert Process(python(f"raise SystemExit({status})")).run(print).status == status


def test_a_signal_is_128_and_its_number() -> None:
    assert Process(python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")).run(print).status == 137


def test_the_error_is_what_gristmill_said_last() -> None:
    code = "import sys; print('ingest: 3 items\\ngristmill: first\\ngristmill: no pipeline file\\n  in the folder', file=sys.stderr); sys.exit(2)"
    assert Process(python(code)).run(lambda _: None).error == "no pipeline file\n  in the folder"


def test_a_python_that_is_not_there() -> None:
    found = Process(command_line(["plan", "x.yaml"], "/no/such/python")).run(lambda _: None)
    assert found.status == 127 and "/no/such/python" in found.error and "No such file" in found.error


def test_bytes_that_are_no_text_and_very_many_lines() -> None:
    lines: list[str] = []
    code = "import sys; sys.stderr.buffer.write(b'\\xff\\xfe bad\\n'); [print('x' * 200, file=sys.stderr) for _ in range(20000)]; print('[1, 2]')"
    found = Process(python(code)).run(lines.append)
    assert len(lines) == 20001 and lines[0] == "\\xff\\xfe bad"
    assert len(found.tail) == process_module.TAIL and found.result is None


def test_what_the_command_leaves_running_ends_with_it(tmp_path: Path) -> None:
    code = FAMILY.rsplit("time.sleep", 1)[0]  # ends at once; its child would go on
    assert Process(python(code, str(tmp_path / "pids"))).run(lambda _: None).status == 0
    assert gone(read_pids(tmp_path / "pids"))


def stopped(code: str, path: Path) -> tuple[list[int], list[int]]:
    """(its exit status, the processes) of a family that was stopped."""
    running = Process(python(code, str(path)))
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(running.run(lambda _: None).status))
    thread.start()
    pids = read_pids(path)
    running.stop()
    thread.join(30)
    return found, pids


def test_stop_ends_all_of_it(tmp_path: Path) -> None:
    status, pids = stopped(FAMILY, tmp_path / "pids")
    assert status == [128 + signal.SIGTERM] and gone(pids)


def test_one_that_will_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "GRACE", 0.5)
    status, pids = stopped("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FAMILY, tmp_path / "pids")
    assert status == [128 + signal.SIGKILL] and gone(pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to a process that asks for them")
def test_children_in_sessions_of_their_own_end_too(tmp_path: Path) -> None:
    """As the workers of torchrun: no signal to the group reaches them, and they hold the log open."""
    code = FAMILY.replace('sleep(300)"]', 'sleep(300)"], start_new_session=True')
    assert code != FAMILY
    status, pids = stopped(code, tmp_path / "pids")
    assert status == [128 + signal.SIGTERM] and gone(pids)
    assert Process(python(code.rsplit("time.sleep", 1)[0], str(tmp_path / "left"))).run(lambda _: None).status == 0
    assert gone(read_pids(tmp_path / "left"))


def test_a_guard_that_is_told_to_stop_before_its_command_runs(tmp_path: Path) -> None:
    """SIGTERM while the command is being started: it must not run on without anybody to stop it."""
    code = (
        "import os, runpy, signal, subprocess, sys\n"
        "start = subprocess.Popen\n"
        "def late(*words, **options):\n"
        "    child = start(*words, **options); os.kill(os.getpid(), signal.SIGTERM); return child\n"
        "subprocess.Popen = late\n"
        f"sys.argv = ['guard', '5', sys.executable, '-c', {FAMILY!r}, sys.argv[1]]\n"
        f"runpy.run_path({process_module.GUARD!r}, run_name='__main__')"
    )
    read, write = os.pipe()
    guard = subprocess.Popen(python(code, str(tmp_path / "pids")), stdin=read, stderr=subprocess.DEVNULL)
    assert guard.wait(timeout=30) == 128 + signal.SIGTERM
    os.close(read)
    os.close(write)
    if (tmp_path / "pids").exists():  # it came that far
        assert gone(read_pids(tmp_path / "pids"))


def test_stdout_may_be_part_of_the_log() -> None:
    lines: list[str] = []
    code = (
        "import sys; print('step 1', flush=True); print('loss 2', file=sys.stderr, flush=True); print('{}', flush=True)"
    )
    found = Process(python(code), only_log=True).run(lines.append)
    assert lines == ["step 1", "loss 2", "{}"] == list(found.tail) and found.result is None


def test_an_error_while_reading_stops_it(tmp_path: Path) -> None:
    def fail(line: str) -> None:
        raise TimeoutError(line)

    with pytest.raises(TimeoutError, match="started"):
        Process(python(FAMILY, str(tmp_path / "pids"))).run(fail)
    assert gone(read_pids(tmp_path / "pids"))


def test_nothing_is_left_when_the_worker_is_killed(tmp_path: Path) -> None:
    """kill -9 of the process that runs the task: its command can't be told, but ends."""
    code = "import sys; from gristmill.airflow.process import Process; Process([sys.executable, '-c', sys.argv[1], sys.argv[2]]).run(print)"
    worker = subprocess.Popen(python(code, FAMILY, str(tmp_path / "pids")), stdout=subprocess.DEVNULL)
    pids = read_pids(tmp_path / "pids")
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert gone(pids)


def test_the_guard_needs_no_packages() -> None:
    """It runs before every command, so it must start fast: the interpreter, isolated and without site, and few modules."""
    code = (
        "import sys; sys.argv = ['guard', '1', 'true']; import runpy; runpy.run_path(%r); print(len(sys.modules))"
        % process_module.GUARD
    )
    found = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 90
