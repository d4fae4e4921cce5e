"""What a stream needs before its first batch."""

import json
import subprocess
import sys

import pytest

import gristmill
from tests.storage.stream.helpers import write_rows

FIRST = """
import sys
import gristmill
batch = next(iter(gristmill.stream(sys.argv[1], split=sys.argv[2] or None, global_batch_size=8, seed=0)))
assert len(batch["text"]) == 8
print(sorted({"pandas", "dask", "pyspark", "datasets"} & set(sys.modules)))
"""


@pytest.mark.parametrize("split", ["", "train"])
def test_no_other_library_is_imported(tmp_path, split):
    """Importing pandas takes longer than opening a stream."""
    pytest.importorskip("pandas")
    if split:
        (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": f"row {i}", "n": i}) + "\n" for i in range(100)))
        sources = [{"kind": "jsonl", "path": str(tmp_path / "in.jsonl"), "name": "in"}]
        output = {"path": str(tmp_path / "data")}
        gristmill.run({"name": "rows", "sources": sources, "split": {"train": 0.8, "test": 0.2}, "output": output})
    else:
        write_rows(tmp_path / "data" / "a.parquet", range(100))
    done = subprocess.run(
        [sys.executable, "-c", FIRST, str(tmp_path / "data"), split], capture_output=True, text=True, timeout=100
    )
    assert done.stdout == "[]\n", done.stderr
