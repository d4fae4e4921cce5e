"""Takes epochs from a loader and prints one JSON line about it. Runs in our environment and in the peers': standard library and numpy only."""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

EPOCHS = 2


def consume(make: Callable[[], Any], ids_of: Callable[[Any], Any], limit: float, epochs: Callable[[Any, int], Iterable[Any]]) -> None:
    """Prints rows, seconds and CPU seconds of each epoch, the time to the first batch, and which rows were in each batch of the first epoch.

    make: the loader, its construction is part of the first epoch. ids_of: the ids in a batch. limit: seconds after which an epoch is left.
    epochs: (loader, number) -> the batches of that epoch.
    """
    base = pss()
    found: dict[str, Any] = {"base": base, "epochs": []}
    batches: list[Any] = []
    start = time.perf_counter()
    cpu = cpu_seconds()
    loader = make()
    for number in range(EPOCHS):
        rows, first = 0, None
        for batch in epochs(loader, number):
            ids = ids_of(batch)
            first = first or (time.perf_counter() - start, len(ids))
            rows += len(ids)
            if number == 0:
                batches.append(np.array(ids))
            if time.perf_counter() - start > limit:
                break
        seconds = time.perf_counter() - start
        assert first is not None, "no batch"
        found["epochs"].append({"rows": rows, "seconds": seconds, "cpu": cpu_seconds() - cpu, "first": first[0], "first_rows": first[1]})
        start, cpu = time.perf_counter(), cpu_seconds()
    path = sys.argv[-1]
    np.savez(path, *batches)
    print("RESULT " + json.dumps(found), flush=True)


def cpu_seconds() -> float:
    """CPU seconds of this process and of ended children."""
    return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def pss() -> int:
    """This process's proportional share of memory, bytes."""
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
