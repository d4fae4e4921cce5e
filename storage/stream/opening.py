"""`gristmill.stream`: from what a user writes to a loader."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from gristmill.errors import UsageError
from gristmill.storage.range_cache import RangeCache
from gristmill.storage.stream import trace
from gristmill.storage.stream.arguments import check_arguments, check_columns
from gristmill.storage.stream.batching import Batching
from gristmill.storage.stream.gates import check_verdict
from gristmill.storage.stream.images import find_decoder
from gristmill.storage.stream.loader import Stream
from gristmill.storage.stream.packed_reader import PackedReader
from gristmill.storage.stream.packing import Pack, pack_layout
from gristmill.storage.stream.prefetch import BadRows
from gristmill.storage.stream.ranks import find_ranks
from gristmill.storage.stream.reader import Reader
from gristmill.storage.stream.running import Feed
from gristmill.storage.stream.sources import Sources, fit_shuffles, make_order, open_sources
from gristmill.storage.stream.state import State
from gristmill.storage.stream.transforms import RowWork, Transform

log = logging.getLogger("gristmill.stream")


def stream(  # noqa: PLR0917  the order of these is part of the interface
    data: Any,
    split: str | None = None,
    global_batch_size: int = 512,
    seed: int = 0,
    epochs: int = 1,
    shuffle: bool = True,
    shuffle_bytes: int = 2**30,
    tail: Literal["carry", "drop", "pad"] = "carry",
    columns: Sequence[str] | None = None,
    transform: Transform | None = None,
    decode: Mapping[str, Any] | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    mesh: Any = None,
    require_verdict: bool | str | None = None,
    on_change: Literal["error", "extend"] = "error",
    on_bad_row: Literal["error", "substitute"] = "error",
    skip: Sequence[str | int] | None = None,
    *,
    pad: Mapping[str, float] | None = None,
    device: Any = None,
    threads: int | None = None,
    workers: int = 0,
    pack: Pack | None = None,
    check: Literal["size", "pages", "sha256"] = "pages",
    cache: str | os.PathLike[str] | None = None,
    cache_bytes: int = 10 * 2**30,
    options: Mapping[str, Any] | None = None,
) -> Stream:
    """Batches of tensors: {column: torch.Tensor, Ragged or list}, this rank's part of each global batch.

    data: a Dataset, its path with an optional @VERSION, Parquet files, a folder or a glob of them; {data: weight}, a Mix or a mix file for several.
    The global batches and their order depend on seed, shuffle_bytes and the data alone; ranks take contiguous parts of them. shuffle_bytes: about what all ranks
    together hold of row groups open for the shuffle; its effect is frozen in the state.

    Numbers, times (counts of their unit) and decimals (float64) are tensors, fixed-size lists (rows, size); lists of numbers are Ragged (values, offsets), or with
    pad={column: value} (rows, longest) with `NAME_lengths`; dictionary columns are codes into `dictionaries`; text, bytes and other lists are Python lists; structs are
    dicts. A fixed-size column with nulls in a batch has `NAME_valid` beside it (0 where null).

    tail: "carry" (batches straddle epochs, only the very last may be short), "drop", or "pad" (adds a bool `_valid`). decode: {column: "rgb", "gray" or a
    function (bytes, rng) -> array}; transform(row, rng) -> row runs after it, with rng keyed by (seed, epoch, uid). on_bad_row="substitute" puts another
    row in the place of one that can't be read (that at its place in the next row group that can), decoded or transformed (the next good one of this rank's part of the
    batch; an error if there is none), with `_valid` False. skip: uids, or numbers of steps, that are left out from here on.

    rank and world_size: data-parallel, from these, the mesh, torch.distributed or RANK and WORLD_SIZE. device: batches are copied there. threads: that read and
    decode, 0 for none; workers: processes for a transform that holds the GIL. pack: rows of tokens become sequences of one length, which are
    then the rows of the batches, with `position_ids` and `document_ids` (-1 where padded). check: what is compared with the manifest while reading. cache: a local folder that keeps
    what was read of remote files, at most cache_bytes, shared by all processes that name it. options: of the store, as for `open_dataset`.

    Raises:
        UsageError: an argument that can't be meant, a column or type that can't be streamed. VerdictError: the version's gate has not been passed.
    """
    check_arguments(locals())
    sources = open_sources(data, split, options)
    for dataset in sources.datasets:
        check_verdict(dataset, require_verdict)
    ranks = find_ranks(rank, world_size, mesh)
    if global_batch_size % ranks.world_size:
        log.warning(
            "global_batch_size=%d is no multiple of %d ranks: their parts differ by a row",
            global_batch_size,
            ranks.world_size,
        )
    kept = RangeCache(cache, cache_bytes) if cache is not None else None
    reader: Reader | PackedReader
    if pack is not None:
        sources, reader = _packed(sources, pack, columns, check, kept)
    layout = sources.layout
    decoders = {name: find_decoder(name, kind) for name, kind in (decode or {}).items()}
    work = RowWork(decoders, transform, seed) if decoders or transform else None
    names = layout.chosen(columns)
    hidden = work is not None and trace.UID in layout.schema.names and trace.UID not in names
    if pack is None:
        reader = Reader(layout, [*names, trace.UID] if hidden else names, check, kept)
    shown = [column for column in reader.columns if not (hidden and column.name == trace.UID)]
    masked = tail == "pad" or on_bad_row == "substitute"
    check_columns(shown, layout.name, decode=decoders, pad=pad or (), masked=masked)
    shuffles = fit_shuffles(sources, shuffle_bytes) if shuffle else ()
    feed = Feed(
        layout=layout,
        order=make_order(layout, sources.parts, seed, shuffles, sources.mix),
        reader=reader,
        batching=Batching(layout.num_rows, epochs, global_batch_size, tail),
        ranks=ranks,
        work=work,
        bad=BadRows(substitute=on_bad_row == "substitute"),
        shuffle_bytes=shuffle_bytes,
        threads=min(4, os.cpu_count() or 1) if threads is None else threads,
        workers=workers,
        device=device,
        drop_uid=hidden,
        pad=dict(pad or {}),
    )
    shuffled = tuple((lanes, window) for lanes, window in shuffles)
    mix = tuple((start, tuple(quota)) for start, quota in sources.mix)
    state = State(0, 0, seed, shuffled, (), layout.digest, layout.name, len(layout.files), layout.num_rows, mix=mix)
    if pack is not None:
        state = replace(state, pack=pack.to_state())
    return Stream(feed, state, sources.parts, skip=skip or (), on_change=on_change)


def _packed(
    sources: Sources, pack: Pack, columns: Sequence[str] | None, check: str, cache: RangeCache | None
) -> tuple[Sources, PackedReader]:
    """The sources with packed sequences for rows, and what reads them."""
    if columns is not None:
        raise UsageError("pack= and columns= don't go together: a packed sequence has the columns that pack names")
    rows = sources.layout
    rows.chosen([*pack.columns, *([pack.lengths] if pack.lengths else [])])
    reader = Reader(rows, pack.columns, check, cache)
    layout = pack_layout(rows, pack, reader.read_table)
    return replace(sources, layout=layout), PackedReader(layout, reader)
