"""Copies of remote work files on this machine, least recently used ones removed."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import xxhash

from gristmill.errors import RunError
from gristmill.pipelines.sizes import parse_size
from gristmill.pipelines.work import FULL, sweep
from gristmill.storage.folder import Folder, open_folder, temporary_name

LIMIT = "20GB"  # unless GRISTMILL_CACHE_BYTES says otherwise
YOUNG = 60.0  # seconds in which a copy that was just asked for stays


class Cache:
    """Copies in a local folder that all processes of this machine share, each whole or not there.

    limit: bytes of finished copies that may lie there, but for those asked for in the last minute. A removed copy stays readable for who has it open.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._new = 0
        self._lock = threading.Lock()

    def find(self, name: str) -> Path | None:
        """The local path of the copy `name`, if it is there."""
        final = self._folder / "kept" / name
        try:
            os.utime(final)
        except FileNotFoundError:
            return None
        return final

    def fetch(self, remote: Folder, path: str, name: str, size: int, start: int | None = None) -> Path:
        """The local path of the copy `name` of a remote file of so many bytes, or of so many bytes from `start` on.

        Raises:
            FileNotFoundError: there is no such file.
        """
        if (found_here := self.find(name)) is not None:
            return found_here
        final = self._folder / "kept" / name
        with self.making() as folder:
            copy = folder / "copy"
            if start is None:
                with _own_errors():
                    remote.download(path, copy)
            else:
                copy.write_bytes(remote.read_range(path, start, start + size))
            if (found := copy.stat().st_size) != size:
                raise OSError(f"'{remote.url(path)}' came with {found} bytes, expected {size}")
            final.parent.mkdir(parents=True, exist_ok=True)
            copy.replace(final)
        self._count(size)
        return final

    @contextlib.contextmanager
    def making(self) -> Iterator[Path]:
        """A new folder to write to, removed at the end."""
        folder = Path(temporary_name(f"{self._folder}/making/new"))
        try:
            folder.mkdir(parents=True)
            yield folder
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise RunError(
                f"no space left for copies of work files in '{self._folder}' on {socket.gethostname()} ({error.strerror}); free some, name another folder "
                "by GRISTMILL_CACHE where its workers are started, or let it hold less by GRISTMILL_CACHE_BYTES. "
                "What is finished is kept: the same command resumes."
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, made: Path, name: str) -> None:
        """Makes what was written in a folder of `making` the copies under this name."""
        final = self._folder / "kept" / name
        final.parent.mkdir(parents=True, exist_ok=True)
        size = sum(path.stat().st_size for path in made.iterdir())
        made.rename(final)
        self._count(size)

    def frames(self) -> Path:
        """The folder in which frames are written before they are uploaded."""
        folder = self._folder / "frames"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def sweep(self) -> None:
        """Removes what killed processes of this machine left half-written."""
        sweep(self._folder, ("making/", "frames/"))

    def _count(self, size: int) -> None:
        """Now and then makes room: a look at all copies for each twentieth of the limit that is new."""
        with self._lock:
            self._new += size
            if self._new < self._limit // 20:
                return
            self._new = 0
        self._make_room()

    def _make_room(self) -> None:
        found = []
        for path in (self._folder / "kept").rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                info = path.stat()
                if path.is_file():
                    found.append((info.st_mtime, info.st_size, path))
        over = sum(size for _, size, _ in found) - self._limit
        for changed, size, path in sorted(found):
            if over <= 0 or time.time() - changed < YOUNG:
                return
            path.unlink(missing_ok=True)
            over -= size


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    """A full disk is told by who knows whose it is."""
    try:
        yield
    except RunError as error:
        raise error.__cause__ if isinstance(error.__cause__, OSError) else error from None


def _place_of(root: str) -> Path:
    place = os.environ.get("GRISTMILL_CACHE") or os.path.join(tempfile.gettempdir(), f"gristmill-{os.getuid()}")
    return Path(place) / xxhash.xxh3_128_hexdigest(root.encode())[:16]


@functools.cache
def cache_of(root: str) -> Cache:
    """The cache for a store's URL: a folder of this user in GRISTMILL_CACHE, or in the system's folder of temporary files.

    Raises:
        RunError: it can't be made.
    """
    folder = _place_of(root)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise RunError(
            f"can't make the folder '{folder}' for copies of work files on {socket.gethostname()}: {error.strerror}; set GRISTMILL_CACHE to another"
        ) from error
    return Cache(folder, parse_size(os.environ.get("GRISTMILL_CACHE_BYTES", LIMIT)))


def remove_copies(root: str, *, dry_run: bool = False) -> int:
    """How many files of a store of work, and of the frames in it, lay in this machine's cache and went (with dry_run, would go)."""
    count = 0
    for folder in (_place_of(root), _place_of(f"{root.rstrip('/')}/frames")):
        count += sum(path.is_file() for path in folder.rglob("*"))
        if not dry_run:
            shutil.rmtree(folder, ignore_errors=True)
    return count


def local_copy(path: str) -> str:
    """The path itself, or of a URL that of a copy in this machine's cache; for files that don't change."""
    if "://" not in path:
        return path
    base, _, name = path.rpartition("/")
    folder = open_folder(base)
    return str(cache_of(base).fetch(folder, name, name, folder.size(name)))
