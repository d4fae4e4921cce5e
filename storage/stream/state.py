"""What a loader has handed out, as a small JSON value that is the same on every rank and fits any number of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from gristmill.errors import DataChangedError, StateError, capped
from gristmill.storage.stream.batching import Skip
from gristmill.storage.stream.layout import Layout
from gristmill.storage.stream.order import Shuffle

VERSION = 1


@dataclass(frozen=True)
class State:
    """A place in a stream, and everything its order depends on but the data itself.

    position: of the next row. step: of the next batch. shuffle: (lanes, window) of each dataset, empty for none. history: (step, position, global batch size, tail) wherever
    batches began to be cut in another way, oldest first. skip_rows, skip_ranges: as in `Skip`; skip_steps: what the caller named. mix: (position, quotas) wherever
    weights change. layout, files, rows: of the data. epochs: the total when the state was taken; a loader's own counts.
    """

    position: int
    step: int
    seed: int
    shuffle: tuple[tuple[int, int], ...]
    history: tuple[tuple[Any, ...], ...]
    layout: str
    data: str
    files: int
    rows: int
    skip_rows: tuple[tuple[int, int], ...] = ()
    skip_ranges: tuple[tuple[int, int], ...] = ()
    skip_steps: tuple[int, ...] = ()
    mix: tuple[Any, ...] = ()
    epochs: int = 1
    pack: tuple[Any, ...] = ()  # (column, length, other columns, method) of packed sequences
    worker: tuple[int, ...] = ()  # (number, of how many) of a DataLoader's worker: the state is of its own next step
    version: int = VERSION

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, always with the same keys."""
        return {name: _listed(value) for name, value in asdict(self).items()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> State:
        """The inverse of `to_dict`.

        Raises:
            StateError: not a loader's state, or one of a newer gristmill.
        """
        names = {each.name for each in fields(State)}
        if not isinstance(values, Mapping) or not {"position", "seed", "layout"} <= set(values):
            raise StateError("this is not the state of a gristmill stream: give what state_dict() returned")
        if values.get("version", 0) != VERSION or set(values) - names:
            raise StateError(
                f"the state has version {values.get('version')}, this gristmill reads version {VERSION}: install the gristmill that wrote it"
            )
        state = State(**{name: _tupled(value) for name, value in values.items()})
        places = [(state.position, state.step), *(entry[:2] for entry in state.history)]
        if not all(isinstance(each, int) and each >= 0 for place in places for each in place):
            raise StateError(
                f"the state is damaged: position {state.position!r}, step {state.step!r}, history {state.history!r}"
            )
        return state

    @property
    def skip(self) -> Skip:
        """The rows that are left out."""
        return Skip(self.skip_rows, self.skip_ranges)

    @property
    def shuffles(self) -> tuple[Shuffle, ...]:
        """The shuffle of each dataset; empty for none."""
        return tuple(Shuffle(*each) for each in self.shuffle)


def _listed(value: Any) -> Any:
    return [_listed(each) for each in value] if isinstance(value, tuple | list) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(each) for each in value) if isinstance(value, tuple | list) else value


def check_data(state: State, layout: Layout, on_change: str) -> State:
    """The state, fit for the layout: itself if the data is the same, moved to the extended data for on_change="extend".

    Raises:
        DataChangedError: other data, with what changed.
    """
    if state.layout == layout.digest:
        return state
    grown = len(layout.files) > state.files and layout.head_digest(state.files) == state.layout
    if on_change == "extend":
        if not grown:
            raise DataChangedError(
                f"{_difference(state, layout)} Only files added behind the old ones extend a stream; begin a new stream for other data"
            )
        if state.position % state.rows:
            raise DataChangedError(
                f"{_difference(state, layout)} The state is inside epoch {state.position // state.rows}; a stream is extended between epochs: finish the epoch on "
                f"'{state.data}' first (tail='drop' or 'pad' end each epoch with a batch)"
            )
        position = state.position // state.rows * layout.num_rows
        last = state.history[-1]
        moved = ((state.step, position, *last[2:]),)
        return replace(
            state,
            position=position,
            history=moved,
            layout=layout.digest,
            files=len(layout.files),
            rows=layout.num_rows,
            skip_ranges=(),
        )
    hint = " To go on with the added files from the next epoch: on_change='extend'." if grown else ""
    raise DataChangedError(
        f"{_difference(state, layout)} Open the data that the state was made on (a dataset: PATH@VERSION), or begin a new stream.{hint}"
    )


def _difference(state: State, layout: Layout) -> str:
    text = f"the state was made on '{state.data}' ({state.files} files, {state.rows:,} rows), this is '{layout.name}' ({len(layout.files)} files, {layout.num_rows:,} rows)"
    before = _files_of(state.data)
    if before is None:
        return f"{text}; the files' names, sizes or row groups differ."
    now = set(zip(layout.files, layout.file_bytes.tolist(), strict=True))
    added, removed = sorted(path for path, _ in now - before), sorted(path for path, _ in before - now)
    changes = [
        f"{len(paths)} {what}: {capped(paths, 3)}" for what, paths in (("added", added), ("removed", removed)) if paths
    ]
    return f"{text}; {'; '.join(changes) or 'the same files in another order'}."


def _files_of(name: str) -> set[tuple[str, int]] | None:
    """The files of a dataset version, if it can still be opened."""
    if "@" not in name:
        return None
    from gristmill.errors import GristmillError
    from gristmill.storage.dataset import open_dataset

    base, _, split = name.partition("#")
    try:
        files = open_dataset(base).file_list.of_split(split or None)
    except GristmillError:
        return None
    return set(zip(files.table["path"].to_pylist(), files.table["bytes"].to_pylist(), strict=True))
