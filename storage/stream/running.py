"""One iteration of a stream: its threads, what they read ahead, and the batches that come out."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from gristmill.storage.stream.background import Background
from gristmill.storage.stream.batching import Batching, share
from gristmill.storage.stream.buffers import Buffers
from gristmill.storage.stream.columns import Leaf
from gristmill.storage.stream.layout import Layout
from gristmill.storage.stream.mixture import Mixture
from gristmill.storage.stream.order import Order
from gristmill.storage.stream.packed_reader import PackedReader
from gristmill.storage.stream.permute import I64
from gristmill.storage.stream.prefetch import BadRows, Block, Groups, read_ahead
from gristmill.storage.stream.ranks import Ranks
from gristmill.storage.stream.reader import Reader
from gristmill.storage.stream.tensors import Batch, emit, pad_ragged
from gristmill.storage.stream.trace import UID
from gristmill.storage.stream.transforms import RowJobs, RowWork, end_with_parent

BLOCK_BYTES = 16 << 20  # the rows of several steps are gathered at once, up to this
BLOCK_ROWS = 16_384
QUEUE_BYTES = 32 << 20  # finished batches that wait
FREE_BYTES = 64 << 20  # memory of batches that are done with, kept for new ones
LOOK_AHEAD = 1 / 8  # of shuffle_bytes: for row groups that are not yet needed
MIN_LOOK_AHEAD, MIN_LOOK_AHEAD_REMOTE = 8 << 20, 128 << 20  # the latter is a second of 1 Gbit/s
BATCHES_AT_WORK = 3  # whose rows are decoded or transformed at the same time
REMOTE_READS = 16  # row groups that are asked for at the same time: each waits for the store most of the time


@dataclass(frozen=True)
class Feed:
    """Everything an iteration needs to know. threads 0: nothing runs ahead. workers: processes for transforms, 0 for threads."""

    layout: Layout
    order: Order | Mixture
    reader: Reader | PackedReader
    batching: Batching
    ranks: Ranks
    work: RowWork | None
    bad: BadRows
    shuffle_bytes: int
    threads: int
    workers: int
    device: Any
    drop_uid: bool
    pad: Mapping[str, float] = field(default_factory=dict)


class Running:
    """The batches from a step on, or every `stride`-th of them. `close` ends its threads and processes."""

    def __init__(self, feed: Feed, position: int, step: int, *, first: int, stride: int) -> None:
        self._feed = feed
        self._from = position, step, first, stride
        self._remote = any(folder.remote for folder in feed.layout.folders)
        reads = max(feed.threads, REMOTE_READS) if self._remote else feed.threads
        self._buffers = Buffers(FREE_BYTES)
        self._pool = ThreadPoolExecutor(reads, "gristmill-read") if feed.threads else None
        self._workers = self._make_workers()
        self._jobs = self._row_jobs()
        rows = max(1, feed.batching.size // feed.ranks.world_size)
        depth = max(2, int(QUEUE_BYTES / (rows * max(1.0, feed.layout.row_bytes))))
        self._background = Background(self._batches(), depth) if feed.threads else None

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._background or self._batches():
            if self._feed.device is not None:
                each_tensor(batch, lambda tensor: tensor.to(self._feed.device, non_blocking=True))
            yield batch

    def close(self) -> None:
        """Ends what runs."""
        if self._background is not None:
            self._background.close()
        for pool in (self._pool, self._workers):
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)

    def _make_workers(self) -> Executor | None:
        """What decodes and transforms rows, apart from reading so that neither waits behind the other; None: this thread."""
        feed = self._feed
        if feed.work is None or not (feed.workers or feed.threads):
            return None
        if feed.workers:
            spawn = multiprocessing.get_context("spawn")
            return ProcessPoolExecutor(feed.workers, spawn, initializer=end_with_parent)
        return ThreadPoolExecutor(feed.threads, "gristmill-work")

    def _row_jobs(self) -> RowJobs | None:
        feed = self._feed
        if feed.work is None:
            return None
        chunks = max(1, feed.workers or feed.threads) * 2
        return RowJobs(feed.work, self._workers, chunks, feed.bad, None if feed.workers else self._buffers)

    def _batches(self) -> Iterator[Batch]:
        feed = self._feed
        row_bytes = feed.layout.row_bytes * len(feed.reader.names) / max(1, len(feed.layout.schema.names))
        own = feed.shuffle_bytes / feed.ranks.world_size
        budget = own + max(MIN_LOOK_AHEAD_REMOTE if self._remote else MIN_LOOK_AHEAD, LOOK_AHEAD * own)
        fits = feed.layout.num_rows * row_bytes <= budget
        groups = Groups(feed.reader.read, self._pool, int(budget), feed.layout.group_rows, row_bytes, keep=fits)
        at_work: deque[Callable[[], Batch]] = deque()
        for block, parts in read_ahead(self._blocks(), groups, feed.bad, self._buffers.take):
            start = 0
            for batch, leaves, end in zip(block.steps, parts, block.ends, strict=True):
                at_work.append(self._begin(batch, leaves, block, slice(start, end)))
                start = end
                if len(at_work) >= (BATCHES_AT_WORK if self._jobs else 1):
                    yield at_work.popleft()()
        while at_work:
            yield at_work.popleft()()

    def _begin(self, batch: Batch, leaves: Sequence[Leaf], block: Block, rows: slice) -> Callable[[], Batch]:
        """A function that gives the finished batch; work on single rows has begun."""
        feed = self._feed
        views = feed.work.in_place if feed.work and not feed.workers else ()  # memoryviews don't go to other processes
        batch.update(emit(feed.reader.columns, leaves or feed.reader.empty(), views))
        good = block.good[rows]
        if self._jobs is None or not len(good):
            return lambda: self._finish(batch, good)
        uids = batch[UID] if UID in batch else feed.layout.keys(block.group[rows], block.row[rows])
        wait = self._jobs.begin(batch, uids, block.epoch[rows].tolist())

        def finish() -> Batch:
            columns, well = wait()
            batch.clear()
            batch.update(columns)
            return self._finish(batch, good & well)

        return finish

    def _finish(self, batch: Batch, good: Any) -> Batch:
        feed = self._feed
        if feed.drop_uid:
            batch.pop(UID, None)
        pad_ragged(batch, feed.pad)
        real = np.arange(len(good)) < len(good) - batch.padding
        batch.replaced = int((real & ~good).sum())
        if feed.batching.tail == "pad" or feed.bad.substitute:
            batch["_valid"] = torch.from_numpy(real & good)
        if feed.device is not None and torch.cuda.is_available():
            each_tensor(batch, lambda tensor: tensor.pin_memory())
        return batch

    def _blocks(self) -> Iterator[Block]:
        """The rows of this rank in the coming steps, several steps at a time."""
        steps: list[tuple[Batch, I64]] = []
        rows, start, most = 0, self._from[0], 1  # the first block is one step, so that it is soon there
        limit = max(1, min(BLOCK_ROWS, int(BLOCK_BYTES / max(1.0, self._feed.layout.row_bytes))))
        for batch, positions in self._steps():
            steps.append((batch, positions))
            rows += len(positions)
            if rows >= most:
                yield self._block(steps, start)
                steps, start, most, rows = [], batch.next_position, min(limit, max(1, rows * 2)), 0
        if steps:
            yield self._block(steps, start)

    def _block(self, steps: Sequence[tuple[Batch, I64]], start: int) -> Block:
        order = self._feed.order
        positions = np.concatenate([positions for _, positions in steps])
        places = order.locate(positions)
        return Block(
            steps=[batch for batch, _ in steps],
            ends=np.cumsum([len(each) for _, each in steps]).tolist(),
            group=places.group,
            row=places.row,
            epoch=order.epoch_of(positions),
            until=order.needed_until(positions, places.group),
            start=start,
            good=np.ones(len(positions), bool),
        )

    def _steps(self) -> Iterator[tuple[Batch, I64]]:
        """Each coming batch, empty but for its numbers, with the positions of this rank's rows."""
        batching, order, (rank, world_size) = self._feed.batching, self._feed.order, self._feed.ranks
        position, step, first, stride = self._from
        while (taken := batching.take(position)) is not None:
            if step >= first and (step - first) % stride == 0:
                batch = Batch()
                batch.step, batch.position, batch.next_position = step, position, taken.next
                ordered = taken.positions[np.argsort(order.lane_of(taken.positions), kind="stable")]
                missing = batching.size - len(ordered) if batching.tail == "pad" else 0
                part = share(len(ordered) + missing, rank, world_size)
                batch.padding = max(0, min(part.stop - part.start, part.stop - len(ordered)))
                yield batch, np.append(ordered, np.repeat(ordered[-1:], missing))[part]
            position, step = taken.next, step + 1


def each_tensor(values: dict[str, Any], change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Changes every tensor in a batch, also inside structs and ragged columns."""
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            values[name] = change(value)
        elif isinstance(value, dict):
            each_tensor(value, change)
        elif isinstance(value, tuple) and hasattr(value, "_fields"):
            values[name] = type(value)(*map(change, value))
