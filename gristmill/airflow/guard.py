"""Runs one command in a process group of its own and ends all of it when asked to, or when whoever started it is gone.

    python guard.py SECONDS COMMAND [ARGUMENT ...]

Its standard input is a pipe that the starter keeps open: the end of it, or SIGTERM, stops the group with SIGTERM and, after SECONDS, with SIGKILL.
What the command leaves running goes at its end, on Linux also what has moved to a session of its own, as the workers of torchrun do. Needs nothing
but Python, so that it starts in some hundredths of a second.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main(seconds: float, command: list[str]) -> int:
    """The command's exit status; 128 and the signal where one ended it, 127 where it can't be started."""
    child: subprocess.Popen[bytes] | None = None
    asked = threading.Event()

    def end(number: int) -> None:
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)

    def stop(*_: object) -> None:
        asked.set()
        end(signal.SIGTERM)
        timer = threading.Timer(seconds, end, (signal.SIGKILL,))
        timer.daemon = True
        timer.start()

    def watch() -> None:
        while os.read(0, 1):
            pass
        stop()

    signal.signal(signal.SIGTERM, stop)  # before there is a command, so that none is started that nobody stops
    adopt()
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    except OSError as error:
        print(f"gristmill: can't start '{command[0]}': {error.strerror}", file=sys.stderr)
        return 127
    if asked.is_set():
        stop()
    threading.Thread(target=watch, daemon=True).start()
    status = child.wait()
    end(signal.SIGKILL)
    end_left()
    return status if status >= 0 else 128 - status


def adopt() -> None:
    """Makes this process the parent of all orphans below it. Only Linux knows that; elsewhere a process in a session of its own may stay."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_left() -> None:
    """Kills the children of this process, and theirs as they become its own, until none is left."""
    while left := children():
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def children() -> list[int]:
    """The processes whose parent this one is."""
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                if int(file.read().rpartition(")")[2].split()[1]) == os.getpid():
                    found.append(int(name))
    return found


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
