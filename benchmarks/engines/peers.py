"""Near-duplicates by gristmill (Dask and Spark), datatrove and a plain PySpark MinHashLSH job in the same run, with recall on a sample.

    PEERS_PYTHON=PEERS/bin/python .venv/bin/python benchmarks/engines/peers.py [--rows 3000]       # about 5 minutes on two idle cores

Two workers each, from JSONL.gz files to the written result. datatrove runs in a venv of its own (`benchmarks/peers-text.txt`); without PEERS_PYTHON it is left
out, and that is said. Recall is 1 - (pairs with J >= .8 that are both kept) / (all pairs with J >= .8), by brute force over the sample's word 5-grams.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import common_path  # noqa: F401
import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from launch import ENGINES, launch

PYTHON = os.environ.get("PEERS_PYTHON", "")
HERE = Path(__file__).resolve().parent


def spark_job(source: str, out: str) -> None:
    """What one would write with pyspark.ml alone: word 5-grams, hashed, MinHashLSH, of each similar pair the larger id goes."""
    from pyspark.ml.feature import HashingTF, MinHashLSH, NGram, RegexTokenizer
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as sql

    builder = (
        SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").config("spark.driver.memory", "6g")
    )
    session = builder.config("spark.sql.shuffle.partitions", "4").config("spark.driver.host", "127.0.0.1").getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    rows = session.read.json(source).select("id", "text").repartition(4)
    words = RegexTokenizer(inputCol="text", outputCol="words", pattern=r"\W+").transform(rows)
    grams = NGram(n=5, inputCol="words", outputCol="grams").transform(words).where(sql.size("grams") > 0)
    hashed = (
        HashingTF(inputCol="grams", outputCol="features", binary=True, numFeatures=1 << 20)
        .transform(grams)
        .select("id", "features")
        .cache()
    )
    model = MinHashLSH(inputCol="features", outputCol="hashes", numHashTables=5, seed=7).fit(hashed)
    pairs = model.approxSimilarityJoin(hashed, hashed, 0.2, distCol="distance").where("datasetA.id < datasetB.id")
    gone = pairs.select(sql.col("datasetB.id").alias("id")).distinct()
    rows.join(gone, "id", "left_anti").write.mode("overwrite").parquet(out)
    session.stop()


def texts_of(source: Path) -> tuple[list[str], pa.Array]:
    rows = [
        json.loads(line)
        for file in sorted(source.glob("*.jsonl.gz"))
        for line in gzip.open(file, "rt", encoding="utf-8")
    ]
    return [row["id"] for row in rows], pa.array([row["text"] for row in rows], pa.large_string())


def similar_pairs(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """All pairs with J >= .8, by brute force."""
    from gristmill.kernels.jaccard import pairs
    from gristmill.kernels.shingles import shingle_sets

    values, offsets = shingle_sets(texts)
    left, right = np.triu_indices(len(texts), 1)
    hit = pairs(values, offsets, left, right, 0.8) > 0
    return left[hit], right[hit]


def process(command: list[str], what: str) -> tuple[common.Took, str]:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        with common.Clock() as clock:
            running = subprocess.Popen(command, stdout=out, stderr=errors)
            with common.Sampler(running.pid) as memory:
                status = running.wait()
        out.seek(0), errors.seek(0)
        if status:
            raise SystemExit(f"{what} failed:\n{errors.read()[-3000:]}")
        return common.took_by(clock, memory), out.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3000)
    chosen = parser.parse_args()
    common.header("pyarrow", "dask", "pyspark")
    source, work = common.corpus(rows=chosen.rows), common.fresh(common.SCRATCH / "engine-peers")
    names, texts = texts_of(source)
    number = {name: i for i, name in enumerate(names)}
    left, right = similar_pairs(texts)
    rows: list[list[Any]] = []

    def judged(what: str, took: common.Took, kept: list[str]) -> None:
        there = np.zeros(len(names), bool)
        there[[number[name] for name in kept]] = True
        missed = int((there[left] & there[right]).sum())
        rows.append([what, *took, len(kept), missed, f"{1 - missed / max(len(left), 1):.4f}"])

    model = common.pipeline(source, work / "gristmill")
    model["steps"] = [{"step": "drop_near_duplicates", "column": "text", "threshold": 0.8}]
    del model["split"]
    for engine in ("threads", "dask", "spark"):
        took, result, _ = launch(model, workers=2, **ENGINES[engine])
        import gristmill

        judged(
            f"gristmill, {engine}",
            took,
            gristmill.open_dataset(result["path"]).to_table(columns=["id"])["id"].to_pylist(),
        )
    took, _ = process(
        [sys.executable, str(HERE / "peers.py"), "spark", str(source / "*.jsonl.gz"), str(work / "spark")],
        "the PySpark job",
    )
    judged("PySpark MinHashLSH, 5 tables", took, pq.read_table(work / "spark", columns=["id"])["id"].to_pylist())
    if PYTHON:
        took, said = process(
            [PYTHON, str(HERE.parent / "peer_datatrove.py"), "minhash", str(source), str(work / "datatrove")],
            "datatrove",
        )
        judged("datatrove, 14 bands of 8", took, json.loads(said)["kept"])
    else:
        print("datatrove is left out: PEERS_PYTHON names no Python with it; see benchmarks/peers-text.txt")
    print(
        f"{len(names)} versions of PEPs, {texts.nbytes / 1e6:.0f} MB of text, {len(left)} pairs with J >= .8; 2 workers each"
    )
    common.table(rows, ["", "seconds", "CPU s", "kept", "pairs both kept", "recall"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["spark"]:
        spark_job(sys.argv[2], sys.argv[3])
    else:
        main()
