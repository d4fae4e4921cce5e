"""Parquet files to stream, and running several ranks in one process."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def write_rows(path: Path, ids: range | np.ndarray, group: int = 10, uid: bool = True) -> None:
    ids = np.asarray(ids)
    columns = {
        "id": pa.array(ids, pa.int64()),
        "x": pa.array(ids * 0.5, pa.float32()),
        "text": pa.array([f"row {i}" for i in ids]),
    }
    if uid:
        columns["_uid"] = pa.array([f"u{i}" for i in ids])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group)


def ids_of(batch):
    return batch["id"].tolist()


def run_ranks(make, world_size, keep=False):
    """The batches of every rank, run to the end: their ids, or the batches themselves."""
    return [[batch if keep else ids_of(batch) for batch in make(rank)] for rank in range(world_size)]
