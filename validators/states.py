"""States of shards, kept beside their dataset by (sha256 of the shard, accumulator, types of its columns): a shard that has one isn't read again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from gristmill.storage.folder import Folder
from gristmill.validators.accumulators import Accumulator
from gristmill.validators.bundles import (
    FOLDER,
    UNREADABLE,
    Bundle,
    bundles,
    digest,
    listed,
    place_of,
    remove,
    write,
)
from gristmill.validators.inputs import Data, Shard
from gristmill.validators.passes import States
from gristmill.validators.plan import Key, Task
from gristmill.validators.rows import Places

VERSION = 4
"""To be raised whenever what an accumulator works out changes."""
TOGETHER = f"{FOLDER}/together"
KEPT = 4  # conclusions that stay: those of the newest validations


def store_of(data: Data, tasks: Iterable[Task]) -> StateStore | None:
    """The store beside a dataset for the states of these tasks, None for other data."""
    return None if data.dataset is None else StateStore(data.dataset.folder, data.schema, tasks)


class StateStore:
    """`_work/validation/<shard>/<tasks>.state`: what one scan of a shard worked out. `_work/validation/together/<shards and tasks>.state`: what
    was concluded from all shards of a validation together, by row. Nothing in them is code; they may be deleted at any time.
    """

    def __init__(self, folder: Folder, schema: pa.Schema, tasks: Iterable[Task]) -> None:
        self._folder = folder
        self._keeps = True  # until it can't: it is said once
        self._names = {task.key: _name(task, schema) for task in tasks}

    def load(self, shard: Shard, tasks: Sequence[Task], first: int) -> States:
        """The states that are there; `first` is added to their row numbers."""
        found: States = {}
        if shard.key is None:
            return found
        missing = {self._names[task.key]: task for task in tasks}
        for bundle in bundles(self._folder, place_of(shard)):
            for name in bundle.names & missing.keys():
                with contextlib.suppress(*UNREADABLE):
                    state = missing[name].make()
                    state.load(bundle.fields(name), first)
                    found[missing.pop(name).key] = state
            if not missing:
                break
        return found

    def save(self, shard: Shard, states: States, first: int) -> None:
        """Keeps the states of all rows of a shard, whose first row has the number `first`."""
        if shard.key is None or not self._keeps:
            return
        each = (
            (self._names[key], state.save(first)) for key, state in states.items() if isinstance(state, Accumulator)
        )
        self._keeps = write(
            self._folder, place_of(shard), ((name, fields) for name, fields in each if fields is not None)
        )

    def assume(self, shards: Sequence[Shard], states: States) -> set[Key]:
        """Tells the states what was concluded before from the most of these shards; the keys of those for which that were all."""
        keys = {self._names[key]: key for key in states}
        best: dict[Key, tuple[int, Bundle, list[int]]] = {}
        for bundle in bundles(self._folder, TOGETHER):
            with contextlib.suppress(*UNREADABLE):
                at = _places([shard.key for shard in shards], bundle.facts["shards"])
                rows = sum(shards[i].rows for i in at)
                for key in (keys[name] for name in bundle.names & keys.keys()):
                    if at and (key not in best or best[key][0] < rows):
                        best[key] = rows, bundle, at
        starts = np.cumsum([0, *(shard.rows for shard in shards)])
        whole = set()
        for key, (_, bundle, at) in best.items():
            state = states[key]
            rows_of = np.array([shards[i].rows for i in at])
            places = Places(np.cumsum(rows_of) - rows_of, starts[at], starts[at] + rows_of)
            with contextlib.suppress(*UNREADABLE):
                if isinstance(state, Accumulator):
                    state.assume(bundle.fields(self._names[key]), places)
                    whole |= {key} if len(at) == len(shards) else set()
        return whole

    def conclude(self, shards: Sequence[Shard], states: States, known: set[Key]) -> None:
        """Keeps what the states conclude from all of these shards, but for those of `known`, of which it is kept."""
        if not self._keeps:
            return
        keys = [shard.key for shard in shards]
        found = {key: states[key] for key in self._names}
        each = {key: state.conclude() for key, state in found.items() if isinstance(state, Accumulator)}
        kept = {self._names[key]: fields for key, fields in each.items() if fields is not None}
        if None in keys or not kept or known.issuperset(key for key, fields in each.items() if fields is not None):
            return
        name = digest([keys, sorted(kept)])
        write(self._folder, TOGETHER, kept.items(), {"shards": [key[:20] for key in keys if key]}, name)
        for path in listed(self._folder, TOGETHER)[KEPT:]:
            remove(self._folder, path)


def _places(now: Sequence[str | None], then: Sequence[str]) -> list[int]:
    """Where the shards of `then` are in `now`, if all are there in the same order; else nothing."""
    at: list[int] = []
    for i, key in enumerate(now):
        if len(at) < len(then) and key is not None and key[:20] == then[len(at)]:
            at.append(i)
    return at if len(at) == len(then) else []


def _name(task: Task, schema: pa.Schema) -> str:
    return digest([VERSION, *task.key, [[name, str(schema.field(name).type)] for name in task.columns]])
