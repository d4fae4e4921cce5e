"""Rows of the coming steps: row groups are read ahead in the order in which they will be needed, within a budget of bytes."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.errors import CorruptDatasetError
from gristmill.storage.stream.columns import Leaf, Take, gather, leaf_bytes
from gristmill.storage.stream.permute import I64

log = logging.getLogger("gristmill.stream")

MAX_PLANNED = 64


@dataclass(frozen=True)
class Block:
    """The rows of some consecutive steps on this rank.

    steps: whatever the caller wants back with each; ends: (steps,) where each one's rows end; group, row, epoch: (rows,) of each row; until: (rows,) the position after
    which its row group is needed no more; start: the block's first position; good: (rows,) False for rows that could not be read.
    """

    steps: Sequence[Any]
    ends: Sequence[int]
    group: I64
    row: I64
    epoch: I64
    until: I64
    start: int
    good: npt.NDArray[np.bool_]


class Groups:
    """The row groups in memory and on their way.

    read: the leaves of a row group. budget: bytes; what a block needs is read whatever it says. rows: (row groups,) how many each has. row_bytes: about how large a row
    is. keep: never drop one (all of them fit).
    """

    def __init__(
        self,
        read: Callable[[int], list[Leaf]],
        pool: ThreadPoolExecutor | None,
        budget: int,
        rows: I64,
        row_bytes: float,
        *,
        keep: bool,
    ) -> None:
        self._read = read
        self._pool = pool
        self._budget = budget
        self.rows = rows
        self._row_bytes = row_bytes
        self._keep = keep
        self._open: dict[int, Future[list[Leaf]]] = {}
        self._until: dict[int, int] = {}
        self._measured: dict[int, float] = {}

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

    def error(self, group: int) -> BaseException | None:
        """What reading the row group raised, if anything."""
        return self._open[group].exception()

    def release(self, position: int) -> None:
        """Drops row groups that no position from this one on needs."""
        if self._keep:
            return
        for group in [g for g, until in self._until.items() if until < position]:
            del self._until[group]
            self._measured.pop(group, None)
            self._open.pop(group).cancel()

    def _held(self) -> float:
        return sum(self._expect(group) for group in self._open)

    def _expect(self, group: int) -> float:
        """The bytes of a row group: as guessed until it is read."""
        if group not in self._measured:
            future = self._open.get(group)
            if future is None or not future.done() or future.cancelled() or future.exception():
                return float(self.rows[group]) * self._row_bytes
            self._measured[group] = float(sum(leaf_bytes(leaf) for leaf in future.result()))
        return self._measured[group]


def _done(read: Callable[[int], list[Leaf]], group: int) -> Future[list[Leaf]]:
    future: Future[list[Leaf]] = Future()
    try:
        future.set_result(read(group))
    except BaseException as error:  # noqa: BLE001  raised when the result is asked for
        future.set_exception(error)
    return future


def read_ahead(
    blocks: Iterator[Block], groups: Groups, bad: BadRows, take: Take = np.empty
) -> Iterator[tuple[Block, list[list[Leaf]]]]:
    """Each block with the leaves of each of its steps, in arrays from `take`. Memory: the budget of `groups`, and the rows of one block."""
    planned: deque[Block] = deque()
    waiting: Block | None = next(blocks, None)
    while waiting is not None or planned:
        while waiting is not None and (not planned or (len(planned) < MAX_PLANNED and groups.room_for(waiting))):
            groups.request(waiting)
            planned.append(waiting)
            waiting = next(blocks, None)
        block = planned.popleft()
        block = bad.replace(block, groups)
        yield block, _collect(block, groups, take)
        following = planned[0] if planned else waiting
        if following is not None:
            groups.release(following.start)


class BadRows:
    """What is done about rows that can't be read or transformed: `substitute` False raises, True puts others in their place.

    count: how many rows were replaced in the batches that were handed out.
    """

    def __init__(self, *, substitute: bool) -> None:
        self.substitute = substitute
        self.count = 0
        self._told: set[str] = set()

    def replace(self, block: Block, groups: Groups) -> Block:
        """The block with other rows for those of row groups that can't be read; their places in `good` become False.

        They come from the next row group that can be read, from the same place in it: whatever the ranks, the batch and where the run was resumed.
        """
        if not self.substitute:
            return block
        filled = np.flatnonzero(groups.rows)
        found = block
        for _ in range(len(filled)):
            errors = {g: error for g in np.unique(found.group).tolist() if (error := groups.error(g)) is not None}
            if not errors:
                return found
            group = found.group.copy()
            for g, error in errors.items():
                if not isinstance(error, CorruptDatasetError):
                    raise error
                self.tell(str(error))
                group[found.group == g] = filled[np.searchsorted(filled, g, "right") % len(filled)]
            good = block.good & (group == block.group)
            found = replace(found, group=group, row=block.row % groups.rows[group], good=good)
            groups.request(found)
        raise next(iter(errors.values()))

    def tell(self, text: str) -> None:
        """Logs a reason, once."""
        if text not in self._told:
            self._told.add(text)
            log.warning("rows are replaced (_valid is False): %s", text)


def substitutes(good: npt.NDArray[np.bool_]) -> I64:
    """(rows,) the row that stands at each place: itself, or for a bad one the next good one, from the end on the first."""
    places = np.flatnonzero(good)
    return places[np.searchsorted(places, np.arange(len(good))) % len(places)]


def _collect(block: Block, groups: Groups, take: Take) -> list[list[Leaf]]:
    """The leaves of each step. Rows are taken group by group for the whole block, each to its place; the steps are parts of that."""
    if not len(block.group):
        return [[] for _ in block.steps]
    by_group = np.argsort(block.group, kind="stable")
    sorted_groups = block.group[by_group]
    cuts = np.flatnonzero(np.diff(sorted_groups)) + 1
    rows, places = np.split(block.row[by_group], cuts), np.split(by_group, cuts)
    found = [groups.leaves(int(sorted_groups[start])) for start in [0, *cuts.tolist()]]
    together = [gather([leaves[i] for leaves in found], rows, places, take) for i in range(len(found[0]))]
    return [
        [None if leaf is None else leaf[a:b] for leaf in together]
        for a, b in zip([0, *block.ends[:-1]], block.ends, strict=True)
    ]
