"""The memory of a process and all its children, sampled: the sum of their PSS, in which pages that they share count once; and their processor time."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Self


def tree(root: int) -> list[int]:
    """The process and all its descendants."""
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        try:
            for thread in Path(f"/proc/{found[-1]}/task").iterdir():
                todo += map(int, (thread / "children").read_text().split())
        except OSError:
            continue
    return found


def held(pid: int) -> tuple[int, int]:
    """(PSS, the part of it that is no file's page) of a process in bytes; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines[1:]}
    return sizes.get("Pss", 0), sizes.get("Pss_Anon", 0) + sizes.get("Pss_Shmem", 0)


def used(pid: int) -> float:
    """Seconds of processor time of a process, 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Sampler:
    """Peaks of a process tree while the block runs, by one sample every `interval` seconds. Linux only."""

    def __init__(self, root: int, interval: float = 0.2) -> None:
        self.peak = self.peak_private = self.samples = 0
        self.at_peak: list[int] = []
        self.peaks: dict[int, int] = {}  # of each process, in time apart
        self._used: dict[int, float] = {}
        self._root, self._interval = root, interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            pids = tree(self._root)
            sizes = [held(pid) for pid in pids]
            self.peaks.update({pid: max(self.peaks.get(pid, 0), size[0]) for pid, size in zip(pids, sizes)})
            self._used.update({pid: max(self._used.get(pid, 0.0), used(pid)) for pid in pids})
            total = sum(pss for pss, _ in sizes)
            if total > self.peak:
                self.peak, self.at_peak = total, [pss for pss, _ in sizes]
            self.peak_private = max(self.peak_private, sum(private for _, private in sizes))
            self.samples += 1

    @property
    def children(self) -> int:
        """The sum of the peaks of all processes but the first."""
        return sum(peak for pid, peak in self.peaks.items() if pid != self._root)

    @property
    def cpu(self) -> float:
        """Seconds of processor time of all processes as last seen: also of those that nobody waits for, as a JVM's."""
        return sum(self._used.values())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
