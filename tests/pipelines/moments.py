"""Runs in processes of their own, which can be killed -9 at each moment at which something is about to become visible or just has."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gristmill.pipelines.run
from gristmill.errors import GristmillError
from gristmill.pipelines import exchange, near, runner, splits
from gristmill.pipelines.sources import items
from gristmill.pipelines.work import WorkStore
from gristmill.storage.folder import Folder

PROCESSES = multiprocessing.get_context(
    "forkserver"
)  # children of a process that has imported everything and has no threads
HANG = 600  # seconds after which something has hung, on the busiest machine
PROCESSES.set_forkserver_preload([f"{__package__}.warmed"])


def run_in_child(
    model: dict[str, Any], kill_at: int | None = None, meet: Any = None, **options: Any
) -> dict[str, Any] | None:
    """What a run in a process of its own came to, or None where it was killed at its moment number `kill_at`.

    `meet`: a barrier of PROCESSES where runs wait for each other before their first stage. Work is cut small, so that every kind of work item comes several times: one item a file, several partitions of each exchange.
    """
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_child, args=(sender, model, kill_at, meet, options))
    process.start()
    sender.close()
    try:
        found: dict[str, Any] | None = receiver.recv()
    except EOFError:
        found = None
    process.join(HANG)
    assert process.exitcode == (-signal.SIGKILL if found is None else 0)
    return found


def finished(out: Path) -> dict[str, tuple[int, int]]:
    """The work that is done, by key, with what tells whether it is done again later."""
    found = {}
    for summary in (out / "_work" / "items").glob("??/[!.]*/summary.json"):
        info = summary.stat()
        found[summary.parent.name] = (info.st_ino, info.st_mtime_ns)
    return found


def leftovers(out: Path) -> list[str]:
    """Half-written files."""
    return [str(path) for path in out.rglob("*") if ".tmp-" in path.name]


def _child(sender: Connection, model: dict[str, Any], kill_at: int | None, meet: Any, options: dict[str, Any]) -> None:
    counter = itertools.count(1)
    keys: list[str] = []

    def moment() -> None:
        if next(counter) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    _watch(moment, keys)
    if meet is not None:
        _wait_before_work(meet)
    exchange.DRIVER_BYTES = exchange.PARTITION_BYTES = 4096
    near.BATCH_BYTES, splits.PAIRS, items.SMALL_BYTES = 20_000, 8, 0
    try:
        result = gristmill.run(model, progress="quiet", in_process=True, **options)
    except GristmillError as error:
        sender.send({"error": type(error).__name__, "text": str(error), "exit": error.exit_status})
        return
    sender.send({**result.to_json_dict(), "moments": next(counter) - 1, "keys": keys})


def _watch(moment: Any, keys: list[str]) -> None:
    """Has `moment` called before and after anything becomes visible, and the keys of work items collected."""
    create_work, write, create, mapped = WorkStore.create, Folder.writer, Folder.create, runner.Runner.map

    @contextlib.contextmanager
    def watched_work(self: WorkStore, key: str) -> Iterator[Any]:
        with create_work(self, key) as made:
            yield made
            moment()
        moment()

    @contextlib.contextmanager
    def watched_writer(self: Folder, path: str) -> Iterator[Any]:
        with write(self, path) as made:
            yield made
            moment()
        moment()

    def watched_create(self: Folder, path: str, content: bytes) -> None:
        moment()
        create(self, path, content)
        moment()

    def watched_map(self: Any, name: str, function: Any, tasks: Any) -> Any:
        keys.extend(task.key for task in tasks)
        return mapped(self, name, function, tasks)

    WorkStore.create, Folder.writer, Folder.create, runner.Runner.map = (
        watched_work,
        watched_writer,
        watched_create,
        watched_map,
    )  # type: ignore[method-assign]


def _wait_before_work(meet: Any) -> None:
    ingest = runner.Runner._ingest

    def together(self: Any) -> Any:
        meet.wait(HANG)
        return ingest(self)

    runner.Runner._ingest = together  # type: ignore[method-assign]
