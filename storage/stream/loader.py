"""The loader: batches of tensors in an order that nothing but the seed decides, and a state that fits any number of ranks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from gristmill.errors import StateError
from gristmill.storage.ranged import Traffic
from gristmill.storage.stream import trace
from gristmill.storage.stream.batching import Batching
from gristmill.storage.stream.layout import Layout
from gristmill.storage.stream.mixture import Mixture
from gristmill.storage.stream.order import Order
from gristmill.storage.stream.ranks import Ranks
from gristmill.storage.stream.running import Feed, Running
from gristmill.storage.stream.sources import make_order
from gristmill.storage.stream.state import State, check_data
from gristmill.storage.stream.tensors import Batch

log = logging.getLogger("gristmill.stream")


class Stream(IterableDataset[Batch]):  # type: ignore[misc]
    """Batches of this rank, in order; `gristmill.stream` makes it.

    Iterating goes on where the last iteration stopped; at the end of all epochs it yields nothing. `state_dict` counts the batches that were handed out,
    whatever was read ahead. Inside a torch DataLoader (batch_size=None) each worker takes every n-th step, so that the order stays.
    """

    _state: State

    def __init__(
        self, feed: Feed, state: State, parts: Sequence[int], *, skip: Sequence[str | int], on_change: str
    ) -> None:
        self._feed = feed
        self._parts = tuple(parts)
        self._skip = tuple(skip)
        self._on_change = on_change
        self._running: Running | None = None
        self._use(state)

    @property
    def position(self) -> int:
        """The position of the next row in the stream: the rows handed out so far over all ranks, and those left out."""
        return self._state.position

    @property
    def layout(self) -> Layout:
        """The row groups that are streamed."""
        return self._feed.layout

    @property
    def order(self) -> Order | Mixture:
        """Where each position's row is."""
        return self._feed.order

    @property
    def batching(self) -> Batching:
        """How positions are cut into global batches."""
        return self._feed.batching

    @property
    def ranks(self) -> Ranks:
        """The place of this process among those that share out the rows."""
        return self._feed.ranks

    @property
    def step(self) -> int:
        """The number of the next batch."""
        return self._state.step

    @property
    def epoch(self) -> int:
        """The epoch that the next row is in; at the end the number of epochs."""
        return self._state.position // self._feed.batching.num_rows

    @property
    def epochs(self) -> list[float]:
        """How many epochs each dataset of a mix has given; of a single one too."""
        return self._feed.order.epochs(self._state.position)

    @property
    def bad_rows(self) -> int:
        """Rows that were replaced in this rank's batches so far because they could not be read, decoded or transformed."""
        return self._feed.bad.count

    @property
    def traffic(self) -> Traffic:
        """What this rank asked of remote stores so far."""
        return self._feed.reader.traffic

    @property
    def dictionaries(self) -> dict[str, list[Any]]:
        """What the codes of dictionary columns stand for: the column's distinct values, sorted."""
        return {
            column.name: column.dictionary.to_pylist()
            for column in self._feed.reader.columns
            if column.dictionary is not None
        }

    def __len__(self) -> int:
        """Steps of the whole run, those already done included; the same on every rank."""
        return self._state.step + self._feed.batching.steps_from(self._state.position)

    def __iter__(self) -> Iterator[Batch]:
        self.close()
        state, batching = self._state, self._feed.batching
        if state.position >= batching.end:
            log.warning(
                "all %d epochs of %s were handed out: iterating yields nothing more (epochs= is the total)",
                batching.epochs,
                self._feed.layout.name,
            )
            return
        worker = get_worker_info()
        first, stride = (
            (state.step, 1) if worker is None else (state.step + (0 if state.worker else worker.id), worker.num_workers)
        )
        feed = self._feed if worker is None else replace(self._feed, threads=1, workers=0)
        running = self._running = Running(feed, state.position, state.step, first=first, stride=stride)
        try:
            for batch in running:
                if self._running is not running:
                    raise StateError(
                        "a state was loaded, or a new iteration begun, inside this one: leave the old loop"
                    )
                after = replace(self._state, step=batch.step + 1, position=batch.next_position)
                self._state = after if worker is None else _own_next(after, batching, worker)
                self._feed.bad.count += batch.replaced
                yield batch
        finally:
            running.close()
            if self._running is running:
                self._running = None

    def state_dict(self, batch: Batch | None = None) -> dict[str, Any]:
        """What was handed out: JSON, under 1 kB without skipped rows, the same on every rank. With `batch`: as when that batch was the last."""
        state = self._state
        if batch is not None:
            state = replace(state, step=batch.step + 1, position=batch.next_position)
        return state.to_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state, whatever ranks, batch size and workers it was made with. Seed and shuffle are the state's.

        Raises:
            StateError: not a state of a stream. DataChangedError: a state of other data.
        """
        self.close()
        parsed = State.from_dict(state)
        if parsed.pack != self._state.pack:
            raise StateError(
                f"the state is of rows packed as {parsed.pack}, this loader has pack={self._state.pack}: (column, length, also, method)"
            )
        loaded = check_data(parsed, self._feed.layout, self._on_change)
        if (loaded.seed, loaded.shuffle) != (self._state.seed, self._state.shuffle):
            log.info(
                "seed and shuffle are those of the state: seed=%d, (lanes, window)=%s", loaded.seed, loaded.shuffle
            )
        self._use(loaded)

    def rows_at(self, step: int) -> list[str]:
        """The uids of the global batch of any step of the run, past or future, in its order; `path:row` for files without `_uid`."""
        feed = self._feed
        return trace.uids(feed.layout, trace.places_at(self._state, feed.batching, feed.order, step))

    def steps_of(self, uid: str) -> list[int]:
        """The steps of the whole run in which a row was or will be handed out. Looks for the uid in the data: one pass over `_uid`."""
        return trace.steps_of(self._state, self._feed.batching, trace.find_units(self._feed.layout, [uid])[uid])

    def close(self) -> None:
        """Stops reading ahead; iterating begins again where the loop was."""
        if self._running is not None:
            running, self._running = self._running, None
            running.close()

    def _use(self, state: State) -> None:
        """Goes on from a state with this loader's own batches, weights and rows to skip."""
        feed = self._feed
        mix = _continued(state.mix, getattr(self, "_mix", state.mix), state.position)
        self._mix = getattr(self, "_mix", state.mix)
        order = make_order(feed.layout, self._parts, state.seed, state.shuffles, mix)
        state = trace.resolve_skip(state, feed.layout, feed.batching, order, self._skip)
        batching = replace(feed.batching, skip=state.skip, find=trace.finder(feed.layout, order))
        self._feed = replace(
            feed, order=order, batching=batching, work=replace(feed.work, seed=state.seed) if feed.work else None
        )
        history = state.history
        if not trace.goes_on_evenly(state, batching):
            here = (state.step, state.position, batching.size, batching.tail)
            history = (*(entry for entry in history if entry[0] < state.step), here)
        self._state = replace(state, history=history, mix=mix, epochs=batching.epochs)

    def __getstate__(self) -> dict[str, Any]:
        plain = replace(self._feed.batching, find=None)
        feed = replace(self._feed, order=None, batching=plain)  # type: ignore[arg-type]  # caches and closures stay here
        return {**self.__dict__, "_feed": feed, "_running": None}

    def __setstate__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)
        self._use(self._state)


def _own_next(state: State, batching: Batching, worker: Any) -> State:
    """The state of a DataLoader's worker: that of its own next step."""
    others = worker.num_workers - 1
    return replace(
        state,
        step=state.step + others,
        position=batching.position_after(state.position, others),
        worker=(worker.id, worker.num_workers),
    )


def _continued(saved: tuple[Any, ...], wanted: tuple[Any, ...], position: int) -> tuple[Any, ...]:
    """The weights of a mix by position: those of the state up to here, from here on those that this loader was made with."""
    if len(saved and saved[0][1]) != len(wanted and wanted[0][1]):
        raise StateError("the state is of a mix of another number of datasets")
    current = [entry for entry in wanted if entry[0] <= position][-1:]
    before = [entry for entry in saved if entry[0] <= position]
    if current and before[-1][1] != current[0][1]:
        before = [entry for entry in before if entry[0] < position] + [(position, current[0][1])]
    return (*before, *(entry for entry in wanted if entry[0] > position))
