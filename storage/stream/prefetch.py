"""Rows of the coming steps: row groups are read ahead in the order in which they will be needed, within a budget of bytes."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.storage.stream.columns import Leaf, gather, leaf_bytes, take
from gristmill.storage.stream.permute import I64

MAX_PLANNED = 64


@dataclass(frozen=True)
class Block:
    """The rows of some consecutive steps on this rank.

    steps: whatever the caller wants back with each; ends: (steps,) where each one's rows end; group, row: (rows,) of each row; until: (rows,) the position after
    which its row group is needed no more; start: the block's first position.
    """

    steps: Sequence[Any]
    ends: Sequence[int]
    group: I64
    row: I64
    until: I64
    start: int


class Groups:
    """The row groups in memory and on their way.

    read: the leaves of a row group. budget: bytes; what a block needs is read whatever it says. keep: never drop one (all of them fit).
    """

    def __init__(
        self,
        read: Callable[[int], list[Leaf]],
        pool: ThreadPoolExecutor | None,
        budget: int,
        group_bytes: Callable[[int], int],
        *,
        keep: bool,
    ) -> None:
        self._read = read
        self._pool = pool
        self._budget = budget
        self._guess = group_bytes
        self._keep = keep
        self._open: dict[int, Future[list[Leaf]]] = {}
        self._until: dict[int, int] = {}

    def room_for(self, block: Block) -> bool:
        """Whether the row groups that a block needs anew fit the budget beside those that are there."""
        new = [g for g in np.unique(block.group).tolist() if g not in self._open]
        return self._held() + sum(self._expect(g) for g in new) <= self._budget

    def request(self, block: Block) -> None:
        """Begins to read what the block needs and isn't there, in the order of first use."""
        groups, first = np.unique(block.group, return_index=True)
        for group, until in zip(groups.tolist(), block.until[first].tolist(), strict=True):
            self._until[group] = max(until, self._until.get(group, -1))
        for group in groups[np.argsort(first)].tolist():
            if group not in self._open:
                self._open[group] = self._pool.submit(self._read, group) if self._pool else _done(self._read, group)

    def leaves(self, group: int) -> list[Leaf]:
        """The row group's leaves, when they are read. Raises what reading raised."""
        return self._open[group].result()

    def release(self, position: int) -> None:
        """Drops row groups that no position from this one on needs."""
        if self._keep:
            return
        for group in [g for g, until in self._until.items() if until < position]:
            del self._until[group]
            self._open.pop(group).cancel()

    def _held(self) -> float:
        return sum(self._expect(group) for group in self._open)

    def _expect(self, group: int) -> float:
        """The bytes of a row group: as guessed, corrected by what others turned out to have."""
        future = self._open.get(group)
        if future is not None and future.done() and not future.cancelled() and not future.exception():
            return float(sum(leaf_bytes(leaf) for leaf in future.result()))
        return float(self._guess(group))


def _done(read: Callable[[int], list[Leaf]], group: int) -> Future[list[Leaf]]:
    future: Future[list[Leaf]] = Future()
    try:
        future.set_result(read(group))
    except BaseException as error:  # noqa: BLE001  raised when the result is asked for
        future.set_exception(error)
    return future


def read_ahead(blocks: Iterator[Block], groups: Groups) -> Iterator[tuple[Block, list[list[Leaf]]]]:
    """Each block with the leaves of each of its steps. Memory: the budget of `groups`, and the rows of one block."""
    planned: deque[Block] = deque()
    waiting: Block | None = next(blocks, None)
    while waiting is not None or planned:
        while waiting is not None and (not planned or (len(planned) < MAX_PLANNED and groups.room_for(waiting))):
            groups.request(waiting)
            planned.append(waiting)
            waiting = next(blocks, None)
        block = planned.popleft()
        yield block, _collect(block, groups)
        following = planned[0] if planned else waiting
        if following is not None:
            groups.release(following.start)


def _collect(block: Block, groups: Groups) -> list[list[Leaf]]:
    """The leaves of each step. Rows are taken group by group for the whole block, then put in order step by step."""
    by_group = np.argsort(block.group, kind="stable")
    sorted_groups = block.group[by_group]
    cuts = np.flatnonzero(np.diff(sorted_groups)) + 1
    rows = np.split(block.row[by_group], cuts)
    found = [groups.leaves(int(sorted_groups[start])) for start in [0, *cuts.tolist()]] if len(sorted_groups) else []
    together = [gather([leaves[i] for leaves in found], rows) for i in range(len(found[0]) if found else 0)]
    if len(block.steps) == 1 and (np.diff(by_group) == 1).all():
        return [together]
    place = np.empty_like(by_group)
    place[by_group] = np.arange(len(by_group))
    starts = [0, *block.ends[:-1]]
    return [
        [take(leaf, place[a:b]) if leaf is not None else None for leaf in together]
        for a, b in zip(starts, block.ends, strict=True)
    ]


class Background:
    """Runs an iterator in a thread, at most `depth` items ahead of the one that takes them. `close` ends it."""

    def __init__(self, items: Iterator[Any], depth: int) -> None:
        self._items = items
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(max(1, depth))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gristmill-stream", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Any]:
        while True:
            kind, value = self._queue.get()
            if kind == "item":
                yield value
            elif kind == "error":
                raise value
            else:
                return

    def close(self) -> None:
        """Stops the thread and waits for it."""
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(("item", item)):
                    return
            self._put(("end", None))
        except BaseException as error:  # noqa: BLE001  raised where the items are taken
            self._put(("error", error))

    def _put(self, entry: tuple[str, Any]) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
