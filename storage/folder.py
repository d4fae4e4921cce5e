"""A folder of files, local or behind a URL, with the few operations that datasets need, each atomic."""

from __future__ import annotations

import builtins
import contextlib
import errno
import functools
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from gristmill.errors import GristmillError, InputError, RunError, StoreUnreachableError
from gristmill.storage import remote

COPIED = 4 << 20  # bytes copied at a time
THREADS = 8  # of requests to a store at a time
TEMPORARY = ".tmp-"  # files so named are being written, or were when their writer died
SPOOLED = f"gristmill{TEMPORARY}"  # local files on their way to a store
NO_LINKS = (
    errno.EPERM,
    errno.ENOTSUP,
    errno.ENOSYS,
    errno.EMLINK,
    errno.EXDEV,
)  # what file systems without hard links answer


@dataclass(frozen=True)
class Folder:
    """A local folder or a URL (s3://bucket/prefix; other schemes come through fsspec), picklable. Paths inside are relative, with `/`.

    Reads after writes are fresh: nothing about files is cached. Local writes are synced before they become visible.

    Every method raises InputError for a missing permission or a remote that can't be reached, and RunError for a full disk.
    """

    base: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def remote(self) -> bool:
        """Whether the folder is behind a URL."""
        return "://" in self.base

    def url(self, path: str = "") -> str:
        """The full path or URL of a file."""
        return f"{self.base.rstrip('/')}/{path}" if path else self.base

    def read_bytes(self, path: str) -> bytes:
        """The whole file.

        Raises:
            FileNotFoundError: no such file.
        """
        with _clear_errors(self.url(path), "read"):
            if self.remote:
                return self._client.cat_file(self.url(path))
            return Path(self.url(path)).read_bytes()

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        """The file's bytes from start to stop.

        Raises:
            FileNotFoundError: no such file.
        """
        with _clear_errors(self.url(path), "read"):
            if self.remote:
                found: bytes = self._client.cat_file(self.url(path), start=start, end=stop)
                return found
            with Path(self.url(path)).open("rb") as source:
                source.seek(start)
                return source.read(stop - start)

    def open_input(self, path: str) -> IO[bytes]:
        """The file, open for reading and seeking."""
        with _clear_errors(self.url(path), "read"):
            if self.remote:
                return self._client.open(self.url(path), "rb")
            return Path(self.url(path)).open("rb")

    @contextlib.contextmanager
    def writer(self, path: str, *, sync: bool = True) -> Iterator[WritableFile]:
        """A file to write, which appears whole when the block ends without an error; `rename` may change its name until then.

        sync: whether it does so after a power failure too; False for what can be made again and is checked when it is read. A remote file is
        collected in the local temporary folder and uploaded at the end, so that no half of it is ever there.
        """
        with _clear_errors(self.url(path), "write", _temporary_folder if self.remote else None):
            if self.remote:
                _sweep_spooled(tempfile.gettempdir())
                with tempfile.NamedTemporaryFile(prefix=f"{SPOOLED}{socket.gethostname()}-{os.getpid()}-") as sink:
                    target = WritableFile(path, sink)
                    yield target
                    sink.flush()
                    remote.upload(self._client, sink.name, self.url(target.path), self.url(temporary_name(target.path)))
                return
            temporary = Path(self.url(temporary_name(path)))
            _make_folder(temporary.parent)
            try:
                with temporary.open("xb") as sink:
                    target = WritableFile(path, sink)
                    yield target
                    sink.flush()
                    if sync:
                        os.fsync(sink.fileno())
                final = Path(self.url(target.path))
                _make_folder(final.parent)
                temporary.replace(final)
                if sync:
                    _sync(final.parent)
            finally:
                temporary.unlink(missing_ok=True)

    def upload(self, local: str | os.PathLike[str], path: str) -> None:
        """Makes or replaces the file with the content of a local one, all at once."""
        if self.remote:
            with _clear_errors(self.url(path), "write"):
                remote.upload(self._client, os.fspath(local), self.url(path), self.url(temporary_name(path)))
            return
        with self.writer(path) as target, open(local, "rb") as source:
            shutil.copyfileobj(source, target.sink, COPIED)

    def download(self, path: str, local: str | os.PathLike[str]) -> None:
        """Writes the file's content to a new local one, which isn't synced.

        Raises:
            FileNotFoundError: no such file.
        """
        with _clear_errors(self.url(path), "read"):
            if self.remote:
                self._client.get_file(self.url(path), os.fspath(local))
            else:
                shutil.copyfile(self.url(path), local)

    def write_atomic(self, path: str, content: bytes) -> None:
        """Writes or replaces the file; a reader sees the old content or the new, never a part."""
        if self.remote:
            with _clear_errors(self.url(path), "write"):
                remote.put(self._client, self.url(path), content, self.url(temporary_name(path)))
            return
        with self.writer(path) as target:
            target.sink.write(content)

    def create(self, path: str, content: bytes) -> None:
        """Makes the file with its whole content, or fails: of several at once exactly one succeeds.

        Local: a hard link to a finished file, which fails if the name is taken; where the file system has no links, an exclusive open, whose
        content can be cut short by a crash. S3: a put with If-None-Match. Other schemes: fsspec's mode "create", atomic where theirs is.

        Raises:
            FileExistsError: the file exists.
        """
        with _clear_errors(self.url(path), "write"):
            if self.remote:
                remote.create(self._client, self.url(path), content)
                return
            final = Path(self.url(path))
            temporary = Path(self.url(temporary_name(path)))
            _make_folder(final.parent)
            try:
                _write_new(temporary, content)
                try:
                    os.link(temporary, final)
                except OSError as error:
                    if error.errno not in NO_LINKS:
                        raise
                    _write_new(final, content)
                _sync(final.parent)
            finally:
                temporary.unlink(missing_ok=True)

    def exists(self, path: str) -> bool:
        """Whether there is a file or a folder that isn't empty."""
        with _clear_errors(self.url(path), "read"):
            if self.remote:
                return bool(self._client.exists(self.url(path)))
            return Path(self.url(path)).exists()

    def size(self, path: str) -> int:
        """The file's bytes.

        Raises:
            FileNotFoundError: no such file.
        """
        with _clear_errors(self.url(path), "read"):
            return int(self._client.size(self.url(path))) if self.remote else Path(self.url(path)).stat().st_size

    def sizes(self, paths: Sequence[str]) -> builtins.list[int | None]:
        """The bytes of each file, None for one that is missing. Asks for many at a time where each answer takes long."""
        with _clear_errors(self.url(), "read"):
            if self.remote:
                with ThreadPoolExecutor(THREADS) as threads:
                    return [*threads.map(lambda path: _size(self._client.size, self.url(path)), paths)]
            base = self.base.rstrip("/")
            return [_size(_local_size, f"{base}/{path}") for path in paths]

    def list(self, prefix: str = "", *, recursive: bool = True) -> builtins.list[tuple[str, int, float]]:
        """(path, bytes, seconds since 1970 of the last change) of every file in the folder `prefix`, sorted by path; none if there is no such folder."""
        place = self.url(prefix.rstrip("/"))
        with _clear_errors(place, "list"):
            if self.remote:
                return remote.list_files(self._client, place, self.base, recursive=recursive)
            within = f"{prefix.rstrip('/')}/" if prefix else ""
            return sorted(_walk(place, within, recursive=recursive))

    def link(self, source: str, path: str) -> None:
        """Makes or replaces the file with the content of another in the folder, as a second name of it where that can be; as young as a new one.

        Raises:
            FileNotFoundError: there is no `source`.
        """
        with _clear_errors(self.url(path), "write"):
            if self.remote:
                self._client.cp_file(self.url(source), self.url(path))
                return
            temporary, final = Path(self.url(temporary_name(path))), Path(self.url(path))
            _make_folder(final.parent)
            try:
                try:
                    os.link(self.url(source), temporary)
                except OSError as error:
                    if error.errno not in NO_LINKS:
                        raise
                    shutil.copyfile(self.url(source), temporary)
                    _sync(temporary)
                os.utime(temporary)
                temporary.replace(final)
                _sync(final.parent)
            finally:
                temporary.unlink(missing_ok=True)

    def delete(self, path: str) -> None:
        """Removes the file; it may be gone already."""
        with _clear_errors(self.url(path), "delete"), contextlib.suppress(FileNotFoundError):
            if self.remote:
                self._client.rm_file(self.url(path))
            else:
                Path(self.url(path)).unlink()

    @property
    def _client(self) -> Any:
        return remote.client(self.base.split("://", maxsplit=1)[0], self.options)


@dataclass
class WritableFile:
    """A file on its way: `sink` takes bytes; `path` is the name that it will have."""

    path: str
    sink: IO[bytes]

    def rename(self, path: str) -> None:
        """Changes the name that the file will appear under."""
        self.path = path


def _local_size(path: str) -> int:
    return os.stat(path).st_size


def _size(measure: Callable[[str], int], where: str) -> int | None:
    try:
        return measure(where)
    except FileNotFoundError:
        return None


def open_folder(location: str | os.PathLike[str] | Folder, options: Mapping[str, Any] | None = None) -> Folder:
    """The folder of a path or URL. `options` go to fsspec, such as {"endpoint_url": ...}; S3 also reads its usual environment variables."""
    if isinstance(location, Folder):
        return location
    text = os.fspath(location)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if "://" not in text:
        text = str(Path(text).expanduser().absolute())
    return Folder(text.rstrip("/") or "/", dict(options or {}))


def is_temporary(path: str) -> bool:
    """Whether the file is one that is, or was, being written."""
    return path.rpartition("/")[2].startswith(TEMPORARY)


def is_abandoned(path: str) -> bool:
    """Whether it is a temporary file or folder (`temporary_name`) of this machine whose writer is dead."""
    host, _, rest = path.rpartition("/")[2].removeprefix(TEMPORARY).rpartition("-")[0].rpartition("-")
    return is_temporary(path) and host == socket.gethostname() and rest.isdecimal() and not is_alive(int(rest))


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has that number; one that has ended and that nobody has waited for yet is gone."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except ProcessLookupError:
        return False
    except OSError:  # another user's process, or no /proc
        return True


def temporary_name(path: str) -> str:
    """A new temporary name in the same folder; host and process tell whose it is, so that `is_abandoned` can say whether it is still wanted."""
    folder, slash, _ = path.rpartition("/")
    return f"{folder}{slash}{TEMPORARY}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"


@functools.cache
def _sweep_spooled(folder: str) -> None:
    """Removes, once a process, the files on their way to a store whose writers were killed; those of other users stay."""
    for path in Path(folder).glob(f"{SPOOLED}*"):
        if is_abandoned(path.name.removeprefix("gristmill")):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                path.unlink()


def _write_new(path: Path, content: bytes) -> None:
    """The file, synced; nothing of it is left if that fails."""
    with path.open("xb") as sink:
        try:
            sink.write(content)
            sink.flush()
            os.fsync(sink.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"can't make the folder '{path}': '{error.filename}' is a file; choose another folder or move the file away",
            path=str(path),
        ) from error


def _sync(path: Path) -> None:
    """Makes the content of a file, or new names in a folder, survive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _walk(folder: str, prefix: str, *, recursive: bool) -> Iterator[tuple[str, int, float]]:
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if entry.is_dir():
                if recursive and not entry.is_symlink():
                    yield from _walk(entry.path, f"{prefix}{entry.name}/", recursive=True)
                continue
            with contextlib.suppress(FileNotFoundError):  # a temporary file may go while we look
                info = entry.stat()
                yield f"{prefix}{entry.name}", info.st_size, info.st_mtime


def _temporary_folder() -> str:
    return f" by way of the temporary folder '{tempfile.gettempdir()}' of {socket.gethostname()} (TMPDIR names another)"


@contextlib.contextmanager
def _clear_errors(path: str, doing: str, full: Callable[[], str] | None = None) -> Iterator[None]:
    """Says what to do about a full disk, a missing permission or a remote that doesn't answer. full: which disk that is, where `path` doesn't say."""
    try:
        yield
    except (GristmillError, FileExistsError, FileNotFoundError):
        raise
    except Exception as error:
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"no space left to write '{path}'{full() if full else ''}: free some and run the same command again, it resumes",
                path=path,
            ) from error
        if isinstance(error, PermissionError) or number == errno.EROFS:
            at = getattr(error, "filename", None) or path
            text = f"no permission to {doing} '{at}' ({getattr(error, 'strerror', None) or error}): allow it, or choose another folder"
            raise InputError(text, path=str(at)) from error
        if remote.is_connection_error(error):
            raise StoreUnreachableError(
                f"can't {doing} '{path}': {error}. Check the address, the network and the credentials", path=path
            ) from error
        raise
