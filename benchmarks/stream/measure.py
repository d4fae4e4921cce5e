"""Runs one loader in a process of its own and measures it from outside."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

HERE = Path(__file__).parent
EVERY = 0.2  # seconds between looks at the memory


@dataclass(frozen=True)
class Measured:
    """rate: rows a second in the first epoch, from before the loader was made; again: in the second; first: seconds to the first batch; cpu: CPU seconds of all processes
    per 100,000 rows of both epochs; peak: bytes of all processes above those before the loader was made; batches: ids of each batch of the first epoch.
    """

    rate: float
    again: float
    first: float
    cpu: float
    peak: int
    batches: list[np.ndarray]


def run(python: str, script: str, arguments: Sequence[str], seconds: float = 240) -> Measured:
    """The figures of one loader.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "batches.npz"
        found, watch = call(python, script, [*arguments, "--result", str(result)], seconds)
        with np.load(result) as arrays:
            batches = [arrays[name] for name in arrays.files]
    one, two = found["epochs"]
    cpu = (watch.cpu - found["base_cpu"]) * 1e5 / (one["rows"] + two["rows"])
    return Measured(
        one["rows"] / one["seconds"],
        two["rows"] / two["seconds"],
        one["first"],
        cpu,
        max(0, watch.peak - found["base"]),
        batches,
    )


def call(python: str, script: str, arguments: Sequence[str], seconds: float) -> tuple[dict[str, Any], Watch]:
    """(what a script of this folder reported, what was seen of its processes)."""
    process = subprocess.Popen(
        [python, str(HERE / script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    watch = Watch(process.pid)
    try:
        out, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"did not end within {seconds:.0f} s") from None
    finally:
        watch.stop()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)  # workers that outlive it
        process.wait()
    line = next((line for line in out.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise RuntimeError((error.strip().splitlines() or ["no result"])[-1])
    return json.loads(line.removeprefix("RESULT ")), watch


class Watch:
    """Looks at a process and those that it started. peak: the largest sum of their memory (proportional shares), bytes; cpu: their CPU seconds."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._process = psutil.Process(pid)
        self._seconds: dict[int, float] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    @property
    def cpu(self) -> float:
        """CPU seconds of all processes as last seen."""
        return sum(self._seconds.values())

    def stop(self) -> None:
        """Ends looking."""
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(EVERY):
            with contextlib.suppress(psutil.Error):
                processes = [self._process, *self._process.children(recursive=True)]
                self.peak = max(self.peak, sum(map(_pss, processes)))
                for process in processes:
                    with contextlib.suppress(psutil.Error):
                        used = process.cpu_times()
                        self._seconds[process.pid] = used.user + used.system


def _pss(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0


def distinct_groups(batches: Sequence[np.ndarray], groups: np.ndarray, size: int) -> float:
    """Mean distinct row groups in a (nearly) whole batch. groups: (row groups,) their rows, in the order of ids."""
    ends = np.cumsum(groups)
    whole = [batch for batch in batches if len(batch) >= 0.9 * size]
    return (
        float(np.mean([len(np.unique(np.searchsorted(ends, batch, "right"))) for batch in whole]))
        if whole
        else float("nan")
    )


def ideal_groups(groups: np.ndarray, size: int) -> float:
    """The same of a batch drawn at random from all rows."""
    return float((1 - (1 - groups / groups.sum()) ** size).sum())


OURS = sys.executable
