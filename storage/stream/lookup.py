"""A run looked at from outside: from its state and its data alone, without a loader and without torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gristmill.errors import StateError
from gristmill.storage.stream import trace
from gristmill.storage.stream.batching import Batching
from gristmill.storage.stream.layout import Layout
from gristmill.storage.stream.mixture import Mixture
from gristmill.storage.stream.order import Order
from gristmill.storage.stream.packing import Pack, pack_layout
from gristmill.storage.stream.reader import Reader
from gristmill.storage.stream.sources import as_mix, make_order, open_sources
from gristmill.storage.stream.state import State, check_data


@dataclass(frozen=True)
class Run:
    """A training run as its state tells it; `open_run` makes it."""

    state: State
    layout: Layout
    order: Order | Mixture
    batching: Batching

    def step(self, number: int) -> dict[str, Any]:
        """The rows of a step, past or future: {"step", "done", "rows": [{"uid", "position", "epoch", "file", "row_group", "row"}]} in the batch's order.

        Raises:
            UsageError: no such step.
        """
        found = trace.places_at(self.state, self.batching, self.order, number)
        layout, which, groups, places = self.layout.members(found.group, found.row)
        uids = trace.uids_of(layout, groups, places)
        rows = [
            {
                "uid": uid,
                "position": position,
                "epoch": epoch,
                "file": layout.folder_of(group).url(layout.path_of(group)),
                "row_group": int(layout.group_index[group]),
                "row": row,
            }
            for uid, position, epoch, group, row in zip(
                uids,
                *(each.tolist() for each in (found.position[which], found.epoch[which], groups, places)),
                strict=True,
            )
        ]
        return {"step": number, "done": number < self.state.step, "rows": rows}

    def row(self, uid: str) -> dict[str, Any]:
        """The steps that a row was or will be in: {"uid", "steps": [{"step", "done"}]}. One pass over the `_uid` column.

        Raises:
            InputError: no such row.
        """
        steps = trace.steps_of(self.state, self.batching, trace.find_units(self.layout, [uid])[uid])
        return {"uid": uid, "steps": [{"step": step, "done": step < self.state.step} for step in steps]}


def open_run(
    data: Any,
    state: Mapping[str, Any],
    *,
    epochs: int | None = None,
    plan: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Run:
    """The run that a state belongs to. data: what it streamed; a dataset without @VERSION is opened at the state's version and split.

    plan: the plan file of packed sequences, if there is one. epochs: how far into the future to look; None: as many as the run had when the state was taken.

    Raises:
        StateError: not a state. DataChangedError: a state of other data.
    """
    parsed = State.from_dict(state)
    if not parsed.history:
        raise StateError("the state knows no steps: give what state_dict() of a loader returned")
    mix = as_mix(data)
    if mix is None:
        sources = open_sources(*_as_named(data, parsed.data), options)
    else:
        pairs = itertools.zip_longest(mix.datasets, parsed.data.split(" + ")[: len(mix.datasets)], fillvalue="")
        sources = open_sources(replace(mix, datasets=[_as_named(each, name) for each, name in pairs]), None, options)
    if parsed.pack:
        column, length, also, method = parsed.pack
        pack = Pack(column, length, also, method, plan=plan)
        sources = replace(
            sources, layout=pack_layout(sources.layout, pack, Reader(sources.layout, pack.columns).read_table)
        )
    parsed = check_data(parsed, sources.layout, "error")
    order = make_order(sources.layout, sources.parts, parsed.seed, parsed.shuffles, parsed.mix)
    *_, size, tail = parsed.history[-1]
    batching = Batching(
        sources.layout.num_rows,
        epochs or parsed.epochs,
        size,
        tail,
        skip=parsed.skip,
        find=trace.finder(sources.layout, order),
    )
    return Run(parsed, sources.layout, order, batching)


def _as_named(data: Any, name: str) -> tuple[Any, str | None]:
    """(the data, its split) at the version and split of a state's name for it, where the data itself has none."""
    place, split = data if isinstance(data, tuple) else (data, None)
    base, _, named_split = name.partition("#")
    version = base.rpartition("@")[2]
    if isinstance(place, str) and "@" not in place and "@" in base and version.isdecimal():
        place = f"{place}@{version}"
    return place, split or named_split or None
