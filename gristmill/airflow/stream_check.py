"""Reads the first batches of a mix or dataset as training will, and prints what came as JSON.

    python -m gristmill.airflow.stream_check DATA BATCHES '{"split": "train", ...}'

Needs torch and gristmill, not Airflow. Exit status as of the gristmill command.
"""

from __future__ import annotations

import itertools
import json
import sys
from typing import Any

from gristmill.airflow.answers import answer
from gristmill.errors import StreamError


def check(data: str, batches: int, options: dict[str, Any]) -> dict[str, Any]:
    """Steps of the whole stream, rows of the batches that were read, and the type of each column.

    Raises:
        StreamError: the stream has no rows.
    """
    from gristmill.storage.stream import stream

    loader = stream(data, **options)
    columns: dict[str, str] = {}
    rows = 0
    for batch in itertools.islice(loader, batches):
        columns = {name: str(getattr(value, "dtype", type(value).__name__)) for name, value in batch.items()}
        rows += max((len(value) for value in batch.values()), default=0)
    if not rows:
        raise StreamError(f"'{data}' gives no rows")
    return {"data": data, "steps": len(loader), "rows_read": rows, "columns": columns}


def main() -> None:
    """The command."""
    data, batches, options = sys.argv[1:]
    answer(check, data, int(batches), json.loads(options))


if __name__ == "__main__":
    main()
