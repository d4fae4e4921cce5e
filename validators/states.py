"""States of shards, kept beside their dataset by (sha256 of the shard, accumulator, types of its columns): a shard that has one isn't read again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa

from gristmill.errors import DamagedStateError
from gristmill.storage.dataset import Dataset
from gristmill.validators.accumulators import Accumulator, Fields
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

VERSION = 8
"""To be raised whenever what an accumulator works out changes."""
TOGETHER = f"{FOLDER}/together"
KEPT = 4  # files of several shards that stay, with those that they extend: those of the newest validations


class Joint(NamedTuple):
    """What is kept of some shards together. state: that of their rows, which follow each other; None where it was assumed."""

    shards: frozenset[int]
    state: Accumulator | None


def store_of(data: Data, tasks: Iterable[Task]) -> StateStore | None:
    """The store beside a dataset for the states of these tasks, None for other data."""
    return None if data.dataset is None else StateStore(data.dataset, data.schema, tasks)


class StateStore:
    """`_work/validation/<shard>/<tasks>.state`: what one scan of a shard worked out. `_work/validation/together/<shards and tasks>.state`: that of
    all shards of a validation together; of large states what they concluded. Nothing in them is code; they may be deleted at any time.
    """

    def __init__(self, dataset: Dataset, schema: pa.Schema, tasks: Iterable[Task]) -> None:
        self._dataset, self._folder = dataset, dataset.folder
        self._keeps = True  # until it can't: it is said once
        self._tasks = {task.key: task for task in tasks}
        self._names = {key: _name(task, schema) for key, task in self._tasks.items()}
        self._extended: dict[Key, list[list[str]]] = {}  # (path, mark) of the files with what was assumed
        self._whole: set[Key] = set()  # tasks of which all is kept already

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
            self._dataset, place_of(shard), ((name, fields) for name, fields in each if fields is not None)
        )

    def together(self, shards: Sequence[Shard], states: States) -> dict[Key, Joint]:
        """What is kept of the most of these shards together. Where it was concluded, the states assume it, and what they merge later is of the others."""
        rows = np.array([shard.rows for shard in shards], np.int64)
        ends = np.cumsum(rows)
        found: dict[Key, Joint] = {}
        for key, (bundle, at) in self._best(shards).items():
            starts = ends[at] - rows[at]
            with contextlib.suppress(*UNREADABLE):
                fields = bundle.fields(self._names[key])
                joint = None
                if "large" in fields:
                    places = Places(np.cumsum(rows[at]) - rows[at], starts)
                    earlier = fields.get("earlier", [])
                    self._extended[key] = [*earlier, [bundle.path, bundle.mark]]
                    parts = partial(self._parts, key, [(shards[i], ends[i] - rows[i]) for i in at], bundle.path)
                    cast("Accumulator", states[key]).assume(fields, places, self._earlier(earlier, key), parts)
                else:
                    joint = self._tasks[key].make()
                    joint.load(fields, int(starts[0]))
                found[key] = Joint(frozenset(at), joint)
                self._whole |= {key} if len(at) == len(shards) else set()
        return found

    def _best(self, shards: Sequence[Shard]) -> dict[Key, tuple[Bundle, list[int]]]:
        """{task: the file with the most rows of these shards, where its shards are}; what was concluded holds wherever they lie."""
        best: dict[Key, tuple[int, Bundle, list[int]]] = {}
        for bundle in bundles(self._folder, TOGETHER):
            with contextlib.suppress(*UNREADABLE):
                at = _places([shard.key for shard in shards], bundle.facts["shards"])
                rows = sum(shards[i].rows for i in at)
                follow = bool(at) and at[-1] - at[0] + 1 == len(at)
                for key in (key for key, name in self._names.items() if at and name in bundle.names):
                    if best.get(key, (-1,))[0] < rows and (follow or "large" in bundle.plain(self._names[key])):
                        best[key] = rows, bundle, at
        return {key: (bundle, at) for key, (_, bundle, at) in best.items()}

    def _parts(self, key: Key, shards: Sequence[tuple[Shard, int]], path: str) -> list[Any]:
        """The states of shards, with the first row of each, of which something was concluded in the file `path`.

        Raises:
            DamagedStateError: one of them isn't there, so that the file is of no use.
        """
        found = [self.load(shard, [self._tasks[key]], int(first)).get(key) for shard, first in shards]
        if None in found:
            raise DamagedStateError(f"'{path}' is about states that are gone", path=path)
        return found

    def _earlier(self, links: Sequence[Sequence[str]], key: Key) -> list[Fields] | None:
        """The fields in the files of links, None where they aren't those any more: one that was made anew may itself extend others."""
        with contextlib.suppress(*UNREADABLE):
            found = [Bundle(self._folder, path) for path, _ in links]
            if [bundle.mark for bundle in found] == [mark for _, mark in links]:
                return [bundle.fields(self._names[key]) for bundle in found]
        return None

    def conclude(self, shards: Sequence[Shard], states: States, threads: int) -> None:
        """Keeps what isn't kept of all of these shards together."""
        keys = [shard.key for shard in shards]
        left = [
            key
            for key, state in states.items()
            if key not in self._whole and isinstance(state, Accumulator) and (len(keys) > 1 or state.large)
        ]
        if not self._keeps or None in keys or not left:
            return
        each = ((self._names[key], self._concluded(key, states[key], threads)) for key in left)
        written = write(
            self._dataset,
            TOGETHER,
            ((name, fields) for name, fields in each if fields is not None),
            {"shards": [key[:20] for key in keys if key]},
            digest([keys, sorted(self._names[key] for key in left)]),
        )
        if written:
            self._clear()

    def _concluded(self, key: Key, state: Any, threads: int) -> Fields | None:
        fields: Fields | None = state.conclude(threads)
        if fields and fields.get("extends"):
            fields["earlier"] = self._extended[key]
        return fields

    def _clear(self) -> None:
        """Removes files of several shards, but for the newest and those that they extend."""
        paths = listed(self._folder, TOGETHER)
        needed = set(paths[:KEPT])
        for path in paths[:KEPT]:
            with contextlib.suppress(*UNREADABLE):
                bundle = Bundle(self._folder, path)
                needed.update(link[0] for name in bundle.names for link in bundle.plain(name).get("earlier", ()))
        for path in paths:
            if path not in needed:
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
