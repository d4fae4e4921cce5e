"""What wide steps need of each row, as slim tables beside the work items: hashes for exact duplicates, sketches for near ones, group keys."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import PipelineError
from gristmill.kernels.buffers import slices
from gristmill.kernels.digests import cell_digests
from gristmill.kernels.hashing import hash_slices, hash_text
from gristmill.kernels.minhash import sketches
from gristmill.kernels.whitespace import collapse
from gristmill.pipelines import parts
from gristmill.pipelines.exchange import store_list, stored_list
from gristmill.pipelines.steps.base import text_column
from gristmill.pipelines.steps.dedupe import DropExactDuplicates, DropNearDuplicates, WideStep
from gristmill.pipelines.steps.normalize_text import compose
from gristmill.pipelines.work import WorkStore
from gristmill.storage.tombstones import base_uids


@dataclass(frozen=True)
class ExactHash:
    """row, uid, rank, quality, high, low, key: the 128-bit hash of the text after NFC, white space runs to one space, strip."""

    step: DropExactDuplicates

    def identity(self) -> list[object]:
        """What the content of the file depends on, for its key."""
        return ["exact", self.step.column, _order(self.step)]

    def of(self, table: pa.Table, start: int) -> pa.Table:
        """The slim table of these rows, null text left out; `start` is the number of the first one."""
        text = text_column(table, self.step.column, self.step.step)
        order = survivor_columns(table, self.step, start)
        valid = pc.is_valid(text)
        data, offsets = collapse(slices(compose(text)))
        digests = hash_slices(data, offsets)
        found = order.append_column("high", pa.array(digests[:, 0])).append_column("low", pa.array(digests[:, 1]))
        return found.append_column("key", pa.array(digests[:, 1])).filter(valid)


@dataclass(frozen=True)
class Sketch:
    """row, uid, rank, quality, signature, shingles: the MinHash signature and the sorted set of shingle hashes of each row that has words."""

    column: str
    shingle: int
    permutations: int
    step: DropNearDuplicates | None = None

    def identity(self) -> list[object]:
        """See `ExactHash.identity`."""
        return ["sketch", self.column, self.shingle, self.permutations, _order(self.step)]

    def serves(self, other: Sketch) -> bool:
        """Whether this sketch holds what the other one would."""
        return (self.column, self.shingle, self.permutations) == (other.column, other.shingle, other.permutations)

    def of(self, table: pa.Table, start: int) -> pa.Table:
        """See `ExactHash.of`; rows without a word are left out too: they match nothing."""
        text = text_column(table, self.column, "similarity")
        minima, values, offsets = sketches(text, self.shingle, self.permutations)
        order = survivor_columns(table, self.step, start)
        sets = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))
        found = order.append_column(
            "signature", pa.FixedSizeListArray.from_arrays(pa.array(minima.reshape(-1)), self.permutations)
        )
        return found.append_column("shingles", sets).filter(pa.array(offsets[1:] > offsets[:-1]))


@dataclass(frozen=True)
class GroupKey:
    """row, uid, key: the hash of the value of a column, null values left out."""

    column: str

    def identity(self) -> list[object]:
        """See `ExactHash.identity`."""
        return ["group", self.column]

    def of(self, table: pa.Table, start: int) -> pa.Table:
        """See `ExactHash.of`."""
        column = table[self.column]
        found = survivor_columns(table, None, start).select(["row", "uid"])
        return found.append_column("key", pa.array(cell_digests(column)[:, 1])).filter(pc.is_valid(column))


@dataclass(frozen=True)
class UidKey:
    """row, uid, name, key: the name of each row without and with its copy number, and what equal ones share."""

    by_id: bool

    def identity(self) -> list[object]:
        """See `ExactHash.identity`."""
        return ["uid", self.by_id]

    def of(self, table: pa.Table, start: int) -> pa.Table:
        """See `ExactHash.of`."""
        names = table["_uid"].cast(pa.large_string())
        uids = base_uids(names, by_id=self.by_id)
        rows = np.arange(start, start + len(names))
        return pa.table({"row": rows, "uid": uids, "name": names, "key": hash_text(uids)[:, 1]})


Extract = ExactHash | Sketch | GroupKey | UidKey

PUBLISHED = (
    1 << 22
)  # items from this number on are shards of the version that is appended to: compared with, never changed
ROW_BITS = 40  # a row's number within the run is item << ROW_BITS | row
OLD = PUBLISHED << ROW_BITS  # numbers from here on are of published rows


@dataclass(frozen=True)
class ExtractOf:
    """One item's extract: where it is, and which of its rows are still in question."""

    item: int
    key: str  # the work key of the stage that wrote it
    name: str
    gone: tuple[str, ...]  # keys of the slices whose rows have left since

    @property
    def digest(self) -> str:
        """What the content of `tables` depends on: the item's number too, which is another one when files come or go before it."""
        return f"{self.item}:{self.key}:{self.name}:{','.join(self.gone)}"

    def __str__(self) -> str:
        return f"item {self.item}"

    def tables(self, store: WorkStore, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The columns, with `item`, of the rows that are still there, in order; tables as they were written, memory-mapped where nothing has left."""
        folder = store.folder(self.key)
        found = parts.table(folder, self.name, list(dict.fromkeys(["row", *columns])))
        if found is None:
            raise PipelineError(f"work item {self.item} has no {self.name}; run again with --fresh")
        left = np.sort(leaving_rows(store, self.gone))
        for batch in found.to_batches():
            table = pa.Table.from_batches([batch])
            rows = batch["row"].to_numpy()
            if len(rows) and len(left):
                low, high = np.searchsorted(left, [rows[0], rows[-1] + 1])
                if low < high:
                    table = table.filter(pa.array(np.isin(rows, left[low:high], invert=True)))
            if table.num_rows:
                item = pa.repeat(pa.scalar(self.item, pa.int64()), table.num_rows)
                yield table.select(list(columns)).append_column("item", item)


def digests_of(extracts: Sequence[ExtractOf], *ids: pa.ChunkedArray) -> list[str]:
    """The digests of the extracts that these rows are of: work that is keyed by them stays when other items change."""
    items = np.unique(np.concatenate([column.to_numpy() >> ROW_BITS for column in ids]))
    digests = {extract.item: extract.digest for extract in extracts}
    return [digests[item] for item in items.tolist()]


def store_catalog(store: WorkStore, extracts: Sequence[ExtractOf]) -> str:
    """The work key of a list of extracts, one an item: what tasks carry that look up rows of any item."""
    return store_list(store, [[extract.item, extract.key, extract.name, extract.gone] for extract in extracts])


@functools.lru_cache(maxsize=4)
def catalog(store: WorkStore, key: str) -> dict[int, ExtractOf]:
    """The extracts of a stored list, by item."""
    return {item: ExtractOf(item, work, name, tuple(gone)) for item, work, name, gone in stored_list(store, key)}


def leaving_rows(store: WorkStore, keys: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """The row numbers that the slices take away."""
    found = [parts.read(store.folder(key) / "slice.arrow") for key in keys]
    gone = [table.filter(pc.is_null(table["new_uid"]))["row"].to_numpy() for table in found]
    return np.concatenate(gone) if gone else np.zeros(0, np.int64)


def _order(step: WideStep | None) -> list[object] | None:
    """What of a step `survivor_columns` depend on: what it compares with is none of it."""
    return None if step is None else [type(step).VERSION, step.priority, step.quality]


def survivor_columns(table: pa.Table, step: WideStep | None, start: int) -> pa.Table:
    """row, uid, rank, quality: the columns that order survivors. rank: place of the source's name in `priority`."""
    n = table.num_rows
    rank, quality = np.zeros(n, np.int32), pa.nulls(n, pa.float64())
    if step is not None and step.priority:
        place = pc.index_in(table["_source"], value_set=pa.array(step.priority, pa.string()))
        rank = pc.fill_null(place, len(step.priority)).to_numpy().astype(np.int32)
    if step is not None and step.quality:
        column = table[step.quality]
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_null(column.type)):
            raise PipelineError(f"{step.step}: quality column '{step.quality}' is {column.type}, expected a number")
        quality = pc.cast(column, pa.float64())
    uids = table["_uid"].cast(pa.large_string())
    return pa.table({"row": np.arange(start, start + n), "uid": uids, "rank": rank, "quality": quality})
