"""Patterns that only `re` can match, in a process of its own, so that one that backtracks for ever is stopped and named."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SECONDS = 2.0
"""For one value; `re` looks for signals while it backtracks."""

_PROGRAM = """
import pickle, re, signal, struct, sys
def late(*_): raise TimeoutError
signal.signal(signal.SIGALRM, late)
read = sys.stdin.buffer.read
pattern, seconds, values = pickle.loads(read(struct.unpack("<q", read(8))[0]))
search, found, slow = re.compile(pattern).search, bytearray(), -1
for number, value in enumerate(values):
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        found.append(search(value) is not None)
    except TimeoutError:
        slow = number
        break
signal.setitimer(signal.ITIMER_REAL, 0)
sys.stdout.buffer.write(struct.pack("<q", slow) + bytes(found))
"""


def search_all(pattern: str, values: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(values,) bool: whether `re.search` finds the pattern in each.

    Raises:
        TimeoutError: one took more than SECONDS; the text names the pattern and the value.
    """
    if not values:
        return np.zeros(0, bool)
    message: Any = pickle.dumps((pattern, SECONDS, list(values)))
    child = subprocess.run(  # noqa: S603  our own interpreter and program
        [sys.executable, "-I", "-S", "-c", _PROGRAM],
        input=struct.pack("<q", len(message)) + message,
        capture_output=True,
        check=False,
    )
    if child.returncode:
        raise RuntimeError(f"matching {pattern!r} failed: {child.stderr.decode(errors='replace').strip()}")
    slow = struct.unpack("<q", child.stdout[:8])[0]
    if slow >= 0:
        value = values[slow]
        shown = value if len(value) <= 80 else f"{value[:80]}..."
        raise TimeoutError(
            f"regex {pattern!r} backtracks for more than {SECONDS:g} s on {shown!r}; write it without nested repeats or back-references"
        )
    return np.frombuffer(child.stdout[8:], np.uint8).view(np.bool_)
