"""Files between stages: tables come back in the order in which they were written."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from gristmill.pipelines import parts


def test_over_a_thousand_files_come_back_in_order(tmp_path: Path) -> None:
    with parts.PartWriter(tmp_path, "rows") as writer:
        for number in range(1003):  # a new file for each, for the schema changes
            writer.write(pa.table({"ab"[number % 2]: [number]}))
    assert len(parts.paths(tmp_path, "rows")) == 1003
    assert [table.column(0)[0].as_py() for table in parts.batches(tmp_path, "rows")] == list(range(1003))


def test_of_batches_the_wanted_ones_are_read_with_their_places(tmp_path: Path) -> None:
    first = pa.table({"text": ["x" * 1000] * 50, "_source": ["a"] * 50, "n": range(50)})
    second = pa.table({"_source": ["b"] * 3, "n": [50.5, 51.5, 52.5]})  # another schema: a file of its own
    with parts.PartWriter(tmp_path, "rows", batch_bytes=10_000) as writer:
        writer.write(first)
        writer.write(second)
    every = list(parts.picked(tmp_path, "rows", lambda start, stop: True))
    assert len(every) > 5 and sum(batch.num_rows for _, batch in every) == 53
    starts = [start for start, _ in every]
    assert [int(batch["n"][0].as_py()) for _, batch in every] == starts  # n counts the rows
    asked = []
    some = list(parts.picked(tmp_path, "rows", lambda start, stop: asked.append(start) or start <= 17 < stop))
    assert asked == starts and len(some) == 1
    start, batch = some[0]
    assert batch["n"][17 - start].as_py() == 17 and batch.num_rows < 12
