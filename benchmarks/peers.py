"""gristmill beside datatrove in the same run: Gopher filters (speed, and agreement document by document) and near-duplicates.

`python benchmarks/peers.py [--rows N]`, with the Python of the venv of peers-text.txt in PEERS_PYTHON. --rows: so many documents of the PEP
history for near-duplicates (all by default; datatrove takes minutes for them).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.kernels.jaccard import pairs
from gristmill.kernels.shingles import shingle_sets
from gristmill.kernels.signals import text_signals
from gristmill.pipelines.steps.quality_rules import QualityRules

PYTHON = os.environ.get("PEERS_PYTHON", "")
HERE = Path(__file__).parent
PEPS = 400


def peer(*arguments: str) -> dict[str, Any]:
    """What datatrove's side says."""
    done = subprocess.run(
        [PYTHON, str(HERE / "peer_datatrove.py"), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(f"datatrove's side failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout)


def sample() -> tuple[list[str], list[str]]:
    """(where from, text) of real documents: PEPs, film reviews, licences, news at three reading levels."""
    peps = pq.read_table(common.TEXT / "peps_history/peps.parquet", columns=["text"])["text"]
    chosen = np.random.default_rng(7).permutation(len(peps))[:PEPS]
    found = [("PEP history", peps[int(i)].as_py()) for i in chosen]
    for name, pattern in (
        ("film reviews", "movie_reviews/*/*.txt"),
        ("licences", "spdx_licences/*.txt"),
        ("news", "onestop/[aei]*/*.txt"),
    ):
        files = sorted(common.TEXT.glob(pattern))
        found += [(name, file.read_bytes().decode("utf-8", "replace")) for file in files]
    return [name for name, _ in found], [text for _, text in found]


def failed_rules(texts: list[str]) -> list[list[str]]:
    """The rules that each document fails, in the preset's order."""
    table = pa.table({"text": pa.array(texts, pa.large_string()), "_uid": [str(i) for i in range(len(texts))]})
    _, decisions = QualityRules(column="text", preset="gopher").apply(table)
    rules: list[list[str]] = [[] for _ in texts]
    for uid, rule in zip(decisions["uid"].to_pylist(), decisions["rule"].to_pylist(), strict=True):
        rules[int(uid)].append(rule)
    return rules


def filters() -> None:
    sources, texts = sample()
    size = sum(len(text.encode()) for text in texts) / 1e6
    file = common.SCRATCH / "sample.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    theirs = peer("filters", str(file))
    column = pa.array(texts, pa.large_string())
    seconds, cpu = [], []
    text_signals(column[:10])
    for _ in range(5):
        start = time.perf_counter(), time.process_time()
        text_signals(column)
        seconds.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    print(f"Gopher quality and repetition: {len(texts)} documents, {size:.0f} MB of text, one core each")
    both = sum(found["cpu"] for found in theirs.values())
    rows = [
        ["datatrove", sum(found["seconds"] for found in theirs.values()), both, size / both],
        ["gristmill", min(seconds), min(cpu), size / min(cpu)],
    ]
    common.table(rows, ["", "seconds", "CPU seconds", "MB / CPU second"])
    agreement(sources, theirs, failed_rules(texts))


def agreement(sources: list[str], theirs: dict[str, Any], rules: list[list[str]]) -> None:
    """Documents on which both verdicts are the same; and documents for which datatrove's first reason is among the rules recorded here."""
    quality, repetition = theirs["quality"]["verdicts"], theirs["repetition"]["verdicts"]
    rename = {"gopher_enough_stop_words": "gopher_few_stop_words"}
    rows = []
    for name in [*dict.fromkeys(sources), "all"]:
        mine = [i for i, source in enumerate(sources) if name in (source, "all")]
        same = sum(bool(rules[i]) == bool(quality[i] or repetition[i]) for i in mine)
        reasons = sum(
            all(not reason or rename.get(reason, reason) in rules[i] for reason in (quality[i], repetition[i]))
            for i in mine
        )
        kept = sum(not (quality[i] or repetition[i]) for i in mine)
        rows.append([name, len(mine), kept, sum(not rules[i] for i in mine), same / len(mine), reasons / len(mine)])
    common.table(
        rows, ["documents", "number", "datatrove keeps", "gristmill keeps", "same verdict", "its reasons recorded"]
    )
    differ: Counter[str] = Counter()
    for i in range(len(sources)):
        if bool(rules[i]) != bool(quality[i] or repetition[i]):
            differ[
                "dropped by datatrove only: " + (quality[i] or repetition[i])
                if not rules[i]
                else "dropped by gristmill only: " + rules[i][0]
            ] += 1
    for reason, count in differ.most_common(8):
        print(f"  {count:4d}  {reason}")
    print()


def near_duplicates(rows: int | None) -> None:
    source = common.corpus(rows=rows)
    work = common.fresh(common.SCRATCH / "datatrove")
    with common.Clock() as clock:
        theirs = peer("minhash", str(source), str(work))
    model = common.pipeline(source, common.SCRATCH / "near")
    model["steps"] = [{"step": "drop_near_duplicates", "column": "text", "threshold": 0.8}]
    del model["split"]
    took, result, _ = common.run(model, "--workers", "2")
    ids = [
        json.loads(line)
        for file in sorted(source.glob("*.jsonl.gz"))
        for line in gzip.open(file, "rt", encoding="utf-8")
    ]
    texts = pa.array([row["text"] for row in ids], pa.large_string())
    names = {row["id"]: i for i, row in enumerate(ids)}
    kept = np.array([names[i] for i in theirs["kept"]])
    print(
        f"near-duplicates: {len(ids)} documents, {texts.nbytes / 1e6:.0f} MB of text, 2 workers each, from JSONL.gz to written result"
    )
    table = [
        ["datatrove, 14 bands of 8", *clock.took, len(kept), *judged(texts, kept)],
        [
            "gristmill run, threshold .8",
            *took,
            result["counts"]["kept"],
            *judged(texts, np.array([names[i] for i in kept_ids(result)])),
        ],
    ]
    common.table(table, ["", "seconds", "CPU s", "kept", "removed without a kept relative", "pairs >= .8 both kept"])
    print(f"  datatrove's stages: { {name: round(value, 1) for name, value in theirs['seconds'].items()} }")
    print(f"  gristmill's stages: { {name: round(value, 2) for name, value in result['seconds'].items()} }\n")


def kept_ids(result: dict[str, Any]) -> list[str]:
    import gristmill

    return gristmill.open_dataset(result["path"]).to_table(columns=["id"])["id"].to_pylist()


def judged(texts: pa.Array, kept: np.ndarray) -> tuple[int, int]:
    """(removed rows that no kept row is like, J < .8; pairs of kept rows with J >= .8), by brute force."""
    values, offsets = shingle_sets(texts)
    alone = 0
    removed = np.setdiff1d(np.arange(len(texts)), kept)
    for row in removed.tolist():
        alone += not (pairs(values, offsets, np.full(len(kept), row), kept, 0.8) > 0).any()
    left, right = np.triu_indices(len(kept), 1)
    return alone, int((pairs(values, offsets, kept[left], kept[right], 0.8) > 0).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--only", choices=["filters", "near"])
    options = parser.parse_args()
    common.header()
    if not PYTHON:
        raise SystemExit("left out: PEERS_PYTHON names no Python with datatrove; see benchmarks/peers-text.txt")
    version = subprocess.run(
        [PYTHON, "-c", "import importlib.metadata as m; print(m.version('datatrove'), m.version('spacy'))"],
        capture_output=True,
        text=True,
    )
    print("datatrove, spacy: " + version.stdout.strip() + version.stderr[-300:])
    if options.only != "near":
        filters()
    if options.only != "filters":
        near_duplicates(options.rows)


if __name__ == "__main__":
    main()
