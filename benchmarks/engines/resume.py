"""What a kill and a new file cost: a run killed at half of its time and run again; one new file among a hundred, whose documents are versions of
documents in nearly all other files, as they come in the shuffled history; and one whose documents are like none of the others.

    python benchmarks/engines/resume.py                     # 13 x 336 MB, a run of some 100 s: about 10 minutes, once the corpus is made
    python benchmarks/engines/resume.py --variants 3        # smaller

Seconds are net of an empty run on the same engine.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import shutil
import subprocess
import time
import zlib
from pathlib import Path
from typing import Any

import common_path  # noqa: F401
import common
import psutil
from launch import ENGINES, command, launch
from start import start_up

FILES = 100


def killed_at(model: dict[str, Any], seconds: float, **options: Any) -> None:
    """Begins a run in an empty folder and kills it and all its children -9 after so many seconds."""
    shutil.rmtree(model["output"]["path"], ignore_errors=True)
    process = subprocess.Popen(command(model, **options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for each in tree:
        each.kill()
    process.wait()
    psutil.wait_procs(tree, timeout=30)


def linked(source: Path, out: Path, files: int) -> Path:
    """A folder with the first files of the corpus."""
    common.fresh(out)
    for file in sorted(source.glob("*.jsonl.gz"))[:files]:
        (out / file.name).hardlink_to(file)
    return out


def apart(file: Path) -> None:
    """Replaces the file by one of as many new documents: a third of the words in another form, as the corpus maker's variants are."""

    def other(match: re.Match[str]) -> str:
        return f"{match[0]}x" if zlib.crc32(match[0].encode()) % 3 == 0 else match[0]

    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    file.unlink()  # the corpus keeps its own
    with gzip.open(file, "wt", compresslevel=3, encoding="utf-8") as out:
        for row in rows:
            text = re.sub(r"[A-Za-z]{3,}", other, row["text"])
            out.write(json.dumps({**row, "id": f"{row['id']}-x", "text": text}, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=13)
    parser.add_argument("--engine", choices=list(ENGINES), default="dask")
    chosen = parser.parse_args()
    options = {"workers": 2, **ENGINES[chosen.engine]}
    common.header("pyarrow", "numba", "dask")
    source = common.corpus(chosen.variants, files=FILES)
    inputs, output = common.SCRATCH / "resume-in", common.SCRATCH / "resume-out"
    begun = min(took.seconds for took in start_up(chosen.engine, 2))
    model = common.pipeline(linked(source, inputs, FILES), output, common.ALPHA)
    whole, result, _ = launch(model, **options)
    net = whole.seconds - begun
    rows = [["whole run", *whole, net, 1.0, result["reused_items"]]]
    killed_at(model, begun + net / 2, **options)
    again, resumed, _ = launch(model, fresh=False, **options)
    assert (resumed["fingerprint"], resumed["layout"]) == (result["fingerprint"], result["layout"])
    rows.append(
        [
            "killed at half, run again",
            *again,
            again.seconds - begun,
            (again.seconds - begun) / net,
            resumed["reused_items"],
        ]
    )
    before, _, _ = launch(common.pipeline(linked(source, inputs, FILES - 1), output, common.ALPHA), **options)
    linked(source, inputs, FILES)
    one, added, _ = launch(model, fresh=False, **options)
    assert (added["fingerprint"], added["layout"]) == (result["fingerprint"], result["layout"])
    rows.append(
        [f"one new file among {FILES}", *one, one.seconds - begun, (one.seconds - begun) / net, added["reused_items"]]
    )
    launch(common.pipeline(linked(source, inputs, FILES - 1), output, common.ALPHA), fresh=False, **options)
    last = linked(source, inputs, FILES) / sorted(source.glob("*.jsonl.gz"))[FILES - 1].name
    apart(last)
    new, of_new, _ = launch(model, fresh=False, **options)
    rows.append(
        ["one of new documents", *new, new.seconds - begun, (new.seconds - begun) / net, of_new["reused_items"]]
    )
    print(
        f"{chosen.engine}, 2 workers, {chosen.variants} x 336 MB of text in {FILES} JSONL.gz files; start-up {begun:.1f} s"
    )
    common.table(rows, ["", "seconds", "CPU s", "net seconds", "of a whole run", "items reused"])
    print(
        "seconds of stages, with one new file: "
        + ", ".join(f"{name} {value:.1f}" for name, value in added["seconds"].items())
    )
    print(
        "seconds of stages, one of new documents: "
        + ", ".join(f"{name} {value:.1f}" for name, value in of_new["seconds"].items())
    )
    print(
        "seconds of stages, whole run:         "
        + ", ".join(f"{name} {value:.1f}" for name, value in result["seconds"].items())
    )
    shutil.rmtree(output)


if __name__ == "__main__":
    main()
