"""Input files, local or behind URLs: listed, opened, hashed."""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import xxhash

from gristmill.errors import InputError, InputNotFoundError, StoreUnreachableError, did_you_mean
from gristmill.storage.folder import open_folder

BLOCK = 4 << 20


class Found(NamedTuple):
    """A file with its size and what tells this state of it from another."""

    path: str
    size: int
    version: str


def list_files(patterns: Sequence[str], endings: Sequence[str]) -> list[Found]:
    """The files that the paths, folders and globs mean, sorted by path, each once. In folders, files with one of the endings count
    (all if there are none to choose by); names that start with `.` or `_` never do.

    Raises:
        InputNotFoundError: a pattern that matches nothing, with the nearest name.
        InputError: something that is no file, or can't be read.
    """
    found: dict[str, Found] = {}
    for pattern in patterns:
        matches = _remote(pattern, endings) if "://" in pattern else _local(pattern, endings)
        if not matches:
            raise InputNotFoundError(f"no input matches '{pattern}'.{_hint(pattern)}", path=pattern)
        found.update((match.path, match) for match in matches)
    return [found[path] for path in sorted(found)]


def open_file(path: str) -> IO[bytes]:
    """The file, open for reading and seeking.

    Raises:
        InputError: it can't be opened. StoreUnreachableError: no answer.
    """
    try:
        if "://" in path:
            base, _, name = path.rpartition("/")
            return open_folder(base).open_input(name)
        return open(path, "rb")
    except StoreUnreachableError:
        raise
    except OSError as error:
        raise InputError(f"can't read '{path}': {error.strerror or error}", path=path) from error


def current_version(path: str) -> str:
    """What tells this state of the file from another: size and time of change, which object stores keep in whole seconds."""
    if "://" in path:
        if found := _remote_file(path):
            return found.version
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    info = os.stat(path)
    return f"{info.st_size}:{info.st_mtime_ns}"


def check_unchanged(path: str, version: str) -> None:
    """Refuses a file that has changed since the run was planned.

    Raises:
        InputError: it has, or it is gone. StoreUnreachableError: no answer.
    """
    try:
        now = current_version(path)
    except StoreUnreachableError:
        raise
    except OSError as error:
        raise InputError(
            f"input '{path}' is not there on {socket.gethostname()}: it has gone since the run was planned, or this machine has not mounted it. "
            "Workers on other machines need the inputs under the same paths, or in object storage",
            path=path,
        ) from error
    if now != version:
        raise InputError(
            f"input '{path}' has changed since the run was planned; run again when it is no longer written to",
            path=path,
        )


def content_hash(path: str, start: int, stop: int) -> str:
    """32 hex digits of XXH3-128 over these bytes of the file."""
    digest = xxhash.xxh3_128()
    with open_file(path) as source:
        source.seek(start)
        left = stop - start
        while left and (block := source.read(min(BLOCK, left))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _local(pattern: str, endings: Sequence[str]) -> list[Found]:
    paths: list[str] = []
    if os.path.isdir(pattern):
        paths = _in_folder(pattern, endings)
        if not paths:
            raise InputNotFoundError(
                f"folder '{pattern}' has no file {'ending with ' + ', '.join(endings) if endings else 'in it'}",
                path=pattern,
            )
    elif os.path.lexists(pattern):
        paths = [pattern]
    elif glob.has_magic(pattern):
        for match in sorted(glob.glob(pattern, recursive=True)):
            paths += (
                _in_folder(match, endings)
                if os.path.isdir(match) and "**" not in pattern
                else ([] if os.path.isdir(match) else [match])
            )
    return [_stat(path) for path in paths]


def _in_folder(folder: str, endings: Sequence[str]) -> list[str]:
    found = []
    for root, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")))
        found += [
            os.path.join(root, name)
            for name in sorted(files)
            if not name.startswith((".", "_")) and (not endings or name.endswith(tuple(endings)))
        ]
    return found


def _raise(error: OSError) -> None:
    raise InputError(f"can't list '{error.filename}': {error.strerror}") from error


def _stat(path: str) -> Found:
    try:
        info = os.stat(path)
    except OSError as error:
        raise InputError(f"can't read '{path}': {error.strerror}", path=path) from error
    if not stat.S_ISREG(info.st_mode):
        raise InputError(f"'{path}' is not a regular file", path=path)
    if not os.access(path, os.R_OK):
        raise InputError(f"no permission to read '{path}'", path=path)
    return Found(path, info.st_size, f"{info.st_size}:{info.st_mtime_ns}")


def _remote(pattern: str, endings: Sequence[str]) -> list[Found]:
    """The files that a URL means, by the rules of local paths: itself, though it may look like a glob, those in a folder, or those of a glob."""
    if found := _remote_file(pattern):
        return [found]
    base = pattern.rstrip("/")
    if glob.has_magic(pattern):
        base = pattern[: min(i for i in (pattern.find(c) for c in "*?[") if i >= 0)].rpartition("/")[0]
    folder = open_folder(base)
    names = [name for name in pattern[len(base) :].split("/") if name]
    return [
        _found(f"{folder.base}/{path}", size, changed)
        for path, size, changed in folder.list("")
        if _means(names, path.split("/"), endings)
    ]


def _remote_file(url: str) -> Found | None:
    parent, _, name = url.rpartition("/")
    return next(
        (_found(url, size, changed) for path, size, changed in open_folder(parent).list(name) if path == name), None
    )


def _found(url: str, size: int, changed: float) -> Found:
    return Found(url, size, f"{size}:{changed}")


def _means(pattern: Sequence[str], path: Sequence[str], endings: Sequence[str]) -> bool:
    """Whether a glob, cut into the names of folders, means the file at the path, cut likewise: itself, or a folder that it is in."""
    if not pattern:
        return not any(name.startswith((".", "_")) for name in path) and (
            not endings or path[-1].endswith(tuple(endings))
        )
    if "**" in pattern:
        return _fits(pattern, path)
    within = path[len(pattern) :]
    return _fits(pattern, path[: len(pattern)]) and (not within or _means((), within, endings))


def _fits(pattern: Sequence[str], path: Sequence[str]) -> bool:
    """Whether the names match one by one; `**` stands for any number of them. Names that start with a dot are matched by none that doesn't."""
    if not pattern or not path:
        return not path and all(name == "**" for name in pattern)
    first, *rest = pattern
    shown = first.startswith(".") or not path[0].startswith(".")
    if first == "**":
        return _fits(rest, path) or (shown and _fits(pattern, path[1:]))
    return shown and fnmatch.fnmatchcase(path[0], first) and _fits(rest, path[1:])


def _hint(pattern: str) -> str:
    if "://" in pattern:
        return ""
    parent = Path(pattern).parent
    while glob.has_magic(str(parent)):
        parent = parent.parent
    if not parent.is_dir():
        return f" There is no folder '{parent}'."
    return did_you_mean(Path(pattern).name, [entry.name for entry in list(parent.iterdir())[:1000]])
