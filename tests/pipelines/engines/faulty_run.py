"""One run in a process of its own, its work cut small, with `Faults`: python -m tests.pipelines.engines.faulty_run JSON."""

from __future__ import annotations

import json
import os
import sys

import gristmill.pipelines.run
from gristmill.errors import GristmillError
from gristmill.pipelines import exchange, near, splits, work
from gristmill.pipelines.engines import watch
from gristmill.pipelines.sources import items

from .faults import Faults


def main() -> None:
    asked = json.loads(sys.argv[1])
    at = tuple(asked.get("at", {}).items())
    work.once = Faults(asked["folder"], asked.get("kind", ""), at, os.getpid(), asked.get("others", 0))
    exchange.DRIVER_BYTES = exchange.PARTITION_BYTES = 4096
    near.BATCH_BYTES, splits.PAIRS, items.SMALL_BYTES = 20_000, 8, 0
    watch.SLOW_SECONDS = asked.get("slow", watch.SLOW_SECONDS)
    try:
        result = gristmill.pipelines.run.run(asked["model"], progress="lines", **asked.get("options", {}))
    except GristmillError as error:
        print(json.dumps({"error": type(error).__name__, "text": str(error), "exit": error.exit_status}))
        return
    print(json.dumps(result.to_json_dict()))


if __name__ == "__main__":
    main()
