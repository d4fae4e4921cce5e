"""Work items: large files cut, small ones bundled, from the files alone, so that items are the same wherever and however a run goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import xxhash

from gristmill.pipelines.fetched import local_copy
from gristmill.pipelines.sources.base import (
    CsvSource,
    FrameSource,
    JsonlSource,
    ParquetSource,
    Piece,
    Source,
    TextSource,
    WorkItem,
)
from gristmill.pipelines.sources.files import Found, content_hash, list_files, open_file
from gristmill.pipelines.sources.lines import compression
from gristmill.pipelines.sources.parquet import footer

ITEM_BYTES = 64 << 20  # of plain input
PACKED_WEIGHT = 5  # compressed text counts as so many times its size
SMALL_BYTES = 1 << 20  # smaller files share items
BUNDLE_BYTES = 8 << 20
BUNDLE_FILES = 5_000
THREADS = 16  # that look into files while planning: behind a URL each look is a request
ENDINGS = {
    JsonlSource: [ending + packed for ending in (".jsonl", ".json", ".ndjson") for packed in ("", ".gz", ".zst")],
    CsvSource: [ending + packed for ending in (".csv", ".tsv") for packed in ("", ".gz", ".zst")],
    ParquetSource: [".parquet"],
    TextSource: [],
}


def plan_items(source: Source, *, item_bytes: int = ITEM_BYTES, cache: dict[str, str] | None = None) -> list[WorkItem]:
    """The work items of a source, in order of path. `cache` maps states of files to content hashes known from before, and is added to.

    Plain JSONL is cut at the line end after each multiple of `item_bytes`, Parquet between row groups; compressed files are one item each.
    Small files are bundled; where a bundle ends depends on the content of its last file, so a new file changes one bundle only.

    Raises:
        InputNotFoundError, InputError: nothing there, or not readable.
    """
    cache = {} if cache is None else cache
    if isinstance(source, FrameSource):
        return _frame_items(source, item_bytes)
    found = list_files(source.paths, ENDINGS[type(source)])
    if isinstance(source, ParquetSource):
        return _parquet_items(source, found, item_bytes, cache)
    small = {file.path for file in found if file.size * _weight(file.path) < SMALL_BYTES}
    pieces = {file.path: [Piece(file.path, 0, file.size, file.version)] for file in found}
    large = [f for f in found if f.size > item_bytes and f.path not in small and isinstance(source, JsonlSource)]
    with ThreadPoolExecutor(THREADS) as threads:
        cut = threads.map(lambda file: list(_cut(file, item_bytes)), large)
        pieces |= {file.path: parts for file, parts in zip(large, cut, strict=True)}
    hashes = _hashes([piece for parts in pieces.values() for piece in parts], cache)
    items: list[WorkItem] = []
    bundle: list[Piece] = []
    mean = sum(file.size for file in found if file.path in small) // max(len(small), 1)
    divisor = _power_of_two(BUNDLE_BYTES // max(mean, 256))
    for file in found:
        if file.path in small:
            bundle.append(pieces[file.path][0])
            if (
                int(hashes[bundle[-1]], 16) % divisor == 0
                or len(bundle) >= BUNDLE_FILES
                or sum(p.stop for p in bundle) >= item_bytes
            ):
                items.append(_item(source, bundle, hashes))
                bundle = []
            continue
        if bundle:
            items.append(_item(source, bundle, hashes))
            bundle = []
        items += [_item(source, [piece], hashes) for piece in pieces[file.path]]
    return [*items, _item(source, bundle, hashes)] if bundle else items


def _item(source: Source, pieces: Sequence[Piece], hashes: dict[Piece, str]) -> WorkItem:
    if len(pieces) == 1:
        piece = pieces[0]
        content = xxhash.xxh3_128_hexdigest(hashes[piece].encode())
        return WorkItem(source.name, (piece,), content, piece.stop - piece.start)
    content = xxhash.xxh3_128_hexdigest("".join(hashes[piece] for piece in pieces).encode())
    return WorkItem(source.name, tuple(pieces), content, sum(piece.stop - piece.start for piece in pieces))


def _weight(path: str) -> int:
    return PACKED_WEIGHT if path.endswith((".gz", ".zst")) else 1


def _power_of_two(number: int) -> int:
    return 1 << max(0, number.bit_length() - 1)


def _cut(file: Found, item_bytes: int) -> Iterator[Piece]:
    """A plain file in pieces that end at line ends; a compressed one whole."""
    if _packed(file.path):
        yield Piece(file.path, 0, file.size, file.version)
        return
    start = 0
    with open_file(file.path) as stream:
        while start < file.size:
            stop = file.size
            if start + item_bytes < file.size:
                stream.seek(start + item_bytes)
                stop = start + item_bytes
                while block := stream.read(1 << 16):  # to the end of the line
                    end = block.find(b"\n")
                    stop += len(block) if end < 0 else end + 1
                    if end >= 0:
                        break
            yield Piece(file.path, start, min(stop, file.size), file.version)
            start = stop


def _packed(path: str) -> bool:
    with open_file(path) as stream:
        return compression(stream.read(4)) is not None


def _hashes(pieces: Sequence[Piece], cache: dict[str, str]) -> dict[Piece, str]:
    """The content hash of each piece; those in the cache aren't read. Remote files are known by their version alone."""
    names = {piece: f"{piece.file}|{piece.version}|{piece.start}-{piece.stop}" for piece in pieces}

    known = {piece: cache.get(name) for piece, name in names.items()}
    known |= {piece: xxhash.xxh3_128_hexdigest(names[piece].encode()) for piece in pieces if "://" in piece.file}
    unread = [piece for piece, digest in known.items() if digest is None]
    with ThreadPoolExecutor(THREADS) as threads:
        known |= zip(
            unread, threads.map(lambda piece: content_hash(piece.file, piece.start, piece.stop), unread), strict=True
        )
    found = {piece: digest for piece, digest in known.items() if digest is not None}
    cache.update({names[piece]: digest for piece, digest in found.items() if "://" not in piece.file})
    return found


def _parquet_items(
    source: ParquetSource, found: Sequence[Found], item_bytes: int, cache: dict[str, str]
) -> list[WorkItem]:
    hashes = _hashes([Piece(file.path, 0, file.size, file.version) for file in found], cache)
    with ThreadPoolExecutor(THREADS) as threads:
        footers = threads.map(lambda file: footer(file.path), found)
        return [
            item
            for file, digest, sizes in zip(found, hashes.values(), footers, strict=True)
            for item in _groups(source, file, digest, sizes, item_bytes)
        ]


def _groups(
    source: ParquetSource, file: Found, digest: str, sizes: list[int] | None, item_bytes: int
) -> Iterator[WorkItem]:
    if sizes is None:  # not readable: the reader quarantines it
        yield WorkItem(source.name, (Piece(file.path, 0, 0, file.version),), digest, file.size)
        return
    start, total = 0, 0
    for group, size in enumerate(sizes):
        total += size
        if total >= item_bytes or group == len(sizes) - 1:
            content = xxhash.xxh3_128_hexdigest(f"{digest}:{start}-{group + 1}".encode())
            yield WorkItem(source.name, (Piece(file.path, start, group + 1, file.version),), content, total)
            start, total = group + 1, 0
    if not sizes:
        yield WorkItem(source.name, (Piece(file.path, 0, 0, file.version),), digest, file.size)


def _frame_items(source: FrameSource, item_bytes: int) -> list[WorkItem]:
    with pa.memory_map(local_copy(source.file)) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
        size, rows = max(table.nbytes, 1), table.num_rows
    step = max(1, rows * item_bytes // size)
    digest = source.file.rsplit("/", 1)[-1].removesuffix(".arrow")
    return [
        WorkItem(
            source.name,
            (Piece(source.file, start, min(start + step, rows), ""),),
            f"{digest}:{start}-{start + step}",
            size * min(step, rows) // max(rows, 1),
        )
        for start in range(0, max(rows, 1), step)
    ]
