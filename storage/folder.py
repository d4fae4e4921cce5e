"""A folder of files, local or behind a URL, with the few operations that datasets need, each atomic."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from gristmill.errors import InputError, MissingDependencyError, RunError

TEMPORARY = ".tmp-"  # files so named are being written, or were when their writer died


@dataclass(frozen=True)
class Folder:
    """A local folder or a URL (s3://bucket/prefix; other schemes come through fsspec), picklable. Paths inside are relative, with `/`.

    Reads after writes are fresh: nothing about files is cached. Local writes are synced before they become visible.
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
        with self.open_input(path) as source:
            return source.read()

    def open_input(self, path: str) -> IO[bytes]:
        """The file, open for reading and seeking."""
        if self.remote:
            return self._remote.open(self.url(path), "rb")  # type: ignore[no-any-return]
        return open(self.url(path), "rb")

    @contextlib.contextmanager
    def writer(self, path: str) -> Iterator[WritableFile]:
        """A file to write, which appears whole when the block ends without an error; `rename` may change its name until then."""
        target = WritableFile(path)
        temporary = f"{path.rpartition('/')[0]}/{TEMPORARY}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}".lstrip("/")
        with _readable_errors(self.url(path)):
            if self.remote:
                # an upload under a temporary name, then a copy on the server: the name is known only once the content is
                try:
                    with self._remote.open(self.url(temporary), "wb") as sink:
                        target.sink = sink
                        yield target
                    self._remote.mv(self.url(temporary), self.url(target.path))
                except BaseException:
                    with contextlib.suppress(FileNotFoundError, OSError):
                        self._remote.rm(self.url(temporary))
                    raise
                return
            local = Path(self.url(temporary))
            local.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(local, "wb") as sink:
                    target.sink = sink
                    yield target
                    sink.flush()
                    os.fsync(sink.fileno())
                final = Path(self.url(target.path))
                final.parent.mkdir(parents=True, exist_ok=True)
                local.replace(final)
            finally:
                local.unlink(missing_ok=True)

    def write_atomic(self, path: str, content: bytes) -> None:
        """Writes or replaces the file; a reader sees the old content or the new, never a part."""
        with self.writer(path) as target:
            target.sink.write(content)

    def create(self, path: str, content: bytes) -> None:
        """Makes the file with its whole content, or fails: of several at once exactly one succeeds.

        Local: a hard link to a finished file, which fails if the name is taken; where the file system has no links, an exclusive open (whose
        content isn't atomic under a crash). S3: a put with If-None-Match.

        Raises:
            FileExistsError: the file exists.
        """
        if self.remote:
            self._create_remote(path, content)
            return
        final = Path(self.url(path))
        with _readable_errors(str(final)):
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary = final.parent / f"{TEMPORARY}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"
            try:
                with open(temporary, "xb") as sink:
                    sink.write(content)
                    sink.flush()
                    os.fsync(sink.fileno())
                try:
                    os.link(temporary, final)
                except OSError as error:
                    if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                        raise
                    with open(final, "xb") as sink:
                        sink.write(content)
            finally:
                temporary.unlink(missing_ok=True)

    def exists(self, path: str) -> bool:
        """Whether there is a file or a folder that isn't empty."""
        if self.remote:
            return bool(self._remote.exists(self.url(path)))
        return os.path.exists(self.url(path))

    def size(self, path: str) -> int:
        """The file's bytes."""
        return int(self._remote.size(self.url(path))) if self.remote else os.stat(self.url(path)).st_size

    def list(self, prefix: str = "") -> list[tuple[str, int, float]]:
        """(path, bytes, seconds since 1970 of the last change) of every file under the prefix, sorted by path; none if there is no such folder."""
        if self.remote:
            return self._list_remote(prefix)
        root = Path(self.url(prefix) if prefix else self.base)
        found = []
        for folder, _, files in os.walk(root):
            for name in files:
                full = os.path.join(folder, name)
                with contextlib.suppress(FileNotFoundError):  # a temporary file may go while we look
                    info = os.stat(full)
                    found.append((os.path.relpath(full, self.base).replace(os.sep, "/"), info.st_size, info.st_mtime))
        return sorted(found)

    def delete(self, path: str) -> None:
        """Removes the file; it may be gone already."""
        with contextlib.suppress(FileNotFoundError):
            if self.remote:
                self._remote.rm_file(self.url(path))
            else:
                os.unlink(self.url(path))

    def _list_remote(self, prefix: str) -> list[tuple[str, int, float]]:
        try:
            found = self._remote.find(self.url(prefix) if prefix else self.base, detail=True)
        except FileNotFoundError:
            return []
        root = self._remote._strip_protocol(self.base).rstrip("/") + "/"  # noqa: SLF001  fsspec's own way to compare paths
        rows = []
        for name, info in found.items():
            changed = info.get("LastModified") or info.get("mtime") or info.get("updated")
            rows.append((name.removeprefix(root), int(info["size"]), changed.timestamp() if hasattr(changed, "timestamp") else float(changed or 0)))
        return sorted(rows)

    def _create_remote(self, path: str, content: bytes) -> None:
        if self.base.startswith(("s3://", "s3a://")):
            bucket, _, key = self._remote._strip_protocol(self.url(path)).partition("/")  # noqa: SLF001
            try:
                self._remote.call_s3("put_object", Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
            except FileExistsError:
                raise
            except Exception as error:
                code = getattr(error, "response", {}).get("Error", {}).get("Code", "") or str(error)
                if "PreconditionFailed" in code or "ConditionalRequestConflict" in code or "412" in code or "pre-conditions" in code:
                    raise FileExistsError(errno.EEXIST, "exists", self.url(path)) from error
                raise
            return
        self._remote.pipe_file(self.url(path), content, mode="create")

    @property
    def _remote(self) -> Any:
        return _filesystem(self.base.split("://")[0], tuple(sorted(self.options.items(), key=str)), os.getpid())


class WritableFile:
    """A file on its way: `sink` takes bytes; `path` is the name that it will have."""

    sink: IO[bytes]

    def __init__(self, path: str) -> None:
        self.path = path

    def rename(self, path: str) -> None:
        """Changes the name that the file will appear under."""
        self.path = path


def open_folder(location: str | os.PathLike[str] | Folder, options: Mapping[str, Any] | None = None) -> Folder:
    """The folder of a path or URL. `options` go to fsspec, such as {"endpoint_url": ...}; S3 also reads its usual environment variables."""
    if isinstance(location, Folder):
        return location
    text = os.fspath(location)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if "://" not in text:
        text = str(Path(text).absolute())
    return Folder(text.rstrip("/") or "/", dict(options or {}))


@functools.lru_cache(maxsize=16)
def _filesystem(protocol: str, options: tuple[tuple[str, Any], ...], process: int) -> Any:
    """One client for each process (after a fork an event loop of the parent would hang)."""
    import fsspec

    extra: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True, **dict(options)}
    if protocol in ("s3", "s3a") and "endpoint_url" not in extra and os.environ.get("AWS_ENDPOINT_URL"):
        extra["endpoint_url"] = os.environ["AWS_ENDPOINT_URL"]
    try:
        return fsspec.filesystem(protocol, **extra)
    except ImportError as error:
        hint = "gristmill[s3]" if protocol.startswith("s3") else f"the fsspec package for {protocol}"
        raise MissingDependencyError(f"{protocol}:// needs a package that isn't installed: pip install '{hint}' ({error})") from error
    except ValueError as error:
        raise InputError(f"no file system for '{protocol}://': {error}") from error


@contextlib.contextmanager
def _readable_errors(path: str) -> Iterator[None]:
    """Says what to do about a full disk or a missing permission."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"no space left while writing '{path}'; free some and run the same command again: it resumes") from error
        if isinstance(error, PermissionError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise InputError(f"no permission to write '{path}': {error.strerror}") from error
        raise
