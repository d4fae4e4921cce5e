"""Takes epochs from a loader and prints one JSON line about it. Runs in our environment and in the peers': standard library and numpy only."""

import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

EPOCHS = 2


def consume(
    make: Callable[[], Any], ids_of: Callable[[Any], Any], limit: float, epochs: Callable[[Any, int], Iterable[Any]]
) -> None:
    """Prints rows and seconds of each epoch, the time to the first batch, and which rows were in each batch of the first epoch.

    make: the loader, its construction is part of the first epoch. ids_of: the ids in a batch. limit: seconds after which an epoch is left.
    epochs: (loader, number) -> the batches of that epoch.
    """
    found: dict[str, Any] = {"base": pss(), "base_cpu": time.process_time(), "epochs": []}
    batches: list[Any] = []
    start = time.perf_counter()
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
        found["epochs"].append({"rows": rows, "seconds": seconds, "first": first[0], "first_rows": first[1]})
        start = time.perf_counter()
    path = sys.argv[-1]
    np.savez(path, *batches)
    print("RESULT " + json.dumps(found), flush=True)


def pss() -> int:
    """This process's proportional share of memory, bytes."""
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
