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
