"""Byte ranges of remote files: what is needed and little more, in parallel, retried, and never of two versions of a file."""

from __future__ import annotations

import io
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from gristmill.errors import CorruptDatasetError, DataChangedError, GristmillError, InputError, StoreUnreachableError
from gristmill.storage.folder import Folder
from gristmill.storage.object_store import Part, Refused, store_of

GAP = 512 << 10  # between two wanted ranges: that much is read over rather than asked for anew
TAIL = 64 << 10  # where a footer usually fits
PART = 8 << 20  # a longer range is asked for in parts at the same time
THREADS = 32  # of parts at the same time, over all files
FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0  # seconds between tries: doubled each time, times a random part of 1
GIVE_UP = 120.0  # seconds after which no new try is made

Range = tuple[int, int]  # start, stop
Cached = Callable[[str, Callable[[], Any]], Any]  # (key, how to get it) -> bytes


class Stamp(NamedTuple):
    """What tells one version of a file from another."""

    size: int
    etag: str


@dataclass
class Traffic:
    """What was asked of stores. needed: bytes of the ranges that were wanted; bytes: those that came, gaps between ranges included; retries: failed requests."""

    requests: int = 0
    bytes: int = 0
    needed: int = 0
    retries: int = 0

    def add(self, **counts: int) -> None:
        """Adds to the counts; safe in threads."""
        with _counting:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)


_counting = threading.Lock()
_threads: dict[int, ThreadPoolExecutor] = {}


def coalesce(ranges: Iterable[Range], gap: int = GAP) -> list[Range]:
    """The ranges in order, joined where at most `gap` bytes lie between two."""
    found: list[Range] = []
    for start, stop in sorted(ranges):
        if found and start - found[-1][1] <= gap:
            found[-1] = found[-1][0], max(found[-1][1], stop)
        else:
            found.append((start, stop))
    return found


class RangedFile(io.RawIOBase):
    """One version of a remote file, open for reading. What `fetch` brought is read from memory, all else is asked for on demand.

    stamp: its size and etag; another etag is an error. cached: keeps what was read, by key.
    """

    def __init__(self, folder: Folder, path: str, stamp: Stamp, traffic: Traffic, cached: Cached | None = None) -> None:
        super().__init__()
        self.stamp = stamp
        self._folder, self._path, self._traffic, self._cached = folder, path, traffic, cached
        self._pieces: list[tuple[int, memoryview]] = []
        self._at = 0

    def fetch(self, ranges: Sequence[Range]) -> None:
        """Brings ranges into memory, all at the same time.

        Raises:
            DataChangedError: the file was replaced. CorruptDatasetError: it is gone or shorter. StoreUnreachableError: no answer after many tries.
        """
        wanted = [(at, min(at + PART, stop)) for start, stop in coalesce(ranges) for at in range(start, stop, PART)]
        self._traffic.add(needed=sum(stop - start for start, stop in ranges))
        found = [self._get(wanted[0])] if len(wanted) == 1 else _pool().map(self._get, wanted)
        for (start, _), part in zip(wanted, found, strict=True):
            self.hold(start, part)

    def hold(self, start: int, content: Any) -> None:
        """Adds bytes that are known already."""
        self._pieces.append((start, memoryview(content)))

    def read(self, size: int | None = -1) -> bytes | memoryview:
        """The next bytes."""
        stop = self.stamp.size if size is None or size < 0 else min(self._at + size, self.stamp.size)
        found = self._held(self._at, stop)
        if found is None:
            found = memoryview(self._get((self._at, stop)))
        self._at = stop
        return found

    def seek(self, offset: int, whence: int = 0) -> int:
        """The new place."""
        self._at = offset + (0, self._at, self.stamp.size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def _held(self, start: int, stop: int) -> memoryview | None:
        if stop <= start:
            return memoryview(b"")
        parts: list[memoryview] = []
        for first, piece in sorted(self._pieces, key=lambda each: each[0]):
            if first <= start < first + len(piece):
                parts.append(piece[start - first : stop - first])
                start += len(parts[-1])
                if start >= stop:
                    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
        return None

    def _get(self, wanted: Range) -> Any:
        def ask() -> Any:
            return get_part(self._folder, self._path, wanted, self.stamp, self._traffic).content

        if self._cached is None:
            return ask()
        return self._cached(f"{self._folder.url(self._path)}\n{self.stamp.etag}\n{self.stamp.size}\n{wanted}", ask)


def open_remote(folder: Folder, path: str, size: int, traffic: Traffic, cached: Cached | None = None) -> RangedFile:
    """A remote file of a known size, open; its end is in memory, where a Parquet file has its footer.

    Raises:
        CorruptDatasetError: it is missing or has another size. StoreUnreachableError, InputError: as in `fetch`.
    """
    start = max(0, size - TAIL)
    tail = get_part(folder, path, (start, size), Stamp(size, ""), traffic)
    traffic.add(needed=size - start)
    file = RangedFile(folder, path, Stamp(size, tail.etag), traffic, cached)
    file.hold(start, tail.content)
    return file


def get_part(folder: Folder, path: str, wanted: Range, stamp: Stamp, traffic: Traffic) -> Part:
    """A range of a file, tried until it comes. An empty etag in the stamp fits any.

    Raises:
        DataChangedError, CorruptDatasetError, StoreUnreachableError, InputError: as in `fetch`.
    """
    store, url = store_of(folder), folder.url(path)
    began, reason = time.monotonic(), ""
    for attempt in itertools.count():
        traffic.add(requests=1)
        try:
            part = store.get(url, *wanted, stamp.etag)
        except Refused as refusal:
            raise _final(refusal, url, path) from refusal.__cause__
        except GristmillError:
            raise
        except Exception as error:  # noqa: BLE001  clients have no common class for what may pass
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        else:
            if part.size != stamp.size:
                raise CorruptDatasetError(f"'{url}' has {part.size} bytes, expected {stamp.size}", file=path)
            if len(part.content) == wanted[1] - wanted[0]:
                traffic.add(bytes=len(part.content))
                return part
            reason = f"the answer has {len(part.content)} bytes"
        traffic.add(retries=1)
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * random.random()
        if time.monotonic() - began + wait > GIVE_UP:
            raise StoreUnreachableError(
                f"'{url}', bytes {wanted[0]} to {wanted[1]}: gave up after {attempt + 1} tries in {time.monotonic() - began:.0f} s: {reason}. "
                "Check the address, the network and the credentials",
                path=path,
            )
        time.sleep(wait)
    raise AssertionError("unreachable")


def _final(refusal: Refused, url: str, path: str) -> GristmillError:
    if refusal.why == "changed":
        text = f"'{url}' was replaced while it was streamed: what was read before and after don't belong together"
        return DataChangedError(text, file=url)
    if refusal.why == "missing":
        return CorruptDatasetError(f"'{url}' is missing", file=path)
    if refusal.why == "shorter":
        return CorruptDatasetError(f"'{url}' is shorter than it was", file=path)
    return InputError(f"no permission to read '{url}' ({refusal}): allow it, or check the credentials", path=path)


def _pool() -> ThreadPoolExecutor:
    """The threads that parts are asked for with; one set for each process, made when it is first needed."""
    with _counting:
        if os.getpid() not in _threads:
            _threads[os.getpid()] = ThreadPoolExecutor(THREADS, "gristmill-ranges")
        return _threads[os.getpid()]
