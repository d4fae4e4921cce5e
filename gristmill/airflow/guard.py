"""Runs one command in a process group of its own and ends all of it when asked to, or when whoever started it is gone.

    python guard.py SECONDS COMMAND [ARGUMENT ...]

Its standard input is a pipe that the starter keeps open: the end of it, or SIGTERM, stops the group with SIGTERM and, after SECONDS, with SIGKILL.
What the command leaves running goes at its end. Needs nothing but Python, so that it starts in some hundredths of a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading


def main(seconds: float, command: list[str]) -> int:
    """The command's exit status; 128 and the signal where one ended it, 127 where it can't be started."""
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    except OSError as error:
        print(f"gristmill: can't start '{command[0]}': {error.strerror}", file=sys.stderr)
        return 127

    def end(number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)

    def stop(*_: object) -> None:
        end(signal.SIGTERM)
        timer = threading.Timer(seconds, end, (signal.SIGKILL,))
        timer.daemon = True
        timer.start()

    def watch() -> None:
        while os.read(0, 1):
            pass
        stop()

    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=watch, daemon=True).start()
    status = child.wait()
    end(signal.SIGKILL)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
