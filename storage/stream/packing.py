"""Rows of tokens packed into sequences of one length: a plan that depends on the rows' lengths alone.

Each row group is packed by itself, so a packed sequence is to the stream what a row was: it has a row group and a number in it, and order, state, trace,
ranks and mixing go on as they are. Every token of an epoch comes once; what is left over at a row group's end is padding.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import DataChangedError, UsageError, did_you_mean
from gristmill.kernels.packing import best_fit
from gristmill.storage.folder import open_folder
from gristmill.storage.stream.layout import Layout, Members
from gristmill.storage.stream.permute import I64

METHODS = ("best_fit", "concat")
POSITIONS, DOCUMENTS = "position_ids", "document_ids"
THREADS = 8


@dataclass(frozen=True)
class Pack:
    """How rows of tokens become sequences.

    column: the list column of tokens; length: of a sequence. also: other list columns with a value for each token (labels, weights), packed alike.
    method: "best_fit" keeps a document whole if it fits (longer ones are cut into full sequences and a rest), "concat" lays documents end to end and cuts
    every `length` tokens, which leaves less padding. pad: what fills up. lengths: a column with the number of tokens, so that the plan needn't read
    them. plan: a file to keep the lengths in, written if it isn't there; without one every start reads them anew.
    """

    column: str
    length: int
    also: tuple[str, ...] = ()
    method: Literal["best_fit", "concat"] = "best_fit"
    pad: int = 0
    lengths: str | None = None
    plan: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.length < 1:
            raise UsageError(f"pack: length={self.length}; a sequence has at least 1 token")
        if self.method not in METHODS:
            raise UsageError(f"pack: method='{self.method}'.{did_you_mean(self.method, METHODS)}")

    @property
    def columns(self) -> list[str]:
        """The columns that are packed."""
        return [self.column, *self.also]

    def to_state(self) -> tuple[Any, ...]:
        """What a sequence's content depends on."""
        return self.column, self.length, self.also, self.method


class Pieces(NamedTuple):
    """The parts of rows in the sequences of a row group, each (pieces,), sorted by sequence. row: its number in the row group; start: its first token there;
    pack: the sequence; target: where in the sequence it begins.
    """

    row: I64
    start: I64
    size: I64
    pack: I64
    target: I64


def plan_pieces(lengths: npt.NDArray[Any], pack: Pack) -> Pieces:
    """The sequences of a row group whose rows have these lengths; sequences are numbered by their first row."""
    lengths = np.asarray(lengths, np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    if pack.method == "concat":
        cuts = np.union1d(starts, np.arange(0, starts[-1], pack.length))
        begin, size = cuts[:-1], np.diff(cuts)
        row = np.searchsorted(starts, begin, "right") - 1
        return Pieces(row, begin - starts[row], size, begin // pack.length, begin % pack.length)
    counts = -(-lengths // pack.length)
    row = np.repeat(np.arange(len(lengths)), counts)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    size = np.minimum(lengths[row] - nth * pack.length, pack.length)
    bins = best_fit(size, pack.length)
    _, first, number = np.unique(bins, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    order = np.argsort(rank[number], kind="stable")
    row, nth, size, packs = row[order], nth[order], size[order], rank[number][order]
    before = np.cumsum(size) - size
    heads = np.searchsorted(packs, packs)
    return Pieces(row, nth * pack.length, size, packs, before - before[heads] if len(packs) else before)


@dataclass(frozen=True)
class PackedLayout(Layout):
    """A layout whose rows are packed sequences. rows: that of the rows themselves; lengths_of: their lengths, by row group."""

    rows: Layout | None = None
    pack: Pack | None = None
    lengths_of: Callable[[int], npt.NDArray[Any]] | None = None

    def pieces(self, group: int) -> Pieces:
        """The sequences of a row group."""
        assert self.lengths_of is not None and self.pack is not None  # noqa: PT018
        return plan_pieces(self.lengths_of(group), self.pack)

    def head_digest(self, files: int) -> str:
        """The digest that the layout of the first files alone has."""
        assert self.pack is not None
        return _digest(self.source.head_digest(files), self.pack)

    @property
    def source(self) -> Layout:
        """The layout of the rows."""
        assert self.rows is not None
        return self.rows

    def members(self, group: I64, row: I64) -> Members:
        """The rows that some sequences are made of, in their order there."""
        plans = {int(g): self.pieces(int(g)) for g in np.unique(group)}
        which, groups, rows = [group[:0]], [group[:0]], [group[:0]]
        for i, (g, number) in enumerate(zip(group.tolist(), row.tolist(), strict=True)):
            begin, end = np.searchsorted(plans[g].pack, [number, number + 1])
            rows.append(plans[g].row[begin:end])
            groups.append(np.full(end - begin, g))
            which.append(np.full(end - begin, i))
        return Members(self.source, *map(np.concatenate, (which, groups, rows)))

    def keys(self, group: I64, row: I64) -> list[str]:
        """A name for each sequence: file, row group and number."""
        return [
            f"{self.path_of(g)}:{self.group_index[g]}:{r}" for g, r in zip(group.tolist(), row.tolist(), strict=True)
        ]

    def units_of(self, row: int) -> list[int]:
        """The sequences, counted through the layout, that have a piece of a row, counted through the layout of the rows."""
        first = self.source.first_rows
        group = int(np.searchsorted(first, row, "right")) - 1
        plan = self.pieces(group)
        return (np.unique(plan.pack[plan.row == row - first[group]]) + self.first_rows[group]).tolist()


def pack_layout(layout: Layout, pack: Pack, read: Callable[[int, list[str]], pa.Table]) -> PackedLayout:
    """The layout of the packed sequences. read: (row group, columns) -> table; used where the lengths aren't known yet.

    Raises:
        UsageError: a column that is no list of numbers. DataChangedError: the plan file was made for other data or another column.
    """
    for name in pack.columns:
        kind = layout.schema.field(name).type if name in layout.schema.names else None
        if kind is None or not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            raise UsageError(
                f"pack: '{name}' is {kind or 'no column'} of {layout.name}; a list column of numbers is needed"
            )
    made_for = f"{layout.digest} {pack.column}"
    plan = _load(pack, made_for) or _make(layout, pack, read, made_for)
    lengths_of, counts = plan
    kinds = {name: layout.schema.field(name).type.value_type for name in pack.columns}
    schema = pa.schema([(name, pa.list_(kind, pack.length)) for name, kind in kinds.items()])
    width = sum(kind.bit_width // 8 for kind in kinds.values()) + 12  # position and document ids
    shared = {each.name: getattr(layout, each.name) for each in fields(Layout)}
    shared |= {
        "group_rows": counts,
        "schema": schema,
        "unlike": {},
        "digest": _digest(layout.digest, pack),
        "row_bytes": float(pack.length * width),
    }
    return PackedLayout(**shared, rows=layout, pack=replace(pack, plan=None), lengths_of=lengths_of)


def _digest(digest: str, pack: Pack) -> str:
    return hashlib.sha256(repr((digest, pack.to_state())).encode()).hexdigest()


def _make(
    layout: Layout, pack: Pack, read: Callable[[int, list[str]], pa.Table], made_for: str
) -> tuple[Callable[[int], Any], I64]:
    """(lengths by row group, sequences in each), from the data; kept in the plan file if there is one."""

    def measure(group: int) -> npt.NDArray[Any]:
        column = read(group, [pack.lengths or pack.column])[pack.lengths or pack.column]
        found = column if pack.lengths else pc.list_value_length(column)
        return np.asarray(pc.fill_null(found, 0).combine_chunks()).astype(np.uint32)

    with ThreadPoolExecutor(THREADS) as threads:
        lengths = list(threads.map(measure, range(len(layout.group_rows))))
    counts = np.array([_count(each, pack) for each in lengths], np.int64)
    if pack.plan is not None:
        kept = pa.schema(
            [("length", pa.uint32())],
            metadata={"made_for": made_for, "pack": repr(pack.to_state()), "sequences": counts.astype("<i8").tobytes()},
        )
        folder, _, name = os.fspath(pack.plan).rpartition("/")
        with open_folder(folder or ".").writer(name) as target, pa.ipc.new_file(target.sink, kept) as sink:
            for each in lengths:
                sink.write_batch(pa.record_batch([pa.array(each)], schema=kept))
    return lengths.__getitem__, counts


def _load(pack: Pack, made_for: str) -> tuple[Callable[[int], Any], I64] | None:
    """(lengths by row group, sequences in each) from the plan file, which stays on disk; None if there is no such file."""
    if pack.plan is None or not os.path.exists(pack.plan):
        return None
    lengths_of = _PlanFile(os.path.abspath(pack.plan))
    kept = lengths_of.file.schema.metadata
    if kept[b"made_for"].decode() != made_for:
        raise DataChangedError(
            f"pack: the plan '{pack.plan}' was made for other data or another column; remove it, or name another file"
        )
    if kept[b"pack"].decode() == repr(pack.to_state()):
        return lengths_of, np.frombuffer(kept[b"sequences"], "<i8").astype(np.int64)
    return lengths_of, np.array(
        [_count(lengths_of(group), pack) for group in range(lengths_of.file.num_record_batches)], np.int64
    )


class _PlanFile:
    """Lengths by row group from a plan file, mapped into memory; picklable."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.file = pa.ipc.open_file(pa.memory_map(path))

    def __call__(self, group: int) -> npt.NDArray[Any]:
        return self.file.get_batch(group)[0].to_numpy()

    def __reduce__(self) -> tuple[Any, ...]:
        return _PlanFile, (self.path,)


def _count(lengths: npt.NDArray[Any], pack: Pack) -> int:
    plan = plan_pieces(lengths, pack)
    return int(plan.pack[-1]) + 1 if len(plan.pack) else 0
