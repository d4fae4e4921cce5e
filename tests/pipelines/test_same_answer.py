"""The version is a function of the rows: files renamed, in another order, cut elsewhere or of another format give the same fingerprint, and any
number of workers the same layout too. On the history of the PEPs: real text with many near-duplicates."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gristmill
from gristmill.storage.dataset import open_dataset

from .test_resume import finished, leftovers, start, wait_for, workers_of

STEPS = [
    {"step": "normalize_text", "column": "text"},
    {
        "step": "quality_rules",
        "column": "text",
        "preset": "gopher",
        "thresholds": {"gopher_below_alpha_threshold": 0.6},
    },  # PEPs are full of marks
    {"step": "drop_exact_duplicates", "column": "text"},
    {"step": "drop_near_duplicates", "column": "text", "threshold": 0.8, "quality": "date"},
]


def model(raw: Path | str, out: Path, kind: str = "jsonl", **changes: Any) -> dict[str, Any]:
    return {
        "name": "peps",
        "sources": [{"kind": kind, "path": str(raw), "name": "peps"}],
        "steps": STEPS,
        "split": {"train": 0.9, "validation": 0.05, "test": 0.05, "similarity": 0.5},
        "output": {"path": str(out), "shard_bytes": "8MB", "row_group_bytes": "1MB"},
        **changes,
    }


@pytest.fixture(scope="module")
def peps(shared_data) -> pa.Table:
    """Versions of PEPs: id, path, doc, date, text."""
    return pq.read_table(shared_data / "text" / "peps_history" / "peps.parquet")


def write(rows: pa.Table, folder: Path, *, files: int, seed: int, kind: str = "jsonl", prefix: str = "raw") -> Path:
    """The rows in an order of their own over so many files of unequal size."""
    folder.mkdir(parents=True)
    rng = random.Random(seed)
    order = list(range(rows.num_rows))
    rng.shuffle(order)
    cuts = [0, *sorted(rng.sample(range(1, rows.num_rows), files - 1)), rows.num_rows]
    for number, (start_, stop) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
        part = rows.take(pa.array(order[start_:stop]))
        path = folder / f"{prefix}-{number:03d}"
        if kind == "parquet":
            pq.write_table(part, f"{path}.parquet", row_group_size=rng.choice([7, 50, 1000]), compression="zstd")
            continue
        content = "".join(json.dumps(row, ensure_ascii=rng.random() < 0.5) + "\n" for row in part.to_pylist()).encode()
        packed = {
            "jsonl": bytes,
            "jsonl.gz": lambda content: gzip.compress(content, 1),
            "jsonl.zst": lambda content: pa.compress(content, "zstd", asbytes=True),
        }[kind]
        Path(f"{path}.{kind}").write_bytes(packed(content))
    return folder


def test_names_order_cuts_and_formats_of_files_do_not_matter(peps, tmp_path):
    rows = peps.take(pa.array(random.Random(1).sample(range(peps.num_rows), 400)))
    first = gristmill.run(model(write(rows, tmp_path / "a", files=3, seed=0), tmp_path / "out-a"), progress="quiet")
    assert first.counts["read"] == 400 and 100 < first.counts["kept"] < 380 and all(first.splits.values())
    for number, (kind, files) in enumerate([("jsonl", 1), ("jsonl.gz", 5), ("jsonl.zst", 4), ("parquet", 6)]):
        raw = write(rows, tmp_path / f"b{number}", files=files, seed=number + 1, kind=kind, prefix=f"other{number}")
        other = gristmill.run(
            model(raw, tmp_path / f"out-{number}", kind="parquet" if kind == "parquet" else "jsonl"), progress="quiet"
        )
        assert other.fingerprint == first.fingerprint, (kind, first.dataset.schema, other.dataset.schema)
        assert (other.counts, other.splits, other.steps["drop_near_duplicates"]["rules"]) == (
            first.counts,
            first.splits,
            first.steps["drop_near_duplicates"]["rules"],
        )
    mixed = write(rows.slice(0, 150), tmp_path / "mixed", files=2, seed=9)
    write(rows.slice(150), tmp_path / "mixed-parquet", files=2, seed=9, kind="parquet")
    sources = [
        {"kind": "jsonl", "path": str(mixed), "name": "peps"},
        {"kind": "parquet", "path": str(tmp_path / "mixed-parquet"), "name": "more"},
    ]
    both = gristmill.run(model("", tmp_path / "out-mixed", sources=sources), progress="quiet")
    assert both.counts == first.counts and both.fingerprint != first.fingerprint, "_source is content"


def test_frames_give_what_files_give(peps, tmp_path):
    rows = peps.take(pa.array(random.Random(2).sample(range(peps.num_rows), 150)))
    files = gristmill.run(model(write(rows, tmp_path / "a", files=3, seed=0), tmp_path / "out-a"), progress="quiet")
    for number, frame in enumerate([rows, rows.to_pandas()]):
        frames = model("", tmp_path / f"out-{number}", sources=[{"kind": "frame", "name": "peps"}])
        assert gristmill.run(frames, inputs={"peps": frame}, progress="quiet").fingerprint == files.fingerprint


def test_worker_count_does_not_matter(peps, tmp_path):
    rows = peps.take(pa.array(random.Random(3).sample(range(peps.num_rows), 1500)))
    raw = write(rows, tmp_path / "raw", files=9, seed=0, kind="jsonl.gz")
    here = gristmill.run(model(raw, tmp_path / "here"), progress="quiet", in_process=True)
    there = gristmill.run(model(raw, tmp_path / "there"), progress="quiet", in_process=False, workers=4)
    assert (here.fingerprint, here.layout, here.counts, here.steps) == (
        there.fingerprint,
        there.layout,
        there.counts,
        there.steps,
    )


@pytest.fixture(scope="module")
def whole(peps, tmp_path_factory):
    """(folder, the run with two workers) of the whole history as 16 files."""
    folder = tmp_path_factory.mktemp("peps")
    write(peps, folder / "raw", files=16, seed=7, kind="jsonl.gz")
    return folder, gristmill.run(model(folder / "raw", folder / "out"), progress="quiet", in_process=False, workers=2)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_whole_history_on_other_numbers_of_workers(whole, tmp_path, workers):
    folder, first = whole
    assert first.counts["read"] == 16_326
    other = gristmill.run(model(folder / "raw", tmp_path / "out"), progress="quiet", in_process=False, workers=workers)
    assert (other.fingerprint, other.layout, other.counts, other.steps) == (
        first.fingerprint,
        first.layout,
        first.counts,
        first.steps,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "files"), [("jsonl", 3), ("jsonl.zst", 40), ("parquet", 5)])
def test_whole_history_in_other_files(whole, peps, tmp_path, kind, files):
    raw = write(peps, tmp_path / "raw", files=files, seed=files, kind=kind, prefix="x")
    other = gristmill.run(
        model(raw, tmp_path / "out", kind="parquet" if kind == "parquet" else "jsonl"),
        progress="quiet",
        in_process=False,
    )
    assert (other.fingerprint, other.counts) == (whole[1].fingerprint, whole[1].counts)


@pytest.mark.slow
def test_whole_history_after_a_kill(whole, tmp_path):
    folder, first = whole
    chosen = model(folder / "raw", tmp_path / "out")
    everything = len(finished(folder / "out"))
    for share in (0.1, 0.4, 0.8):
        process = start(chosen, tmp_path)
        wait_for(lambda share=share: len(finished(tmp_path / "out")) >= share * everything, process)
        workers = workers_of(process.pid)
        workers[0].send_signal(signal.SIGKILL)
        time.sleep(0.5)
        process.kill()
        process.communicate()
        psutil.wait_procs(workers, timeout=30)
    found = gristmill.run(chosen, progress="quiet", in_process=False, workers=2)
    assert (found.fingerprint, found.layout, found.counts) == (first.fingerprint, first.layout, first.counts)
    assert (
        found.reused_items > 0 and leftovers(tmp_path / "out") == [] and open_dataset(tmp_path / "out").verify() == []
    )
    shutil.rmtree(tmp_path)
