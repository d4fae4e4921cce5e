"""`output.order: shuffled`: the same rows in an order that uids and seed alone decide, for any files, engine and worker count."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.errors import PipelineError
from gristmill.pipelines import exchange
from gristmill.pipelines.shuffled import places

from .conftest import corpus, document, rows_of, write_jsonl

SPLIT = {"train": 0.7, "test": 0.3, "similarity": 0.5}
SHUFFLED = {"order": "shuffled", "shard_bytes": 6000, "row_group_rows": 5}


def uids(result, split: str | None = None) -> list[str]:
    """In the order of the dataset."""
    return result.dataset.to_table(split=split, columns=["_uid"])["_uid"].to_pylist()


def test_the_fingerprint_stays_and_the_order_is_that_of_the_hashes(run, tmp_path):
    write_jsonl(tmp_path / "raw", corpus(60))
    plain = run(tmp_path / "raw", id="id", split=SPLIT, out="plain", output={"shard_bytes": 6000})
    found = run(tmp_path / "raw", id="id", split=SPLIT, out="found", output=SHUFFLED)
    assert found.fingerprint == plain.fingerprint and found.layout != plain.layout
    assert (found.counts, found.splits) == (plain.counts, plain.splits) and rows_of(found) == rows_of(plain)
    assert found.dataset.verify() == []
    for split in SPLIT.keys() & found.splits.keys():
        order = uids(found, split)
        place = places(pa.chunked_array([order]), 0).tolist()
        assert place == sorted(place) and order != uids(plain, split)
    other = run(tmp_path / "raw", id="id", split=SPLIT, out="other", output={**SHUFFLED, "seed": 1})
    assert other.fingerprint == found.fingerprint and uids(other) != uids(found)
    again = run(tmp_path / "raw", id="id", split=SPLIT, out="found", output=SHUFFLED)
    assert not again.published and again.layout == found.layout


@pytest.mark.parametrize("chunk", [None, 700])
def test_layout_depends_on_no_files_and_no_workers(run, tmp_path, monkeypatch, chunk):
    rows = corpus(60)
    write_jsonl(tmp_path / "a", rows)
    first = run(tmp_path / "a", id="id", split=SPLIT, out="a-out", output=SHUFFLED, in_process=True)
    random.Random(5).shuffle(rows)
    write_jsonl(tmp_path / "b", rows, files=7, prefix="other", packed=False)
    if chunk is None:
        other = run(tmp_path / "b", id="id", split=SPLIT, out="b-out", output=SHUFFLED, in_process=False, workers=2)
    else:
        monkeypatch.setattr(exchange, "CHUNK_BYTES", chunk)
        other = run(tmp_path / "b", id="id", split=SPLIT, out="b-out", output=SHUFFLED)
    assert (other.fingerprint, other.layout) == (first.fingerprint, first.layout)


def test_each_shard_is_a_sample_of_all_files_and_about_as_large(run, tmp_path):
    rows = [{"id": f"{i:04d}", "text": document(i, 20), "file": i % 4} for i in range(2000)]
    write_jsonl(tmp_path / "raw", rows, files=4)
    size = 2000 * 180 // 10
    result = run(tmp_path / "raw", id="id", steps=[], output={"order": "shuffled", "shard_bytes": size})
    shards = [pq.read_table(f"{result.path}/{file.path}")["file"].to_numpy() for file in result.dataset.files()]
    assert 8 <= len(shards) <= 14 and sum(map(len, shards)) == 2000
    lengths = np.array([len(shard) for shard in shards])
    assert lengths.min() > 0.7 * lengths.mean() and lengths.max() < 1.3 * lengths.mean()
    shares = np.array([np.bincount(shard, minlength=4) / len(shard) for shard in shards])
    assert abs(shares - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / lengths.min())


def test_columns_of_every_kind_come_back(run, tmp_path):
    """Also a column named as the exchange names its own, dictionaries, nested values and nulls."""
    n = 200
    table = pa.table(
        {
            "key": pa.array([f"k{i}" if i % 3 else None for i in range(n)]),
            "row": pa.array(range(n), pa.uint8()),
            "kind": pa.array([f"c{i % 5}" for i in range(n)]).dictionary_encode(),
            "nested": pa.array([{"a": [i, None], "b": None} if i % 2 else None for i in range(n)]),
            "raw": pa.array([bytes([i % 256]) for i in range(n)], pa.large_binary()),
            "score": pa.array([float(i) if i % 7 else float("nan") for i in range(n)]),
        }
    )
    (tmp_path / "raw").mkdir()
    pq.write_table(table, tmp_path / "raw" / "a.parquet", row_group_size=33)
    sources = [{"kind": "parquet", "path": str(tmp_path / "raw"), "name": "t"}]
    plain = run(sources=sources, steps=[], out="plain")
    found = run(sources=sources, steps=[], out="found", output=SHUFFLED)
    assert found.fingerprint == plain.fingerprint and found.dataset.schema == plain.dataset.schema
    assert len(found.dataset.files()) > 1


def test_no_row_and_no_such_order(run, tmp_path):
    write_jsonl(tmp_path / "raw", [{"text": "a"}])
    steps = [{"step": "filter", "where": "length(text) > 5"}]
    assert run(tmp_path / "raw", steps=steps, output=SHUFFLED).counts["kept"] == 0
    with pytest.raises(PipelineError, match="shuffled"):
        run(tmp_path / "raw", steps=steps, output={"order": "shufled"})
