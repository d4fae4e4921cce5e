"""Which rows are in a step, and in which steps a row is: computed from a state, not logged."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import InputError, UsageError, capped
from gristmill.storage.stream.batching import Batching, Finder
from gristmill.storage.stream.layout import Layout
from gristmill.storage.stream.mixture import Mixture
from gristmill.storage.stream.order import Order
from gristmill.storage.stream.permute import I64
from gristmill.storage.stream.reader import Reader
from gristmill.storage.stream.state import State

UID = "_uid"
THREADS = 8


@dataclass(frozen=True)
class StepRows:
    """The rows of one global batch, in its order; each array (rows,)."""

    step: int
    position: I64
    epoch: I64
    group: I64
    row: I64


class Segment(NamedTuple):
    """Steps that are cut alike. step, position: of its first; stop: the position where the next segment begins."""

    step: int
    position: int
    stop: int
    cut: Batching


def segments(state: State, batching: Batching) -> list[Segment]:
    """The parts of the run, oldest first: what was done, as the state's history tells, and as the last what is to come, as the batching cuts it.

    Where a run was ended by its epochs and gone on with, its last batch was short: `stop` says so.
    """
    starts = [*state.history, (state.step, state.position)]
    past = replace(batching, epochs=max(1, -(-state.position // batching.num_rows)))
    done = [
        Segment(step, position, after[1], replace(past, size=size, tail=tail))
        for (step, position, size, tail), after in itertools.pairwise(starts)
    ]
    return [*done, Segment(state.step, state.position, batching.end, batching)]


def goes_on_evenly(state: State, batching: Batching) -> bool:
    """Whether the state's place follows from the last entry of its history: not so after a short last batch that was not the last."""
    if not state.history:
        return False
    step, position, size, tail = state.history[-1]
    epochs = state.position // batching.num_rows + 2
    cut = replace(batching, size=size, tail=tail, epochs=epochs)
    return (size, tail) == (batching.size, batching.tail) and (
        cut.position_after(position, state.step - step) == state.position
    )


def places_at(state: State, batching: Batching, order: Order | Mixture, step: int) -> StepRows:
    """Where the rows of a step are. Reads nothing.

    Raises:
        UsageError: no such step, or one from before the stream was extended.
    """
    part = next((each for each in reversed(segments(state, batching)) if each.step <= step), None)
    taken = part.cut.take(part.cut.position_after(part.position, step - part.step)) if part else None
    if part is None or taken is None:
        first = state.history[0][0] if state.history else state.step
        total = state.step + batching.steps_from(state.position)
        raise UsageError(f"step {step} is not in this run: its state knows steps {first} to {total - 1}")
    positions = taken.positions[taken.positions < part.stop]
    positions = positions[np.argsort(order.lane_of(positions), kind="stable")]
    places = order.locate(positions)
    return StepRows(step, positions, order.epoch_of(positions), places.group, places.row)


def uids(layout: Layout, rows: StepRows) -> list[str]:
    """The uids of a step's rows, of packed sequences those of all their rows. Reads the `_uid` column of their row groups."""
    members = layout.members(rows.group, rows.row)
    return uids_of(members.layout, members.group, members.row)


def uids_of(layout: Layout, group: I64, row: I64) -> list[str]:
    """The uids of rows given by row group and row inside it; `path:row` where the data has no `_uid`."""
    if UID not in layout.schema.names:
        return layout.keys(group, row)
    found = np.empty(len(group), object)
    needed, reader = np.unique(group), Reader(layout, [UID])
    with ThreadPoolExecutor(THREADS) as threads:
        for each, column in zip(
            needed, threads.map(lambda g: reader.read_table(int(g), [UID])[UID], needed), strict=True
        ):
            here = np.flatnonzero(group == each)
            found[here] = column.take(pa.array(row[here])).to_pylist()
    return found.tolist()


def find_rows(layout: Layout, wanted: Iterable[str]) -> dict[str, list[int]]:
    """The row numbers in the layout of each uid: one, but for data that has a uid several times. One pass over `_uid`; nothing is read where there is no such column.

    Raises:
        InputError: uids that the data doesn't have.
    """
    names = list(dict.fromkeys(wanted))
    found = _find_by_path(layout, names) if UID not in layout.schema.names else _find_by_scan(layout, names)
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(f"{layout.name} has no row {capped(repr(name) for name in missing)}", uids=missing[:10])
    return found


def find_units(layout: Layout, wanted: Iterable[str]) -> dict[str, list[int]]:
    """For each uid the rows of the layout that it is in, by number: one, or some packed sequences; raises as `find_rows`."""
    return {
        uid: sorted({unit for row in rows for unit in layout.units_of(row)})
        for uid, rows in find_rows(layout.source, wanted).items()
    }


def steps_of(state: State, batching: Batching, rows: Sequence[int]) -> list[int]:
    """The steps of the whole run that rows are in, given by their numbers in the layout; rows that were or will be left out have none."""
    assert batching.find is not None
    if not rows:
        return []
    parts = segments(state, batching)
    _, positions = batching.find(np.array(rows, np.int64), 0, max(batching.end, state.position))
    found: list[int] = []
    for position in np.sort(positions).tolist():
        part = next((each for each in reversed(parts) if each.position <= position), None)
        if part is None:
            continue
        before = _steps_before(part.cut, part.position, position)
        taken = part.cut.take(part.cut.position_after(part.position, before))
        if taken is not None and position in taken.positions and part.step + before not in found[-1:]:
            found.append(part.step + before)
    return found


def _steps_before(cut: Batching, start: int, position: int) -> int:
    """How many whole batches lie between two positions."""
    low, high = 0, cut.steps_from(start)
    while low < high:
        middle = (low + high + 1) // 2
        if cut.position_after(start, middle) <= position:
            low = middle
        else:
            high = middle - 1
    return low


def finder(layout: Layout, order: Order | Mixture) -> Finder:
    """A function (row numbers, start, stop) -> (which of them, at which position) between two positions."""
    first = layout.first_rows

    def find(rows: I64, start: int, stop: int) -> tuple[I64, I64]:
        group = np.searchsorted(first, rows, "right") - 1
        return order.occurrences(group, rows - first[group], start, stop)

    return find


def resolve_skip(
    state: State, layout: Layout, batching: Batching, order: Order | Mixture, skip: Sequence[str | int]
) -> State:
    """The state with what to leave out from here on: its own rows and positions, and what the caller names (uids, or steps by number) beside them.

    A step is what the state's run would have at that number. One that was named before is not named again: the same arguments at each start leave out the same rows.

    Raises:
        UsageError: no such step. InputError: no such row.
    """
    rows, ranges, steps = dict(state.skip_rows), set(state.skip_ranges), list(state.skip_steps)
    names = [each for each in skip if isinstance(each, str)]
    for row in (each for units in find_units(layout, names).values() for each in units) if names else ():
        rows.setdefault(row, state.position)
    size, tail = state.history[-1][2:] if state.history else (batching.size, batching.tail)
    current = replace(batching, size=size, tail=tail, skip=state.skip, find=finder(layout, order))
    for step in (int(each) for each in skip if not isinstance(each, str)):
        if step in steps or 0 <= step < state.step:  # already left out, or already done
            continue
        start = current.position_after(state.position, step - state.step)
        taken = current.take(start) if step >= 0 else None
        if taken is None:
            raise UsageError(f"skip: step {step} is not in this run")
        steps.append(step)
        ranges.add((start, int(taken.positions[-1]) + 1))
    return replace(
        state, skip_rows=tuple(sorted(rows.items())), skip_ranges=tuple(sorted(ranges)), skip_steps=tuple(steps)
    )


def _find_by_path(layout: Layout, names: Sequence[str]) -> dict[str, list[int]]:
    numbers = {path: i for i, path in enumerate(layout.file_names)}
    rows = np.bincount(layout.group_file, weights=layout.group_rows, minlength=len(layout.files)).astype(np.int64)
    first = np.concatenate([[0], np.cumsum(rows)])
    found = {}
    for name in names:
        path, _, row = name.rpartition(":")
        if path in numbers and row.isdecimal() and int(row) < rows[numbers[path]]:
            found[name] = [int(first[numbers[path]]) + int(row)]
    return found


def _find_by_scan(layout: Layout, names: Sequence[str]) -> dict[str, list[int]]:
    wanted = pa.array(names, pa.string())
    first, reader = layout.first_rows, Reader(layout, [UID])

    def scan(group: int) -> list[tuple[str, int]]:
        column = reader.read_table(group, [UID])[UID]
        hits = np.flatnonzero(pc.is_in(column, wanted.cast(column.type)).to_numpy(zero_copy_only=False))
        return [(column[int(row)].as_py(), int(first[group] + row)) for row in hits]

    found: dict[str, list[int]] = {}
    with ThreadPoolExecutor(THREADS) as threads:
        for hits in threads.map(scan, np.flatnonzero(layout.group_rows).tolist()):
            for name, row in hits:
                found.setdefault(name, []).append(row)
    return found
