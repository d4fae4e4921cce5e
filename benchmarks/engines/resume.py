"""What a kill and a new file cost: a run killed at half of its time and run again; one new file among a hundred, of new documents, and of versions of
documents in nearly all other files, as they come in the shuffled history; and this one again, appended to the rows of the others as they were
published. A new file is taken in on the engine of the whole run, and where the run itself chooses: in its own process, for there is little to do.

    python benchmarks/engines/resume.py                     # 13 x 336 MB, a run of some 100 s: about 10 minutes, once the corpus is made
    python benchmarks/engines/resume.py --variants 3        # smaller

Seconds are net of an empty run with the same engine. Before each run the system writes to the disk what the one before left to be written.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
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


def linked(source: Path, out: Path, stop: int, start: int = 0) -> Path:
    """A folder with these files of the corpus."""
    common.fresh(out)
    for file in sorted(source.glob("*.jsonl.gz"))[start:stop]:
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


class Runs:
    """Runs one pipeline over chosen files of the corpus, and keeps what each took."""

    def __init__(self, variants: int, engine: str) -> None:
        self.engine = engine
        self.source = common.corpus(variants, files=FILES)
        self.inputs, self.output = common.SCRATCH / "resume-in", common.SCRATCH / "resume-out"
        self.model = common.pipeline(self.inputs, self.output, common.ALPHA)
        self.begun = {name: min(took.seconds for took in start_up(name, 2)) for name in (engine, "threads")}
        self.rows: list[list[Any]] = []
        self.stages: list[str] = []

    def options(self, engine: str) -> dict[str, Any]:
        return {"workers": 2, **ENGINES[engine]}

    def over(self, stop: int, start: int = 0) -> None:
        """Makes these files the pipeline's input."""
        linked(self.source, self.inputs, stop, start)

    def again(self) -> dict[str, Any]:
        """The result of a run that only makes ready."""
        return launch(self.model, fresh=False, **self.options(self.engine))[1]

    def timed(self, name: str, engine: str, *, fresh: bool = False) -> dict[str, Any]:
        """The result of a run that is noted; what the one before has written is on the disk by then."""
        os.sync()
        took, result, _ = launch(self.model, fresh=fresh, **self.options(engine))
        net = took.seconds - self.begun[engine]
        of_whole = net / (self.rows[0][4] if self.rows else net)
        self.rows.append([name, engine, *took, net, of_whole, result["reused_items"]])
        self.stages.append(
            f"  {name}, {engine}: " + ", ".join(f"{stage} {took:.1f}" for stage, took in result["seconds"].items())
        )
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=13)
    parser.add_argument("--engine", choices=list(ENGINES), default="dask")
    chosen = parser.parse_args()
    common.header("pyarrow", "numba", "dask")
    runs = Runs(chosen.variants, chosen.engine)

    runs.over(FILES)
    whole = runs.timed("whole run", chosen.engine, fresh=True)
    killed_at(runs.model, runs.begun[chosen.engine] + runs.rows[0][4] / 2, **runs.options(chosen.engine))
    same = [runs.timed("killed at half, run again", chosen.engine)]
    for name, new in (("one of new documents", True), ("one of versions of documents", False)):
        for engine in (chosen.engine, "threads"):
            runs.over(FILES - 1)
            runs.again()
            runs.over(FILES)
            if new:
                apart(sorted(runs.inputs.iterdir())[-1])
            result = runs.timed(f"{name} added", engine)
            same += [] if new else [result]
    for result in same:
        assert (result["fingerprint"], result["layout"]) == (whole["fingerprint"], whole["layout"])

    runs.over(FILES - 3)
    runs.again()
    runs.model["output"]["mode"] = "append"
    runs.over(FILES - 2, FILES - 3)
    runs.again()  # reads what is compared of the published rows, once
    for file, engine in ((FILES - 2, chosen.engine), (FILES - 1, "threads")):
        runs.over(file + 1, file)
        appended = runs.timed("one appended, after another", engine)
        assert appended["rows"]["added"] > 0

    print(
        f"2 workers, {chosen.variants} x 336 MB of text in {FILES} JSONL.gz files; start-up "
        + ", ".join(f"{engine} {seconds:.1f} s" for engine, seconds in runs.begun.items())
    )
    common.table(runs.rows, ["", "engine", "seconds", "CPU s", "net seconds", "of a whole run", "items reused"])
    print("seconds of stages:", *runs.stages, sep="\n")
    shutil.rmtree(runs.output)


if __name__ == "__main__":
    main()
