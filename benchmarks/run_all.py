"""Every benchmark that can run here, one after the other, each in a process of its own: `make bench`.

`python benchmarks/run_all.py [NAME ...]`. What is missing (data beside the checkout, other tools) is said and left out. Scratch data goes to
a folder `gristmill-bench` of the system's temporary folder, or to GRISTMILL_BENCH, and stays there for the next time.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TEXT = ("kernels", "recall", "pipeline", "growth", "peers")


def commands(names: list[str]) -> list[list[str]]:
    """The benchmarks of this folder, then those of folders with a `__main__`: `stream` is run as `python -m benchmarks.stream`."""
    folders = sorted(path.parent.name for path in HERE.glob("*/__main__.py"))
    found = {name: [str(HERE / f"{name}.py")] for name in TEXT} | {
        name: ["-m", f"benchmarks.{name}"] for name in folders
    }
    unknown = [name for name in names if name not in found]
    if unknown:
        raise SystemExit(f"no benchmark {', '.join(unknown)}; there are {', '.join(found)}")
    return [found[name] for name in names or found]


def main() -> int:
    failed = []
    for command in commands(sys.argv[1:]):
        print(f"\n==== {' '.join(command).replace(f'{HERE}/', 'benchmarks/')}", flush=True)
        if subprocess.run([sys.executable, *command], cwd=HERE.parent).returncode:
            failed.append(command[-1])
    for name in failed:
        print(f"\nnot finished: {Path(name).name}", file=sys.stderr)
    return len(failed) > 0


if __name__ == "__main__":
    sys.exit(main())
