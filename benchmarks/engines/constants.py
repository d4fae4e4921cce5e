"""The constants of docs/scale.md, measured on the PEP history: bytes of each kind of work file by row and by byte of text, edges, CPU seconds.

    python benchmarks/engines/constants.py [--rows N]         # half a minute on idle cores

Exchanges go through files whatever their size, so that what they move can be weighed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import time
from collections import defaultdict
from pathlib import Path

import common_path  # noqa: F401
import common

import gristmill
from gristmill.pipelines import exchange

KIND = re.compile(r"([a-z]+(?:-\d(?=-))?)")


def weigh(work: Path) -> dict[str, list[int]]:
    """(bytes, files) of each kind of work file."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for path in work.rglob("*"):
        if path.is_file():
            kind = KIND.match(path.name)
            name = "exchanged: rows" if path.name == "rows.arrow" else kind[1] if kind else path.name
            found[name][0] += path.stat().st_size
            found[name][1] += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int)
    chosen = parser.parse_args()
    common.header()
    source, output = common.corpus(rows=chosen.rows), common.SCRATCH / "constants"
    shutil.rmtree(output, ignore_errors=True)
    exchange.DRIVER_BYTES = 0
    began = time.process_time()
    result = gristmill.run(common.pipeline(source, output, common.ALPHA), in_process=True, progress="quiet")
    cpu = time.process_time() - began
    rows = result.counts["read"]
    text = sum(text_bytes(path) for path in sorted(source.glob("*.jsonl.gz")))
    found = weigh(output / "_work")
    print(
        f"{rows} rows, {text / 1e6:.0f} MB of text, {text / rows:,.0f} bytes a row; {cpu:.1f} CPU s, {text / 1e6 / cpu:.1f} MB of text / CPU s"
    )
    kinds = sorted(found.items(), key=lambda item: -item[1][0])
    common.table(
        [[name, size / 1e6, files, size / rows, size / text] for name, (size, files) in kinds],
        ["work files", "MB", "files", "bytes a row", "bytes a byte of text"],
    )
    manifest = sum(path.stat().st_size for path in (output / "manifests").rglob("*") if path.is_file())
    ledger = sum(path.stat().st_size for path in (output / "ledger").rglob("*") if path.is_file())
    shards = list((output / "data").rglob("*.parquet"))
    print(
        f"shards {len(shards)}, {sum(path.stat().st_size for path in shards) / 1e6:.1f} MB; manifest and parts {manifest} bytes; ledger {ledger / rows:.0f} bytes a row"
    )
    for name in ("drop_near_duplicates", "split"):
        print(f"{name}: {result.steps.get(name)}")
    print("seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in result.seconds.items()))
    shutil.rmtree(output)


def text_bytes(path: Path) -> int:
    """Bytes of text in a file of the corpus."""
    import gzip

    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return sum(len(json.loads(line)["text"].encode()) for line in lines)


if __name__ == "__main__":
    main()
