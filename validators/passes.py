"""A pass over the data: pieces of shards in parallel threads, their states merged in the order of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gristmill.validators.accumulators import Accumulator
from gristmill.validators.columns import View
from gristmill.validators.inputs import Data, Piece
from gristmill.validators.parallel import in_order
from gristmill.validators.plan import Key, Task

State = Accumulator | BaseException
"""What is known of a task: its accumulator, or the error that it ended with."""
States = dict[Key, State]


def scan(data: Data, tasks: Sequence[Task], pieces: Sequence[Piece], threads: int) -> Iterator[tuple[Piece, States]]:
    """(piece, states of its rows) in order. At most two pieces a thread are under way at a time."""
    columns = list(dict.fromkeys(name for task in tasks for name in task.columns))
    work = (lambda piece=piece: (piece, _scan_piece(data, tasks, piece, columns)) for piece in pieces)
    yield from in_order(work, threads if len(pieces) > 1 else 1)


def _scan_piece(data: Data, tasks: Sequence[Task], piece: Piece, columns: Sequence[str]) -> States:
    states: States = {task.key: task.make() for task in tasks}
    try:
        for batch in data.read(piece, columns):
            view = View.of(batch)
            chosen: dict[str, View | BaseException] = {"": view}
            for task in tasks:
                state = states[task.key]
                if isinstance(state, BaseException):
                    continue
                if task.key.condition not in chosen:
                    chosen[task.key.condition] = _choose(task, view)
                rows = chosen[task.key.condition]
                if isinstance(rows, BaseException):
                    states[task.key] = rows
                    continue
                try:
                    state.update(rows)
                except Exception as error:  # noqa: BLE001  kept, and shown as the failure of the expectations that need it
                    states[task.key] = error
    except Exception as error:  # noqa: BLE001  a shard that can't be read fails all that need it
        states = dict.fromkeys(states, error)
    return states


def _choose(task: Task, view: View) -> View | BaseException:
    assert task.condition is not None
    try:
        return view.where(task.condition.mask(view))
    except Exception as error:  # noqa: BLE001  kept, as above
        return error


def merge(into: States, later: States) -> None:
    """Takes in the states of the rows that follow. The first error of a task stays."""
    for key, state in later.items():
        known = into.get(key)
        if known is None or (isinstance(state, BaseException) and not isinstance(known, BaseException)):
            into[key] = state
        elif not isinstance(known, BaseException) and not isinstance(state, BaseException):
            try:
                known.merge(state)
            except Exception as error:  # noqa: BLE001  kept, as above
                into[key] = error
