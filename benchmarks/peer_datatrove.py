"""datatrove's part of peers.py, run by the Python of its own venv: one JSON object on stdout.

peer_datatrove.py filters IN.jsonl              verdicts of its Gopher filters, each document's in order, and seconds of each filter
peer_datatrove.py minhash IN_FOLDER WORK        the four stages of its MinHash de-duplication, 2 workers; seconds and the ids that it keeps
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from pathlib import Path


def filters(source: str) -> dict:
    from datatrove.data import Document
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter

    documents = [
        Document(text=json.loads(line)["text"], id=str(i)) for i, line in enumerate(open(source, encoding="utf-8"))
    ]
    found = {}
    for name, step in (("quality", GopherQualityFilter()), ("repetition", GopherRepetitionFilter())):
        step.filter(Document(text="One warm sentence for the tokeniser.", id="0"))
        start = time.perf_counter(), time.process_time()
        verdicts = []
        for document in documents:
            verdict = step.filter(document)
            verdicts.append("" if verdict is True else verdict[1])
        found[name] = {
            "verdicts": verdicts,
            "seconds": time.perf_counter() - start[0],
            "cpu": time.process_time() - start[1],
        }
    return found


def minhash(source: str, work: str) -> dict:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
    files = len(list(Path(source).glob("*.jsonl.gz")))
    reader = JsonlReader(source, glob_pattern="*.jsonl.gz")
    stages = [
        ("signatures", [reader, MinhashDedupSignature(f"{work}/signatures", config=config)], files),
        ("buckets", [MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)], config.num_buckets),
        ("cluster", [MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", config=config)], 1),
        ("filter", [reader, MinhashDedupFilter(f"{work}/remove"), JsonlWriter(f"{work}/kept")], files),
    ]
    seconds = {}
    for name, steps, tasks in stages:
        start = time.perf_counter()
        LocalPipelineExecutor(steps, tasks=tasks, workers=min(2, tasks), logging_dir=f"{work}/logs/{name}").run()
        seconds[name] = time.perf_counter() - start
    kept = [
        json.loads(line)["id"]
        for file in sorted(Path(work, "kept").glob("*.jsonl.gz"))
        for line in gzip.open(file, "rt", encoding="utf-8")
    ]
    return {"seconds": seconds, "kept": kept}


if __name__ == "__main__":
    import os

    out = os.dup(1)
    os.dup2(2, 1)  # what datatrove prints goes to stderr
    result = {"filters": filters, "minhash": minhash}[sys.argv[1]](*sys.argv[2:])
    os.write(out, json.dumps(result).encode())
