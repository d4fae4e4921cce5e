"""A folder that keeps byte ranges of remote files, shared by any number of processes and bounded in size."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import struct
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import xxhash

from gristmill.errors import UsageError
from gristmill.storage.folder import TEMPORARY, is_abandoned

log = logging.getLogger("gristmill.stream")

ENDING, TOTAL = ".range", "total"
KEPT = 0.9  # of the limit, after old ranges were removed
DIGEST = 16


class RangeCache:
    """Gives what is kept under a key, or gets and keeps it; calls cost a file each. The least recently used go first.

    A process may be killed at any moment: files appear by renaming, are checked when they are read, and the lock is the kernel's, which ends with the
    process. limit: bytes; room is reserved before a range is written, so the folder never holds more.
    """

    def __init__(self, folder: str | os.PathLike[str], limit: int) -> None:
        if limit < 1:
            raise UsageError(f"cache_bytes={limit}: give the most bytes that the cache folder may hold")
        self.folder = Path(folder)
        self.limit = limit
        self.hits = 0
        self.folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, key: str, get: Callable[[], Any]) -> Any:
        """The bytes of a key."""
        path = self.folder / (xxhash.xxh3_128_hexdigest(key.encode()) + ENDING)
        found = _read(path)
        if found is not None:
            self.hits += 1
            return found
        content = get()
        try:
            self._keep(path, content)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            log.warning("the cache '%s' is not written to: no space left", self.folder)
        return content

    def _keep(self, path: Path, content: Any) -> None:
        size = len(content) + DIGEST
        if size > self.limit or not self._reserve(size):
            return
        temporary = path.with_name(f"{TEMPORARY}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}")
        try:
            with temporary.open("xb") as sink:
                sink.write(content)
                sink.write(xxhash.xxh3_128_digest(content))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _reserve(self, size: int) -> bool:
        """Adds to the folder's total, after making room if it needs to."""
        with self._locked() as ledger:
            recorded = ledger.read(8)
            total = struct.unpack("<q", recorded)[0] if len(recorded) == 8 else self._make_room(size)
            if total + size > self.limit:
                total = self._make_room(size)
            fits = total + size <= self.limit
            ledger.seek(0)
            ledger.write(struct.pack("<q", total + size * fits))
            ledger.flush()
            return fits

    def _make_room(self, size: int) -> int:
        """Removes the least recently used until `size` fits; the bytes that stay."""
        total, files = 0, []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if is_abandoned(entry.name):
                        os.unlink(entry.path)
                    elif entry.name != TOTAL:
                        info = entry.stat()
                        total += info.st_size
                        files.append((info.st_mtime_ns, info.st_size, entry.path))
        most = min(self.limit - size, int(self.limit * KEPT))
        for _, bytes_, path in sorted(files):
            if total <= most:
                break
            if path.endswith(ENDING):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                total -= bytes_
        return total

    @contextlib.contextmanager
    def _locked(self) -> Iterator[Any]:
        handle = os.open(self.folder / TOTAL, os.O_RDWR | os.O_CREAT, 0o644)
        with os.fdopen(handle, "r+b", buffering=0) as ledger:
            fcntl.flock(ledger, fcntl.LOCK_EX)
            yield ledger


def _read(path: Path) -> memoryview | None:
    """What is kept in a file, marked as used now; None if there is none, or it is damaged."""
    try:
        content = path.read_bytes()
        os.utime(path)
    except FileNotFoundError:
        return None
    body = memoryview(content)[:-DIGEST]
    if len(content) < DIGEST or xxhash.xxh3_128_digest(body) != content[-DIGEST:]:
        path.unlink(missing_ok=True)
        return None
    return body
