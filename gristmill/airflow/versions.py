"""The newest version of a dataset, asked without loading gristmill into Airflow's process."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from gristmill.airflow import summaries
from gristmill.airflow.credentials import connection_env
from gristmill.airflow.process import Process, command_line

MANIFEST = re.compile(r"v(\d{8})\.json")


class LookError(Exception):
    """A dataset that can't be looked at; the text says why."""


def newest_version(
    dataset: str,
    *,
    python: str | None = None,
    cwd: str | None = None,
    conn_id: str | None = None,
    after: int = -1,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any] | None:
    """What `gristmill show` says of the newest version, small; None where there is none, or none newer than `after`.

    log: gets its log; for a URL that can't be opened it says why, be it that nothing is there yet or that nobody may read it.

    Raises:
        LookError: a dataset that is there but can't be read.
    """
    local = "://" not in dataset
    if local and newest_manifest(summaries.absolute(dataset, cwd)) <= max(after, 0):
        return None
    finished = Process(command_line(["show", dataset], python), env=connection_env(conn_id), cwd=cwd).run(log)
    if finished.status == 0 and finished.result:
        return summaries.of_version(finished.result, cwd)
    if finished.status == 2 and not local:
        return None  # not there yet
    raise LookError(f"gristmill show {dataset} ended with {finished.status}: {finished.error}")


def newest_manifest(folder: str) -> int:
    """The highest number of a manifest in a dataset's folder, 0 for none. One that gc has removed is older than the newest."""
    try:
        names = os.listdir(os.path.join(folder, "manifests"))
    except FileNotFoundError:
        return 0
    return max((int(match[1]) for name in names if (match := MANIFEST.fullmatch(name))), default=0)
