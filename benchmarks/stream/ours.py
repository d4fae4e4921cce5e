"""gristmill and the plain loops that it is compared with; run as a script by `measure`."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from consume import consume

from gristmill.storage.stream import Ragged, stream
from gristmill.storage.stream.images import RandomResizedCrop


class PlainLoop:
    """What one writes without a loader: row groups in random order, rows permuted inside each, cut into batches."""

    def __init__(self, folder: Path, size: int) -> None:
        self.files = [pq.ParquetFile(path) for path in sorted(folder.glob("*.parquet"))]
        self.groups = [(file, i) for file in self.files for i in range(file.metadata.num_row_groups)]
        self.size = size

    def epoch(self, number: int) -> Iterator[dict[str, Any]]:
        """The batches of one epoch; a row group's last batch may be short."""
        rng = np.random.default_rng(number)
        for chosen in rng.permutation(len(self.groups)):
            file, index = self.groups[chosen]
            found = file.read_row_group(index)
            order = rng.permutation(len(found))
            columns = {name: _values(found[name].combine_chunks(), order) for name in found.column_names}
            for start in range(0, len(order), self.size):
                yield {name: part(values[start : start + self.size]) for name, (values, part) in columns.items()}


def _values(column: Any, order: np.ndarray) -> Any:
    """(the permuted values, what makes a batch of a part of them)."""
    array = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_list(array.type):  # equally long
        return array.values.to_numpy().reshape(len(array), -1)[order], torch.from_numpy
    if pa.types.is_string(array.type) or pa.types.is_binary(array.type):
        return array.take(pa.array(order)), lambda part: part.to_pylist()
    return array.to_numpy()[order], torch.from_numpy


def run_of(make: Any) -> Any:
    """A stream with its one iteration, which goes on from epoch to epoch."""
    loader = make()
    return loader, iter(loader)


def epochs_of(run: Any, _number: int) -> Iterator[Any]:
    """One epoch of a stream of several."""
    loader, batches = run
    epoch = loader.epoch
    for batch in batches:
        yield batch
        if loader.epoch > epoch:
            return


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("subject", choices=["gristmill", "pyarrow"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--limit", type=float)
    parser.add_argument("--shuffle-bytes", type=int, default=2**30)
    parser.add_argument("--decode", choices=["rgb", "crop"])
    parser.add_argument("--result")
    given = parser.parse_args()
    if given.subject == "pyarrow":
        consume(
            lambda: PlainLoop(given.data, given.batch),
            lambda batch: batch["id"].numpy(),
            given.limit,
            lambda loop, number: loop.epoch(number),
        )
    else:
        kind = RandomResizedCrop(224) if given.decode == "crop" else "rgb"
        decode = {"image": kind} if given.decode else None
        make = lambda: stream(
            given.data,
            global_batch_size=given.batch,
            epochs=2,
            tail="drop",
            shuffle_bytes=given.shuffle_bytes,
            decode=decode,
        )
        consume(lambda: run_of(make), ids_of, given.limit, epochs_of)


def ids_of(batch: dict[str, Any]) -> Any:
    """The ids of a batch; token rows, which are equally long here, are seen as a matrix as training would."""
    if isinstance(batch.get("tokens"), Ragged):
        batch["tokens"] = batch["tokens"].values.view(len(batch["id"]), -1)
    return batch["id"].numpy()


if __name__ == "__main__":
    sys.exit(main())
