"""`gristmill.stream`: batches of tensors from a dataset version or any Parquet files, in an order that nothing but the seed decides."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from gristmill.errors import StateError, UsageError
from gristmill.storage.stream import trace
from gristmill.storage.stream.batching import Batching, Skip, share
from gristmill.storage.stream.gates import check_verdict
from gristmill.storage.stream.layout import Layout, open_layout
from gristmill.storage.stream.order import Order, fit_shuffle
from gristmill.storage.stream.permute import I64
from gristmill.storage.stream.prefetch import Background, Block, Groups, read_ahead
from gristmill.storage.stream.ranks import find_ranks
from gristmill.storage.stream.reader import Reader
from gristmill.storage.stream.state import State, check_data
from gristmill.storage.stream.tensors import Batch, emit, pad

log = logging.getLogger("gristmill.stream")

BLOCK_BYTES = 8 << 20  # rows of several steps are gathered at once, up to this
BLOCK_ROWS = 16_384
QUEUE_BYTES = 32 << 20  # finished batches that wait
LOOK_AHEAD = 0.125  # the part of shuffle_bytes that is for row groups not yet needed
MIN_LOOK_AHEAD = 8 << 20


class Stream(IterableDataset[Batch]):
    """Batches of this rank, in order; `gristmill.stream` makes it.

    Iterating goes on where the last iteration stopped; at the end of all epochs it yields nothing. `state_dict` counts the batches that were handed out, whatever was
    read ahead. Inside a torch DataLoader (batch_size=None) each worker takes every n-th step, so that the order stays.
    """

    def __init__(
        self,
        layout: Layout,
        reader: Reader,
        batching: Batching,
        state: State,
        rank: int,
        world_size: int,
        options: Mapping[str, Any],
    ) -> None:
        self.layout = layout
        self.batching = batching
        self.rank, self.world_size = rank, world_size
        self._reader = reader
        self._state = state
        self._options = dict(options)
        self._running: Any = None
        self.order = Order(layout.group_rows, state.seed, state.order)
        self._use(state)

    @property
    def position(self) -> int:
        """The position of the next row in the stream: the rows handed out so far over all ranks, and those left out."""
        return self._state.position

    @property
    def step(self) -> int:
        """The number of the next batch."""
        return self._state.step

    @property
    def epoch(self) -> int:
        """The epoch that the next row is in; the number of epochs at the end."""
        return self._state.position // self.batching.num_rows

    def __len__(self) -> int:
        """Steps of the whole run, those already done included; the same on every rank."""
        return self._state.step + self.batching.steps_from(self._state.position)

    def __iter__(self) -> Iterator[Batch]:
        self.close()
        worker = get_worker_info()
        if self._state.position >= self.batching.end:
            log.warning(
                "all %d epochs of %s were handed out: iterating yields nothing. epochs= is the total",
                self.batching.epochs,
                self.layout.name,
            )
            return
        running = self._running = _Running(self, worker)
        try:
            for batch in running:
                if self._running is not running:
                    raise StateError(
                        "the state was loaded, or a new iteration begun, inside this one: begin the loop again"
                    )
                after = replace(self._state, step=batch.step + 1, position=batch.next_position)
                self._state = (
                    after if worker is None else _worker_state(after, self.batching, worker.id, worker.num_workers)
                )
                yield batch
        finally:
            running.close()
            if self._running is running:
                self._running = None

    def state_dict(self, batch: Batch | None = None) -> dict[str, Any]:
        """What was handed out: JSON, under 1 kB without skipped rows, the same on every rank. With `batch`: as it was when that batch was the last."""
        state = self._state
        if batch is not None:
            state = replace(state, step=batch.step + 1, position=batch.next_position)
        return state.to_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state, whatever ranks, batch size and workers it was made with. Seed and shuffle are the state's; so are rows to skip, beside this loader's own.

        Raises:
            StateError: not a state of a stream. DataChangedError: a state of other data.
        """
        self.close()
        loaded = check_data(State.from_dict(state), self.layout, self._options["on_change"])
        if (loaded.seed, loaded.order) != (self._state.seed, self._state.order):
            log.info("seed and shuffle are those of the state: seed=%d, %s", loaded.seed, loaded.order)
        self.order = Order(self.layout.group_rows, loaded.seed, loaded.order)
        self._use(loaded)

    def rows_at(self, step: int) -> list[str]:
        """The uids of the global batch of any step of the run, past or future, in its order; `path:row` for files without `_uid`."""
        return trace.uids(self.layout, trace.places_at(self._state, self.batching, self.order, step))

    def steps_of(self, uid: str) -> list[int]:
        """The steps of the whole run in which a row was or will be handed out. Looks for the uid in the data: one pass over `_uid`."""
        return trace.steps_of(self._state, self.batching, self.order, trace.find_rows(self.layout, [uid])[uid])

    def close(self) -> None:
        """Stops reading ahead; iterating again begins anew from where the loop was."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_running": None, "order": None}

    def __setstate__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)
        self.order = Order(self.layout.group_rows, self._state.seed, self._state.order)
        self._use(self._state)

    def _use(self, state: State) -> None:
        """Goes on from a state with this loader's own batches."""
        rows, ranges = trace.resolve_skip(state, self.layout, self.batching, self.order, self._options["skip"])
        skip = Skip(rows, ranges)
        self.batching = replace(self.batching, skip=skip, places=trace.places_of(self.layout, self.order))
        cut = (self.batching.size, self.batching.tail)
        history = state.history
        if not history or tuple(history[-1][2:]) != cut:
            history = (*[entry for entry in history if entry[0] < state.step], (state.step, state.position, *cut))
        self._state = replace(state, history=history, skip_rows=skip.rows, skip_ranges=skip.ranges)


class _Running:
    """One iteration: the threads and what they hold."""

    def __init__(self, stream: Stream, worker: Any) -> None:
        self._stream = stream
        self._worker = worker
        self._options = stream._options
        threads = 1 if worker is not None else self._options["threads"]
        self._pool = ThreadPoolExecutor(threads, "gristmill-read") if threads else None
        self._position, self._step = stream.position, stream.step
        self._background: Background | None = None
        batches = self._batches()
        if threads:
            rows = max(1, stream.batching.size // stream.world_size)
            self._background = Background(
                batches, max(2, int(QUEUE_BYTES / (rows * max(1.0, stream.layout.row_bytes))))
            )
        self._items = iter(self._background) if self._background else batches

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._items:
            yield _to_device(batch, self._options["device"])

    def close(self) -> None:
        """Ends the threads."""
        if self._background is not None:
            self._background.close()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _batches(self) -> Iterator[Batch]:
        stream, reader = self._stream, self._stream._reader
        width = _column_share(stream.layout, reader)
        rows = stream.layout.group_rows
        budget = self._options["shuffle_bytes"] / stream.world_size * width + max(
            MIN_LOOK_AHEAD, LOOK_AHEAD * self._options["shuffle_bytes"] / stream.world_size
        )
        fits = stream.layout.num_rows * stream.layout.row_bytes * width <= budget
        groups = Groups(
            reader.read,
            self._pool,
            int(budget),
            lambda group: int(rows[group] * stream.layout.row_bytes * width),
            keep=fits,
        )
        for block, parts in read_ahead(self._blocks(), groups):
            for batch, leaves in zip(block.steps, parts, strict=True):
                yield self._finish(batch, leaves)

    def _finish(self, batch: Batch, leaves: list[Any]) -> Batch:
        valid = batch.pop("_valid", None)
        batch.update(emit(self._stream._reader.columns, leaves))
        pad(batch, self._options["pad"])
        if valid is not None:
            batch["_valid"] = torch.from_numpy(valid)
        if self._options["device"] is not None and torch.cuda.is_available():
            _each_tensor(batch, lambda tensor: tensor.pin_memory())
        return batch

    def _blocks(self) -> Iterator[Block]:
        """This rank's rows of the coming steps, several steps at a time."""
        steps, rows = [], 0
        most = max(1, min(BLOCK_ROWS, int(BLOCK_BYTES / max(1.0, self._stream.layout.row_bytes))))
        block_start = self._position
        for batch, positions in self._steps():
            steps.append((batch, positions))
            rows += len(positions)
            if rows >= most:
                yield self._block(steps, block_start)
                steps, rows, block_start = [], 0, batch.next_position
        if steps:
            yield self._block(steps, block_start)

    def _block(self, steps: Sequence[tuple[Batch, I64]], start: int) -> Block:
        positions = np.concatenate([positions for _, positions in steps])
        order = self._stream.order
        places = order.locate(positions)
        epochs = positions // order.num_rows
        until = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            until[here] = order.last_use(int(epoch))[places.group[here]]
        ends = np.cumsum([len(each) for _, each in steps]).tolist()
        return Block([batch for batch, _ in steps], ends, places.group, places.row, until, start)

    def _steps(self) -> Iterator[tuple[Batch, I64]]:
        """Each coming batch, empty but for its numbers, with the positions of this rank's rows."""
        stream = self._stream
        batching, order = stream.batching, stream.order
        position, step = self._position, self._step
        first, stride = _worker_steps(stream._state, self._worker)
        while (taken := batching.take(position)) is not None:
            if step >= first and (step - first) % stride == 0:
                batch = Batch()
                batch.step, batch.position, batch.next_position = step, position, taken.next
                ordered = taken.positions[np.argsort(order.lane_of(taken.positions), kind="stable")]
                if batching.tail == "pad":
                    missing = batching.size - len(ordered)
                    ordered = np.append(ordered, np.repeat(ordered[-1:], missing))
                    batch["_valid"] = (
                        np.arange(batching.size)[share(batching.size, stream.rank, stream.world_size)]
                        < batching.size - missing
                    )
                yield batch, ordered[share(len(ordered), stream.rank, stream.world_size)]
            position, step = taken.next, step + 1


def _worker_steps(state: State, worker: Any) -> tuple[int, int]:
    """(the first step, the stride) of this process among a DataLoader's workers."""
    if worker is None:
        return state.step, 1
    return state.step + (0 if state.worker else worker.id), worker.num_workers


def _worker_state(state: State, batching: Batching, worker: int, workers: int) -> State:
    """The state of a DataLoader's worker: its own next step."""
    position = batching.position_after(state.position, workers - 1)
    return replace(state, step=state.step + workers - 1, position=position, worker=(worker, workers))


def _column_share(layout: Layout, reader: Reader) -> float:
    """The part of a row's bytes that the chosen columns have, as far as their number tells."""
    return max(1, len(reader.names)) / max(1, len(layout.schema.names))


def _to_device(batch: Batch, device: Any) -> Batch:
    if device is not None:
        _each_tensor(batch, lambda tensor: tensor.to(device, non_blocking=True))
    return batch


def _each_tensor(values: dict[str, Any], change: Any) -> None:
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            values[name] = change(value)
        elif isinstance(value, dict):
            _each_tensor(value, change)
        elif isinstance(value, tuple) and hasattr(value, "_fields"):
            values[name] = type(value)(*map(change, value))


def stream(
    data: Any,
    split: str | None = None,
    global_batch_size: int = 512,
    seed: int = 0,
    epochs: int = 1,
    shuffle: bool = True,
    shuffle_bytes: int = 2**30,
    tail: Literal["carry", "drop", "pad"] = "carry",
    columns: Sequence[str] | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    mesh: Any = None,
    require_verdict: bool | str | None = None,
    on_change: Literal["error", "extend"] = "error",
    skip: Sequence[str | int] | None = None,
    *,
    pad: Mapping[str, float] | None = None,
    device: Any = None,
    threads: int | None = None,
    check: Literal["size", "pages", "sha256"] = "pages",
    options: Mapping[str, Any] | None = None,
) -> Stream:
    """Batches of tensors, {column: tensor, Ragged or list}: this rank's part of each global batch."""
    layout, dataset = open_layout(data, split, options)
    check_verdict(dataset, require_verdict)
    rank, world_size = find_ranks(rank, world_size, mesh)
    if on_change not in ("error", "extend"):
        raise UsageError(f"on_change='{on_change}': 'error' or 'extend'")
    if global_batch_size % world_size:
        log.warning(
            "global_batch_size=%d is no multiple of %d ranks: their parts differ by a row",
            global_batch_size,
            world_size,
        )
    reader = Reader(layout, columns, check)
    found = fit_shuffle(layout.group_rows, layout.row_bytes, shuffle_bytes) if shuffle else ()
    state = State(0, 0, seed, tuple(found), (), layout.digest, layout.name, len(layout.files), layout.num_rows)
    own = {
        "on_change": on_change,
        "skip": list(skip or ()),
        "pad": dict(pad or {}),
        "device": device,
        "shuffle_bytes": shuffle_bytes,
        "threads": min(4, os.cpu_count() or 1) if threads is None else threads,
    }
    return Stream(
        layout, reader, Batching(layout.num_rows, epochs, global_batch_size, tail), state, rank, world_size, own
    )
