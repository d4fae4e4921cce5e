"""Time and memory to resume and to trace, for 10^5 to 10^9 rows: manifests with real row counts, of whose files only some are there."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common import SCRATCH, fresh, table
from gristmill.storage.folder import open_folder
from gristmill.storage.manifest import FILES, FileList
from gristmill.storage.stream import stream
from gristmill.storage.versions import publish

GROUP, GROUPS_IN_FILE = 10_000, 100
BATCH = 1024
ROW_BYTES = 400
TIMES = 5  # each with a new loader; the fastest is shown
HEAD = (
    "rows",
    "row groups",
    "open ms",
    "load state ms",
    "first rows ms",
    "resume ms",
    "MB",
    "state bytes",
    "trace step ms",
    "trace row ms",
    "MB",
)


def compare(_case: str, _peers: str | None, _scale: float, _only: Any = ()) -> None:
    """Prints the table."""
    print(
        f"resume and trace: row groups of {GROUP:,} rows, files of {GROUPS_IN_FILE} row groups, batches of {BATCH}; the state is of the middle of the second epoch"
    )
    print(
        "  open: manifest and order; load state; first rows: where the rows of the next step are; resume: the last two together. trace step: where the rows of a step of"
    )
    print(
        "  the third epoch are; trace row: all steps of a row in 3 epochs. Without reading rows. MB: the most that Python and numpy held beyond the manifest."
    )
    table([measure(10**power) for power in range(5, 10)], HEAD)


def measure(rows: int) -> list[Any]:
    """A row of the table."""
    folder = synthetic(rows)
    try:
        opened, loader = min((timed(lambda: make(folder)) for _ in range(TIMES)), key=lambda pair: pair[0])
        steps = rows * 3 // 2 // BATCH
        state = json.dumps(
            {**loader.state_dict(), "step": steps, "position": steps * BATCH, "history": [[0, 0, BATCH, "carry"]]}
        )
        loaded, first = min((resume(make(folder), state) for _ in range(TIMES)), key=sum)
        resume(loader := make(folder), state)
        with counted() as resuming:
            resume(make(folder), state)
        step, row = trace(loader, steps, rows)
        with counted() as tracing:
            trace(loader, steps, rows)
    finally:
        shutil.rmtree(folder)
    milliseconds = [opened, loaded, first, loaded + first]
    groups = -(-rows // GROUP)
    return [
        rows,
        groups,
        *(round(each * 1000, 1) for each in milliseconds),
        round(resuming[0], 1),
        len(state),
        round(step * 1000, 1),
        round(row * 1000, 1),
        round(tracing[0], 1),
    ]


def make(folder: Path) -> Any:
    """The loader; some GB of row groups are open at a time."""
    return stream(folder, global_batch_size=BATCH, epochs=3, shuffle_bytes=2**30, threads=0)


def resume(loader: Any, state: str) -> tuple[float, float]:
    """(seconds to load a state, seconds until the next step's rows are known)."""
    loaded, _ = timed(lambda: loader.load_state_dict(json.loads(state)))
    order, position = loader._feed.order, loader.position
    first, _ = timed(lambda: order.locate(np.arange(position, position + BATCH)))
    return loaded, first


def trace(loader: Any, done: int, rows: int) -> tuple[float, float]:
    """(seconds for where a step's rows are, seconds for the steps of a row)."""
    from gristmill.storage.stream.trace import places_at, steps_of

    batching = loader._feed.batching
    step, _ = timed(lambda: places_at(loader._state, batching, loader._feed.order, done + rows // 2 // BATCH))
    row, found = timed(lambda: steps_of(loader._state, batching, [rows // 3]))
    assert len(found) == 3
    return step, row


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


@contextlib.contextmanager
def counted() -> Iterator[list[float]]:
    """A list that gets the most memory (MB) that was allocated inside beyond what was there."""
    found: list[float] = []
    tracemalloc.start()
    try:
        yield found
        found.append(tracemalloc.get_traced_memory()[1] / 1e6)
    finally:
        tracemalloc.stop()


def synthetic(rows: int) -> Path:
    """A dataset of that many rows by its manifest; the files that are looked at for the size of a row are there."""
    base = fresh(SCRATCH / "stream" / f"synthetic-{rows}")
    groups = np.full(-(-rows // GROUP), GROUP)
    groups[-1] = rows - GROUP * (len(groups) - 1)
    per_file = np.split(groups, range(GROUPS_IN_FILE, len(groups), GROUPS_IN_FILE))
    paths = [f"data/{i:06d}.parquet" for i in range(len(per_file))]
    real = pa.table({"_uid": [f"{i:032x}" for i in range(100)], "text": ["x" * (ROW_BYTES - 40)] * 100})
    (base / "data").mkdir()
    for path in paths:  # links to one file
        if path == paths[0]:
            pq.write_table(real, base / path, compression="none", use_dictionary=False)
        else:
            (base / path).hardlink_to(base / paths[0])
    size = (base / paths[0]).stat().st_size
    columns = {
        "path": paths,
        "split": [None] * len(paths),
        "rows": [int(each.sum()) for each in per_file],
        "bytes": [size] * len(paths),
        "sha256": ["0" * 64] * len(paths),
        "row_group_rows": [each.tolist() for each in per_file],
        "row_sum": ["0" * 32] * len(paths),
        "side_cars": [[]] * len(paths),
    }
    entries = FileList(pa.table(columns, schema=FILES))
    publish(open_folder(base), entries, real.schema, expected_parent=None)
    return base
