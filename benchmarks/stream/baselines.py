"""What Mosaic's and litdata's own order functions do in the situations that `elastic` and `shuffle` compare; run as a script by the peers' Python. Prints one JSON line."""

import json
import sys
import warnings

import numpy as np
from peers import declare_operators

warnings.simplefilter("ignore")


def counts(served: list[int], seen: set[int], rows: int) -> dict[str, int]:
    """repeated: rows handed out a second time in the epoch; lost: rows that the epoch never gave."""
    return {"repeated": len(served) - len(set(served) - seen), "lost": rows - len(set(served) | seen)}


def litdata_resume(
    world_size: int,
    workers: int,
    batch: int,
    *,
    drop_last: bool = False,
    granularity: str = "item",
    rows: int = 100,
    chunk: int = 10,
    seen: int = 40,
) -> dict[str, int]:
    """A run of `seen` rows goes on with other ranks and workers."""
    from litdata.streaming.elastic import canonical_item_stream, restripe_items

    intervals = [[start, start, start + chunk, start + chunk] for start in range(0, rows, chunk)]
    stream = canonical_item_stream(intervals, seed=1, epoch=1, shuffle=True)
    plans = restripe_items(
        stream,
        world_size=world_size,
        num_workers=workers,
        batch_size=batch,
        drop_first=seen,
        drop_last=drop_last,
        granularity=granularity,
    )
    served = [item for plan in plans for _, items in plan for item in items]
    return counts(served, {item for _, item in stream[:seen]}, rows)


def mosaic(
    nodes: int, ranks: int, batch: int, *, canonical: int = 4, rows: int = 1003, seen: int = 0
) -> dict[str, int]:
    """One epoch, or its rest after `seen` rows."""
    from streaming.base.partition.orig import get_partitions_orig

    def parts(start: int) -> list[int]:
        found = get_partitions_orig(rows, canonical, nodes, ranks, 1, batch, start)
        return found[found >= 0].tolist()

    flat = get_partitions_orig(rows, canonical, 1, 1, 1, 1).ravel()
    return counts(parts(seen), set(flat[:seen].tolist()), rows)


def mosaic_order(groups: int, group: int, block: int) -> list[int]:
    """The rows of an epoch in order, with one canonical node; shards of one row group."""
    from streaming.base.shuffle.py1e import get_shuffle_py1e

    return get_shuffle_py1e(np.full(groups, group), 1, 7, 0, block).tolist()


def litdata_order(groups: int, group: int) -> list[int]:
    """The rows of an epoch in order for one worker; chunks of one row group."""
    from litdata.streaming.elastic import canonical_item_stream

    intervals = [[i * group, i * group, (i + 1) * group, (i + 1) * group] for i in range(groups)]
    return [item for _, item in canonical_item_stream(intervals, seed=7, epoch=1, shuffle=True)]


def main() -> None:
    declare_operators()
    found = {}
    for label, name, arguments, options in json.loads(sys.argv[1]):
        found[label] = globals()[name](*arguments, **options)
    print("RESULT " + json.dumps(found))


if __name__ == "__main__":
    main()
