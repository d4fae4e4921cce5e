"""What every benchmark needs: the machine and versions, the corpus, timings in fresh processes, tables."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
TEXT = SHARED / "data" / "text"
MAKER = SHARED / "bench" / "make_corpus.py"
SCRATCH = Path(os.environ.get("GRISTMILL_BENCH", Path(tempfile.gettempdir()) / "gristmill-bench"))


def header(*packages: str) -> None:
    """Prints the command, the machine and the versions."""
    command = " ".join([Path(sys.executable).name, *sys.argv])
    print(f"command   {command}")
    print(f"machine   {machine()}; load {os.getloadavg()[0]:.1f} at the start")
    names = packages or ("pyarrow", "numpy", "numba", "dask")
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    print(f"versions  Python {platform.python_version()}, {found}\n")


def machine() -> str:
    """Cores, CPU model, memory, system."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").exists() else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {cpu[1] if cpu else platform.processor()}, {memory:.0f} GiB, {platform.system()} {platform.machine()}"


def corpus(variants: int = 1, files: int = 16, rows: int | None = None) -> Path:
    """The folder of the PEP history as JSONL.gz files, made by ../shared/bench/make_corpus.py unless it is there."""
    name = f"pep-{variants}-{files}-{rows or 'all'}"
    folder = SCRATCH / name
    if not (folder / "done").exists():
        if not MAKER.exists():
            raise SystemExit("left out: the corpus maker ../shared/bench/make_corpus.py is not beside the checkout")
        shutil.rmtree(folder, ignore_errors=True)
        options = [str(folder), "--files", str(files), "--variants", str(variants), *(["--rows", str(rows)] if rows else [])]
        subprocess.run([sys.executable, str(MAKER), *options], check=True, stdout=subprocess.DEVNULL)
        (folder / "done").write_text("")
    return folder


def fresh(path: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def timed(command: Sequence[str], **options: Any) -> tuple[float, subprocess.CompletedProcess[str]]:
    """(seconds, what it printed) of a command that must succeed."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, **options)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return seconds, done


def best(function: Callable[[], Any], times: int = 5) -> tuple[float, Any]:
    """(seconds of the fastest call, its result)."""
    least, result = float("inf"), None
    for _ in range(times):
        start = time.perf_counter()
        result = function()
        least = min(least, time.perf_counter() - start)
    return least, result


def table(rows: Sequence[Sequence[Any]], head: Sequence[str]) -> None:
    """Prints rows in columns as wide as they need."""
    cells = [list(head), *[[_cell(value) for value in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for row in cells:
        print("  " + "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))))
    print()


def _cell(value: Any) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


ALPHA = 0.5
"""Of Gopher's rules that on words without letters drops 98% of the PEP history: datatrove's reading counts punctuation as words, and PEPs are full
of it. With its threshold (.8) at .5 most versions go on to the steps after it, which is the harder work."""


def pipeline(source: Path, output: Path, alpha: float | None = None) -> dict[str, Any]:
    """The main job: normalise, Gopher (with another threshold for words without letters), exact and near duplicates, a split by similarity."""
    return {
        "name": "peps",
        "sources": [{"kind": "jsonl", "path": str(source / "*.jsonl.gz"), "name": "pep"}],
        "steps": [
            {"step": "normalize_text", "column": "text"},
            {"step": "quality_rules", "column": "text", "preset": "gopher", "thresholds": {} if alpha is None else {"gopher_below_alpha_threshold": alpha}},
            {"step": "drop_exact_duplicates", "column": "text"},
            {"step": "drop_near_duplicates", "column": "text", "threshold": 0.8},
        ],
        "split": {"train": 0.98, "validation": 0.01, "test": 0.01, "similarity": 0.5},
        "output": {"path": str(output)},
    }


def run_json(source: Path, output: Path, *options: str, alpha: float | None = None) -> tuple[float, dict[str, Any]]:
    """`run_model` of the main job."""
    return run_model(pipeline(source, output, alpha), *options)


def run_model(model: dict[str, Any], *options: str) -> tuple[float, dict[str, Any]]:
    """(seconds from start to end of the process, its result) of `gristmill run` into an empty folder."""
    output = Path(model["output"]["path"])
    shutil.rmtree(output, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    file = output.parent / f"{output.name}.yaml"
    file.write_text(json.dumps(model))  # JSON is YAML
    seconds, done = timed([sys.executable, "-m", "gristmill.cli.main", "run", str(file), "--json", *options])
    return seconds, json.loads(done.stdout)
