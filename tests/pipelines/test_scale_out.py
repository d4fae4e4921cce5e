"""Wide steps through files and wide steps in the driver give the same answer: small limits force every exchange into files, partitions and chunks."""

from __future__ import annotations

import os
import random
import shutil
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gristmill
from gristmill.pipelines import near, splits
from gristmill.pipelines import exchange as exchanges

from .conftest import STEPS, corpus, document, ledger_of, rows_of, variant, write_jsonl

SPLIT = {"train": 0.6, "validation": 0.2, "test": 0.2, "similarity": 0.5}
LIMITS = {
    "DRIVER_BYTES": (exchanges, 0),
    "PARTITION_BYTES": (exchanges, 4000),
    "CHUNK_BYTES": (exchanges, 1500),
    "BATCH_BYTES": (near, 3000),
    "PAIRS": (splits, 40),
    "LOADED": (splits, 7),
}


def both(folder: Any, rows: list[dict[str, Any]], engine: Any = None, **options: Any) -> tuple[Any, Any]:
    """(the run in the driver, the run through files, on an engine's own workers if one is named) of one pipeline."""
    write_jsonl(folder / "raw", rows, files=5)
    model = {
        "name": "test",
        "sources": [{"kind": "jsonl", "path": str(folder / "raw"), "name": "web"}],
        "steps": STEPS,
        "split": SPLIT,
        **options,
    }
    shards = {"shard_bytes": 5000, "row_group_rows": 7, **model.pop("output", {})}
    here = gristmill.run({**model, "output": {"path": str(folder / "here"), **shards}}, progress="quiet")
    with pytest.MonkeyPatch.context() as patch:
        for name, (module, value) in LIMITS.items():
            patch.setattr(module, name, value)
        where = {} if engine is None else {"engine": engine, "in_process": False, "workers": 2}
        files = gristmill.run({**model, "output": {"path": str(folder / "files"), **shards}}, progress="quiet", **where)
    return here, files


def check(here: Any, files: Any) -> None:
    assert (files.fingerprint, files.layout, files.splits) == (here.fingerprint, here.layout, here.splits)
    assert (files.counts, files.steps) == (here.counts, here.steps)
    order = [sorted(map(str, ledger_of(result))) for result in (here, files)]
    assert order[0] == order[1]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_rows(tmp_path_factory, data):
    """Rows that repeat whole, under one id, as exact text and nearly, in groups of all sizes."""
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    texts = [document(i, 40) for i in range(data.draw(st.integers(1, 12)))]
    rows = []
    for _ in range(data.draw(st.integers(2, 120))):
        text = rng.choice(texts)
        text = text if rng.random() < 0.4 else variant(text, rng.randrange(1000), rng.choice([1, 1, 3, 8]))
        rows.append({"id": rng.randrange(80), "text": text, "group": rng.choice([None, "a", "b", rng.randrange(30)])})
        rows[-1]["group"] = None if rows[-1]["group"] is None else str(rows[-1]["group"])
    options: dict[str, Any] = {"split": {**SPLIT, "group_by": "group"}}
    if data.draw(st.booleans()):
        options["id"] = "id"
    check(*both(tmp_path_factory.mktemp("run"), rows, **options))


def test_families(tmp_path):
    here, files = both(tmp_path, corpus(60), id="id")
    check(here, files)
    assert here.steps["drop_near_duplicates"]["largest_component"] == 4 and rows_of(here) == rows_of(files)
    lists = [path for path in (tmp_path / "files" / "_work" / "items").rglob("rows.arrow")]
    assert len(lists) > 30 and not list((tmp_path / "here" / "_work" / "items").rglob("rows.arrow"))


def test_one_text_for_all_rows_and_one_component(tmp_path):
    """Hot keys: every row repeats one of two, one group has all rows, and the near-duplicates form one component."""
    base = document(1, 60)
    rows = [{"text": base if i % 3 else variant(base, i, 2), "group": "all"} for i in range(150)]
    here, files = both(tmp_path, rows, split={**SPLIT, "group_by": "group"})
    check(here, files)
    assert here.counts["kept"] >= 1 and sorted(here.splits.values())[:2] == [0, 0]
    assert here.steps["drop_exact_duplicates"]["largest_group"] == 100
    assert here.steps["drop_near_duplicates"]["largest_component"] > 40


@pytest.mark.parametrize("engine", ["dask", pytest.param("spark", marks=pytest.mark.slow)])
def test_on_workers(tmp_path, engine):
    if engine == "spark":
        pytest.importorskip("pyspark")
        if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
            pytest.skip("Spark needs Java, and there is none")
    check(*both(tmp_path, corpus(15), engine=engine, output={"order": "shuffled"}))
