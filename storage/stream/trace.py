"""Which rows are in a step, and in which steps a row is: computed from a state, not logged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

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


def places_at(state: State, batching: Batching, order: Order | Mixture, step: int) -> StepRows:
    """Where the rows of a step are. Reads nothing.

    Raises:
        UsageError: no such step, or one from before the stream was extended.
    """
    entry = next((each for each in reversed(state.history) if each[0] <= step), None)
    total = state.step + batching.steps_from(state.position)
    if entry is None or not 0 <= step < total:
        first = state.history[0][0] if state.history else 0
        raise UsageError(f"step {step} is not in this run: its state knows steps {first} to {total - 1}")
    first, position, size, tail = entry
    cut = replace(batching, size=size, tail=tail)
    taken = cut.take(cut.position_after(position, step - first))
    assert taken is not None
    positions = taken.positions[np.argsort(order.lane_of(taken.positions), kind="stable")]
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


def find_rows(layout: Layout, wanted: Iterable[str]) -> dict[str, int]:
    """The row number in the layout of each uid. One pass over `_uid`; nothing is read where there is no such column.

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
    return {uid: layout.units_of(row) for uid, row in find_rows(layout.source, wanted).items()}


def steps_of(state: State, batching: Batching, rows: Sequence[int]) -> list[int]:
    """The steps of the whole run that rows are in, given by their numbers in the layout; rows that were or will be left out have none."""
    assert batching.find is not None
    _, positions = batching.find(np.array(rows, np.int64), 0, batching.end) if rows else ((), np.zeros(0, np.int64))
    found: list[int] = []
    for position in np.sort(positions).tolist():
        entry = next((each for each in reversed(state.history) if each[1] <= position), None)
        if entry is None:
            continue
        first, start, size, tail = entry
        cut = replace(batching, size=size, tail=tail)
        step = first + _steps_before(cut, start, position)
        taken = cut.take(cut.position_after(start, step - first))
        if taken is not None and position in taken.positions and step not in found[-1:]:
            found.append(step)
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
) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
    """The rows and positions to leave out from here on: those of the state, and what the caller names (uids, or steps by number) beside them."""
    rows, ranges = dict(reversed(state.skip_rows)), set(state.skip_ranges)
    names = [each for each in skip if isinstance(each, str)]
    for row in (each for units in find_units(layout, names).values() for each in units) if names else ():
        rows.setdefault(row, state.position)
    current = replace(batching, skip=state.skip, find=finder(layout, order))
    for step in (each for each in skip if not isinstance(each, str)):
        start = _step_start(state, current, step)
        if start[1] > state.position:
            ranges.add((max(start[0], state.position), start[1]))
    return tuple(sorted(rows.items())), tuple(sorted(ranges))


def _step_start(state: State, batching: Batching, step: int) -> tuple[int, int]:
    """The positions (start, stop) of a step as the run would have it."""
    history = state.history or ((state.step, state.position, batching.size, batching.tail),)
    entry = next((each for each in reversed(history) if each[0] <= step), None)
    if entry is None or step < 0:
        raise UsageError(f"skip: step {step} is not in this run")
    first, position, size, tail = entry
    cut = replace(batching, size=size, tail=tail)
    start = cut.position_after(position, step - first)
    taken = cut.take(start)
    if taken is None:
        raise UsageError(f"skip: step {step} is not in this run")
    return start, int(taken.positions[-1]) + 1


def _find_by_path(layout: Layout, names: Sequence[str]) -> dict[str, int]:
    numbers = {path: i for i, path in enumerate(layout.files)}
    rows = np.bincount(layout.group_file, weights=layout.group_rows, minlength=len(layout.files)).astype(np.int64)
    first = np.concatenate([[0], np.cumsum(rows)])
    found = {}
    for name in names:
        path, _, row = name.rpartition(":")
        if path in numbers and row.isdecimal() and int(row) < rows[numbers[path]]:
            found[name] = int(first[numbers[path]]) + int(row)
    return found


def _find_by_scan(layout: Layout, names: Sequence[str]) -> dict[str, int]:
    wanted = pa.array(names, pa.string())
    first, reader = layout.first_rows, Reader(layout, [UID])

    def scan(group: int) -> dict[str, int]:
        column = reader.read_table(group, [UID])[UID]
        hits = np.flatnonzero(pc.is_in(column, wanted.cast(column.type)).to_numpy(zero_copy_only=False))
        return {column[int(row)].as_py(): int(first[group] + row) for row in hits}

    found: dict[str, int] = {}
    with ThreadPoolExecutor(THREADS) as threads:
        for hits in threads.map(scan, np.flatnonzero(layout.group_rows).tolist()):
            found.update(hits)
    return found
