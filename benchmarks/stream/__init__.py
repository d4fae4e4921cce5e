"""Benchmarks of the stream: speed, memory and quality of the shuffle beside other loaders."""

import sys
from pathlib import Path

sys.path.append(
    str(Path(__file__).resolve().parents[1])
)  # benchmarks/common.py imports its neighbours by their plain names
