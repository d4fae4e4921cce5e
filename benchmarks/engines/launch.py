"""One run in a process of its own, on the engine that was asked for: `launch(model, engine=...)`; as a script it is that process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

ENGINES: dict[str, dict[str, Any]] = {
    "threads": {"engine": "dask"},  # of one process; of a small input one
    "dask": {"engine": "dask", "in_process": False},
    "spark": {"engine": "spark", "in_process": False},
}


def command(model: dict[str, Any], **options: Any) -> list[str]:
    return [sys.executable, str(HERE / "launch.py"), json.dumps([model, options])]


def launch(model: dict[str, Any], *, fresh: bool = True, **options: Any) -> tuple[Any, dict[str, Any], Any]:
    """(what it took from start to end of the process, its result, its memory); into an empty folder if `fresh`."""
    from common import Clock, Sampler, took_by

    output = Path(model["output"]["path"])
    if fresh:
        shutil.rmtree(output, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        with Clock() as clock:
            process = subprocess.Popen(command(model, **options), stdout=out, stderr=errors)
            with Sampler(process.pid) as memory:
                status = process.wait()
        out.seek(0), errors.seek(0)
        if status:
            raise SystemExit(f"the run failed:\n{errors.read()[-4000:]}")
        return took_by(clock, memory), json.loads(out.read()), memory


def empty(out: Path) -> dict[str, Any]:
    """The pipeline of which a run takes nothing but an engine's start: one row, no step."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "empty.jsonl").write_text('{"text": "one"}\n')
    source = {"kind": "jsonl", "path": str(out / "empty.jsonl"), "name": "empty"}
    return {"name": "empty", "sources": [source], "steps": [], "output": {"path": str(out / "empty")}}


def main() -> None:
    import gristmill

    model, options = json.loads(sys.argv[1])
    print(json.dumps(gristmill.run(model, progress="quiet", **options).to_json_dict()))


if __name__ == "__main__":
    main()
