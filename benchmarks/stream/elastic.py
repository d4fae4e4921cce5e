"""Resuming with other ranks, and how well rows are mixed: Mosaic's and litdata's own order functions beside gristmill's. No time is measured."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common import table
from benchmarks.stream.measure import call
from gristmill.storage.stream import stream
from gristmill.storage.stream.order import Order, fit_shuffle


class Case(NamedTuple):
    """A run of `rows` rows on `world_size` ranks with a global batch; after `seen` rows it goes on with others. peer: the function of `baselines` and its arguments."""

    what: str
    peer: tuple[str, list[int], dict[str, Any]]
    rows: int
    seen: int
    before: tuple[int, int]  # world size, global batch
    after: tuple[int, int]


CASES = (
    Case(
        "litdata: 2 ranks x 5, after 40 rows 3 ranks x 5", ("litdata_resume", [3, 1, 5], {}), 100, 40, (2, 10), (3, 15)
    ),
    Case(
        "litdata, drop_last: after 40 rows 3 ranks x 2 workers x 4",
        ("litdata_resume", [3, 2, 4], {"drop_last": True}),
        100,
        40,
        (2, 10),
        (3, 12),
    ),
    Case(
        "litdata, whole chunks: after 36 rows 2 ranks x 4",
        ("litdata_resume", [2, 1, 4], {"granularity": "chunk", "seen": 36}),
        100,
        36,
        (1, 4),
        (2, 8),
    ),
    Case("Mosaic: an epoch on 1 node x 8 ranks x 8", ("mosaic", [1, 8, 8], {}), 1003, 0, (8, 64), (8, 64)),
    Case("Mosaic: an epoch on 4 nodes x 8 ranks x 2", ("mosaic", [4, 8, 2], {}), 1003, 0, (32, 64), (32, 64)),
    Case(
        "Mosaic: 2 nodes, after 42 rows 4 nodes x 1 rank x 7",
        ("mosaic", [4, 1, 7], {"seen": 42}),
        1003,
        42,
        (2, 14),
        (4, 28),
    ),
)
GROUPS, GROUP, BATCH = 200, 1000, 256
OPEN = (10, 16, 32, 64, 128)
MIX_HEAD = ("order", "distinct in a batch", "open at a time, most", "mean")


def resumes(_case: str, peers: str | None, _scale: float, _only: Any = ()) -> None:
    """Prints rows repeated and lost in one epoch."""
    theirs = baselines(peers, [[case.what, *case.peer] for case in CASES]) if peers else {}
    rows = []
    for case in CASES:
        other, own = theirs.get(case.what, {}), gristmill_counts(case)
        rows.append([case.what, *(other.get(name, "") for name in ("repeated", "lost")), own["repeated"], own["lost"]])
    print("one epoch over a change of ranks: rows handed out twice, and rows never handed out")
    table(rows, ("run", "theirs: repeated", "lost", "gristmill: repeated", "lost"))


def gristmill_counts(case: Case) -> dict[str, int]:
    """The same run by real loaders, one for each rank."""
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table({"id": np.arange(case.rows)}), Path(folder) / "a.parquet", row_group_size=10)
        seen: list[int] = []
        state = None
        for (world_size, batch), steps in ((case.before, case.seen // case.before[1]), (case.after, None)):
            if steps == 0:
                continue
            loaders = [
                stream(folder, global_batch_size=batch, rank=rank, world_size=world_size, threads=0)
                for rank in range(world_size)
            ]
            for loader in loaders:
                if state is not None:
                    loader.load_state_dict(state)
                for given in itertools.islice(loader, steps):
                    seen += given["id"].tolist()
            state = loaders[0].state_dict()
    return {"repeated": len(seen) - len(set(seen)), "lost": case.rows - len(set(seen))}


def mixing(_case: str, peers: str | None, _scale: float, _only: Any = ()) -> None:
    """Prints distinct row groups in a batch beside the row groups that are open at a time; gristmill is given as many as each of Mosaic's blocks has open."""
    ideal = GROUPS * (1 - (1 - 1 / GROUPS) ** BATCH)
    print(
        f"mixing of {GROUPS * GROUP:,} sorted rows in {GROUPS} row groups (shards, chunks): distinct ones in a batch of {BATCH}; drawn at random from all rows: {ideal:.1f}"
    )
    if not peers:
        table([[f"gristmill, shuffle_bytes of {most} row groups", *mixed(own_order(most))] for most in OPEN], MIX_HEAD)
        return
    wanted = [
        [f"Mosaic py1e, block of {most} shards", "mosaic_order", [GROUPS, GROUP, most * GROUP], {}] for most in OPEN
    ]
    rows = []
    for name, order in baselines(peers, [*wanted, ["litdata, default", "litdata_order", [GROUPS, GROUP], {}]]).items():
        found = mixed(np.array(order) // GROUP)
        rows += [[name, *found], [f"  gristmill, shuffle_bytes of {found[1]} row groups", *mixed(own_order(found[1]))]]
    table(rows, MIX_HEAD)


def own_order(most: int) -> np.ndarray:
    """The row group of each position with a budget of so many row groups."""
    order = Order([GROUP] * GROUPS, 7, fit_shuffle(np.full(GROUPS, GROUP), 1, most * GROUP))
    return order.locate(np.arange(order.num_rows)).group


def mixed(groups: np.ndarray) -> list[Any]:
    """(mean distinct row groups in a batch, most and mean row groups between their first and last use) of an order given by its row groups."""
    whole = groups[: len(groups) // BATCH * BATCH].reshape(-1, BATCH)
    first = np.array([np.argmax(groups == each) for each in range(GROUPS)])
    last = np.array([len(groups) - 1 - np.argmax(groups[::-1] == each) for each in range(GROUPS)])
    change = np.bincount(first, minlength=len(groups) + 1) - np.bincount(last + 1, minlength=len(groups) + 1)
    held = np.cumsum(change)[:-1]
    return [float(np.mean([len(np.unique(batch)) for batch in whole])), int(held.max()), float(held.mean())]


def baselines(python: str, wanted: list[list[Any]]) -> dict[str, Any]:
    """What the peers' order functions give, by label."""
    found, _ = call(python, "baselines.py", [json.dumps(wanted)], 240)
    return found
