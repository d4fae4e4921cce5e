"""Bytes to whole lines in bounded memory: decompression that survives a torn end, and lines too long to hold."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import pyarrow as pa

BLOCK = 1 << 20
PREFIX = 1024  # of a line that is too long, so many bytes are kept


class Lines(NamedTuple):
    """Whole lines: data from byte `offset` of the (decompressed) stream. torn: why the stream ended early, for the last ones."""

    offset: int
    data: bytes
    torn: str | None = None


class LongLine(NamedTuple):
    """A line over the limit: its first bytes, and how many it has without its end."""

    offset: int
    prefix: bytes
    size: int


class Torn(Exception):  # noqa: N818  an event of the stream, not an error of the program
    """The compressed stream ended early or is damaged from here on."""


def compression(head: bytes) -> str | None:
    """The packing that a file's first four bytes tell: "gzip", "zstd", or None for neither."""
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    skippable = head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50  # parallel compressors begin with such a frame
    return "zstd" if head == b"\x28\xb5\x2f\xfd" or skippable else None


def stream_blocks(source: IO[bytes], start: int, stop: int) -> Iterator[bytes]:
    """The content of the bytes start to stop, decompressed if they begin as gzip or zstd do, in blocks of some megabytes, none empty.

    Raises:
        Torn: after the last block that could be had.
    """
    source.seek(start)
    packing = compression(source.read(4)) if start == 0 else None
    source.seek(start)
    if packing == "gzip":
        yield from _gzip(source)
    elif packing == "zstd":
        yield from _zstd(source)
    else:
        left = stop - start
        while left and (block := source.read(min(BLOCK, left))):
            left -= len(block)
            yield block


def _gzip(source: IO[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(31)
    whole = True  # at a border between members
    size = BLOCK // 4  # the first block is small: it may be all that is wanted
    while raw := source.read(size):
        size = 4 * BLOCK
        while raw:
            whole = False
            before = inflate.copy()  # a failing call gives nothing, so what it had read is read again in smaller parts
            try:
                block = inflate.decompress(raw, 16 * BLOCK)
            except zlib.error as error:
                yield from _salvage(before, raw)
                raise Torn(f"damaged gzip data: {error}; records shortly before may be wrong too") from None
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


def _salvage(inflate: Any, raw: bytes) -> Iterator[bytes]:
    """What comes out before the damage, found by feeding ever smaller parts."""
    size = len(raw)
    at = 0
    while size and at < len(raw):
        before = inflate.copy()
        try:
            block = inflate.decompress(raw[at : at + size])
        except zlib.error:
            inflate, size = before, max(size // 16, 1) if size > 1 else 0
            continue
        at += size
        if block:
            yield block


class _Borrowed:
    """A file that Arrow may read and not close."""

    closed = False

    def __init__(self, source: IO[bytes]) -> None:
        self.read = source.read

    def close(self) -> None:
        pass


def _zstd(source: IO[bytes]) -> Iterator[bytes]:
    given = 0
    size = BLOCK
    while True:
        source.seek(0)
        stream = pa.CompressedInputStream(pa.PythonFile(_Borrowed(source), mode="r"), "zstd")
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


def whole_lines(
    blocks: Iterator[bytes], first: int, chunk_bytes: int, max_record_bytes: int
) -> Iterator[Lines | LongLine]:
    """Chunks of about `chunk_bytes` that end at line ends (the last line may lack its end); `first` is the offset of the first byte.

    Only a line of more than `chunk_bytes` makes a chunk larger. One of more than `max_record_bytes` is skipped over and comes as a LongLine
    (where it shares a chunk with others it stays in it). A stream that is torn has `torn` in its last Lines, whose data may be empty.
    """
    offset, data = first, b""
    while True:
        enough = (
            chunk_bytes if len(data) < chunk_bytes else min(2 * len(data), max_record_bytes + 1)
        )  # a line in parts: join seldom
        parts, ended, torn = _gather(blocks, data, enough)
        if ended:
            if parts or torn:
                yield Lines(offset, b"".join(parts), torn)
            return
        whole, data = _cut(parts)
        parts.clear()
        size = len(whole)
        if whole:
            yield Lines(offset, whole)
            whole = b""
        elif len(data) > max_record_bytes:
            long, size, torn, data = _skip_line(blocks, offset, data)
            yield long
            if torn:
                yield Lines(offset + size, b"", torn)
                return
        offset += size


def _gather(blocks: Iterator[bytes], data: bytes, enough: int) -> tuple[list[bytes], bool, str | None]:
    """(the data and blocks after it, until there are enough bytes; whether the stream has ended; why too early)."""
    parts, size = [data] if data else [], len(data)
    while size < enough:
        try:
            block = next(blocks, b"")
        except Torn as event:
            return parts, True, str(event)
        if not block:
            return parts, True, None
        parts.append(block)
        size += len(block)
    return parts, False, None


def _cut(parts: list[bytes]) -> tuple[bytes, bytes]:
    """(whole lines, the begin of the next one), with one copy where the last part has a line's end."""
    cut = parts[-1].rfind(b"\n") + 1
    if cut:
        return b"".join([*parts[:-1], memoryview(parts[-1])[:cut]]), parts[-1][cut:]
    data = b"".join(parts)
    cut = data.rfind(b"\n") + 1
    return data[:cut], data[cut:]


def _skip_line(blocks: Iterator[bytes], offset: int, data: bytes) -> tuple[LongLine, int, str | None, bytes]:
    """(the long line that begins with the data, its bytes with its end, why the stream ended in it, what came after it)."""
    size = len(data)
    prefix = data[:PREFIX]
    del data
    try:
        for block in blocks:
            end = block.find(b"\n")
            if end >= 0:
                return LongLine(offset, prefix, size + end), size + end + 1, None, block[end + 1 :]
            size += len(block)
    except Torn as event:
        return LongLine(offset, prefix, size), size, str(event), b""
    return LongLine(offset, prefix, size), size, None, b""
