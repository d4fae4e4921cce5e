"""Bytes to whole lines in bounded memory: decompression that survives a torn end, and lines too long to hold."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple

import pyarrow as pa

BLOCK = 1 << 20
PREFIX = 1024  # of a line that is too long, so many bytes are kept


class Lines(NamedTuple):
    """Whole lines: data from byte `offset` of the (decompressed) stream. torn: why the stream ended early, for the last ones."""

    offset: int
    data: bytes
    torn: str | None = None


class LongLine(NamedTuple):
    """A line over the limit: its first bytes, and how many it has."""

    offset: int
    prefix: bytes
    size: int


class Torn(Exception):  # noqa: N818  an event of the stream, not an error of the program
    """The compressed stream ended early or is damaged from here on."""


def stream_blocks(source: IO[bytes], start: int, stop: int) -> Iterator[bytes]:
    """The content of the bytes start to stop, decompressed if they begin as gzip or zstd do, in blocks of about a megabyte.

    Raises:
        Torn: after the last block that could be had.
    """
    source.seek(start)
    head = source.read(4)
    source.seek(start)
    if start == 0 and head[:2] == b"\x1f\x8b":
        yield from _gzip(source)
    elif start == 0 and head == b"\x28\xb5\x2f\xfd":
        yield from _zstd(source)
    else:
        left = stop - start
        while left and (block := source.read(min(BLOCK, left))):
            left -= len(block)
            yield block


def _gzip(source: IO[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(31)
    whole = True  # at a border between members
    while raw := source.read(BLOCK):
        while raw:
            whole = False
            try:
                block = inflate.decompress(raw, 4 * BLOCK)
            except zlib.error as error:
                raise Torn(f"damaged gzip data: {error}") from None
            if block:
                yield block
            raw = inflate.unconsumed_tail
            if inflate.eof:
                raw = inflate.unused_data.lstrip(b"\0")  # members may follow, or padding
                inflate = zlib.decompressobj(31)
                whole = True
    if not whole:
        block = inflate.flush()
        if block:
            yield block
        raise Torn("the gzip data ends before its end mark")


def _zstd(source: IO[bytes]) -> Iterator[bytes]:
    given = 0
    size = BLOCK
    while True:
        source.seek(0)
        stream = pa.CompressedInputStream(pa.PythonFile(source, mode="r"), "zstd")
        try:
            left = given
            while left:
                left -= len(stream.read(min(left, BLOCK)))
            while block := stream.read(size):
                given += len(block)
                yield block
        except OSError as error:
            if size <= 1:
                raise Torn(f"damaged zstd data: {error}") from None
            size = max(1, size // 32)  # what comes before the damage is in a smaller block
        else:
            return


def whole_lines(blocks: Iterator[bytes], first: int, chunk_bytes: int, max_record_bytes: int) -> Iterator[Lines | LongLine]:
    """Chunks of about `chunk_bytes` that end at line ends (the last line may lack its end). A line over `max_record_bytes` is skipped over
    and comes as a LongLine; at most it and a chunk are in memory."""
    held: list[bytes] = []
    size = 0
    offset = first
    torn: str | None = None
    while True:
        try:
            block = next(blocks, b"")
        except Torn as event:
            block, torn = b"", str(event)
        if block:
            held.append(block)
            size += len(block)
            if size < chunk_bytes:
                continue
        data = b"".join(held)
        end = len(data) if not block else data.rfind(b"\n") + 1
        if end == 0 and size <= max_record_bytes:
            held = [data]
            if size < 2 * max_record_bytes:
                chunk_bytes = max(chunk_bytes, min(2 * size, max_record_bytes + 1))  # a long line: join seldom
            continue
        if end == 0:
            long, rest = _skip_line(blocks, offset, data)
            yield long
            offset += long.size
            held, size = ([rest], len(rest)) if rest else ([], 0)
            continue
        if end or torn:
            yield from _split_long(Lines(offset, data[:end], torn), max_record_bytes)
        offset += end
        held, size = ([data[end:]], len(data) - end) if end < len(data) else ([], 0)
        if not block:
            return


def _skip_line(blocks: Iterator[bytes], offset: int, data: bytes) -> tuple[LongLine, bytes]:
    """The long line that begins with the data, and what came after its end."""
    size = len(data)
    try:
        for block in blocks:
            end = block.find(b"\n")
            if end >= 0:
                return LongLine(offset, data[:PREFIX], size + end + 1), block[end + 1 :]
            size += len(block)
    except Torn:
        pass  # the next read of the stream says so again: it has ended
    return LongLine(offset, data[:PREFIX], size), b""


def _split_long(lines: Lines, max_record_bytes: int) -> Iterator[Lines | LongLine]:
    """Takes lines over the limit out of a chunk that holds them whole."""
    if len(lines.data) <= max_record_bytes:
        yield lines
        return
    start = at = 0
    while at < len(lines.data):
        end = lines.data.find(b"\n", at) + 1 or len(lines.data)
        if end - at > max_record_bytes:
            if start < at:
                yield Lines(lines.offset + start, lines.data[start:at])
            yield LongLine(lines.offset + at, lines.data[at : at + PREFIX], end - at)
            start = end
        at = end
    if start < len(lines.data):
        yield Lines(lines.offset + start, lines.data[start:], lines.torn)
