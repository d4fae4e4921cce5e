"""`python -m benchmarks.stream [CASE ...] [--peers PYTHON]`: the figures of the stream, beside other loaders where their environment is there."""

from __future__ import annotations

import argparse
import signal
import sys

from benchmarks.common import header
from benchmarks.stream import data, elastic, images, local, remote, resume

CASES = {
    **dict.fromkeys(local.PEERS, local.compare),
    **dict.fromkeys(data.SIZES, images.compare),
    "remote": remote.compare,
    "resume": resume.compare,
    "elastic": elastic.resumes,
    "mixing": elastic.mixing,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}; all by default")
    parser.add_argument(
        "--peers",
        metavar="PYTHON",
        help="the Python of an environment with benchmarks/peers.txt; without it the others are left out",
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of rows")
    parser.add_argument("--only", nargs="*", default=(), help="only these loaders")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the table so far is printed
    header("pyarrow", "numpy", "torch")
    for case in given.cases or CASES:
        CASES[case](case, given.peers, given.scale, given.only)


if __name__ == "__main__":
    main()
