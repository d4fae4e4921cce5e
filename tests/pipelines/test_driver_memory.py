"""The driver holds totals by work item: a run of many rows on a cluster goes through with 64 MB for all that it allocates."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FAMILIES = 150_000  # of three short rows: an original, an exact copy, a near one
ROOM = (
    64_000_000  # when each row cost the driver some 60 bytes and each decision 160, it could not name the rows in this
)
WORDS = np.array(
    [
        f"{a}{b}{c}"
        for a in ("re", "in", "con", "de", "pro", "ab")
        for b in ("ter", "lin", "mor", "sta", "que", "vi")
        for c in ("ous", "ing", "al", "or", "ate", "y")
    ]
)

DRIVER = """
import json, resource, sys
import numpy as np
from distributed import Client
import gristmill

def held():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmData:"))

if __name__ == "__main__":
    address, warm, model, room = sys.argv[1:]
    client = Client(address, set_as_default=False)
    gristmill.run(json.loads(warm), engine=client, progress="quiet")  # modules, kernels and threads are there now
    limit = held() + int(room)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    result = gristmill.run(json.loads(model), engine=client, progress="quiet")
    print(json.dumps({"counts": result.counts, "steps": result.steps, "splits": result.splits}))
    try:
        np.ones(int(room))
    except MemoryError:
        print(json.dumps("the limit holds"))
"""


def write_rows(folder: Path, families: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(2):
        with open(folder / f"part-{number}.jsonl", "w", encoding="utf-8") as out:
            for family in range(families // 2):
                words = WORDS[rng.integers(0, len(WORDS), 30)].tolist()
                text, near = " ".join(words), " ".join([*words[:-1], f"near{family}"])
                for copy, content in enumerate((text, text, near)):
                    out.write(f'{{"id": "{number}-{family}-{copy}", "text": "{content}"}}\n')


def model(raw: Path, out: Path) -> dict[str, Any]:
    return {
        "name": "driver",
        "id": "id",
        "sources": [{"kind": "jsonl", "path": str(raw), "name": "web"}],
        "steps": [
            {"step": "drop_exact_duplicates", "column": "text"},
            {"step": "drop_near_duplicates", "column": "text", "threshold": 0.8},
        ],
        "split": {"train": 0.9, "test": 0.1, "similarity": 0.5},
        "output": {"path": str(out), "order": "shuffled", "shard_bytes": "4MB"},
    }


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what a process holds is read from Linux's /proc")
def test_many_rows_with_little_memory_in_the_driver(tmp_path: Path) -> None:
    from distributed import LocalCluster

    write_rows(tmp_path / "raw", FAMILIES)
    write_rows(tmp_path / "few", 200)
    (tmp_path / "driver.py").write_text(DRIVER)
    models = [json.dumps(model(tmp_path / raw, tmp_path / f"{raw}-out")) for raw in ("few", "raw")]
    settings = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}  # nothing set aside that isn't used
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        memory_limit=0,
        silence_logs=50,
    ) as cluster:
        command = [sys.executable, str(tmp_path / "driver.py"), cluster.scheduler_address, *models, str(ROOM)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **settings})
    assert done.returncode == 0, done.stderr[-3000:]
    result, limit = (json.loads(line) for line in done.stdout.splitlines())
    assert limit == "the limit holds" and resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY
    counts, steps = result["counts"], result["steps"]
    assert counts["read"] == 3 * FAMILIES and steps["drop_exact_duplicates"]["dropped"] == FAMILIES
    assert 0.999 * FAMILIES < steps["drop_near_duplicates"]["dropped"] <= FAMILIES
    assert counts["kept"] == sum(result["splits"].values()) == counts["read"] - counts["dropped"]
