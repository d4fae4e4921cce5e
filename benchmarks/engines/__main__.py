"""All benchmarks of engines in turn: `python -m benchmarks.engines [NAME ...]`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = ("start", "scale", "peers", "resume", "constants", "simulate")


def main() -> int:
    failed = [
        name for name in sys.argv[1:] or NAMES if subprocess.run([sys.executable, str(HERE / f"{name}.py")]).returncode
    ]
    print(f"not finished: {', '.join(failed)}" if failed else "", file=sys.stderr)
    return len(failed) > 0


if __name__ == "__main__":
    sys.exit(main())
