"""What every benchmark needs: the machine and versions, the corpus, timings in fresh processes, tables."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from memory import Sampler

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
    cpu = (
        re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").exists() else None
    )
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
        options = [
            str(folder),
            "--files",
            str(files),
            "--variants",
            str(variants),
            *(["--rows", str(rows)] if rows else []),
        ]
        subprocess.run([sys.executable, str(MAKER), *options], check=True, stdout=subprocess.DEVNULL)
        (folder / "done").write_text("")
    return folder


def fresh(path: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


class Took(NamedTuple):
    """Seconds by the clock, and of processor time of all processes (on a machine with other work only these say much)."""

    seconds: float
    cpu: float


class Clock:
    """What the processes that ended in the block took, or with `own` what this one did, as `.took`."""

    def __init__(self, *, own: bool = False) -> None:
        self._who = resource.RUSAGE_SELF if own else resource.RUSAGE_CHILDREN

    def __enter__(self) -> Self:
        self._start = time.perf_counter(), self._cpu()
        return self

    def __exit__(self, *error: object) -> None:
        self.took = Took(time.perf_counter() - self._start[0], self._cpu() - self._start[1])

    def _cpu(self) -> float:
        used = resource.getrusage(self._who)
        return used.ru_utime + used.ru_stime


def best(function: Callable[[], Any], times: int = 5) -> tuple[Took, Any]:
    """(the fastest call by processor time, its result)."""
    least, result = Took(float("inf"), float("inf")), None
    for _ in range(times):
        with Clock(own=True) as clock:
            result = function()
        least = min(least, clock.took, key=lambda took: took.cpu)
    return least, result


def table(rows: Sequence[Sequence[Any]], head: Sequence[str]) -> None:
    """Prints rows in columns as wide as they need."""
    cells = [list(head), *[[_cell(value) for value in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for row in cells:
        print(
            "  "
            + "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        )
    print()


def _cell(value: Any) -> str:
    return (
        f"{value:,.2f}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int) and not isinstance(value, bool)
        else str(value)
    )


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
            {
                "step": "quality_rules",
                "column": "text",
                "preset": "gopher",
                "thresholds": {} if alpha is None else {"gopher_below_alpha_threshold": alpha},
            },
            {"step": "drop_exact_duplicates", "column": "text"},
            {"step": "drop_near_duplicates", "column": "text", "threshold": 0.8},
        ],
        "split": {"train": 0.98, "validation": 0.01, "test": 0.01, "similarity": 0.5},
        "output": {"path": str(output)},
    }


PROCESSES = """
import json, sys, gristmill
result = gristmill.run(sys.argv[1], workers=int(sys.argv[4]), memory=sys.argv[6], in_process=False, progress="quiet")
print(json.dumps(result.to_json_dict()))
"""


def run(model: dict[str, Any], *options: str, processes: bool = False) -> tuple[Took, dict[str, Any], Sampler]:
    """(what it took from start to end of the process, its result, its memory) of `gristmill run` into an empty folder.

    processes: on worker processes also where the input is small, with the options --workers and --memory in this order.
    """
    output = Path(model["output"]["path"])
    shutil.rmtree(output, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    file = output.parent / f"{output.name}.yaml"
    file.write_text(json.dumps(model))  # JSON is YAML
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        with Clock() as clock:
            command = ["-c", PROCESSES, str(file)] if processes else ["-m", "gristmill.cli.main", "run", str(file)]
            process = subprocess.Popen([sys.executable, *command, "--json", *options], stdout=out, stderr=errors)
            with Sampler(process.pid) as memory:
                status = process.wait()
        out.seek(0), errors.seek(0)
        if status:
            raise SystemExit(f"gristmill run failed:\n{errors.read()[-4000:]}")
        return took_by(clock, memory), json.loads(out.read()), memory


def took_by(clock: Clock, memory: Sampler) -> Took:
    """What a process tree took: of processor time what its processes were seen to use, where the system counts less for want of a parent that waits."""
    return clock.took._replace(cpu=max(clock.took.cpu, memory.cpu))
