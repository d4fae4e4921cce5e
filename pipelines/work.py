"""Finished work, addressed by content: a folder per work item whose name is the hash of everything that its content depends on."""

from __future__ import annotations

import errno
import fcntl
import functools
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, Protocol

import pyarrow as pa
import xxhash
from pydantic import BaseModel

from gristmill.errors import RunError
from gristmill.storage.folder import TEMPORARY, is_abandoned, is_temporary, temporary_name

if TYPE_CHECKING:
    from gristmill.pipelines.engines.base import Engine

DAY = 86_400.0
MANY = 1_000  # keys from which on listing all that is there costs less than asking for each that isn't
VISIBLE = 60.0  # seconds in which what another machine wrote becomes visible on any network file system
FULL = (errno.ENOSPC, errno.EDQUOT)  # what a full disk answers
SIGNS = ("lock", "runs/")  # what tells in a store which runs are at work; it holds nothing of any row
FORMAT = 6  # part of every key: raise it when the files that stages write change


def key_of(*parts: Any) -> str:
    """32 hex digits that differ when any part differs. Parts are JSON values, models or nested lists of them; bytes by their hex."""
    return xxhash.xxh3_128_hexdigest(_ENCODER.encode([FORMAT, *parts]).encode())


def scratch_of(output: str, scratch: str | Path | None, *, shared: bool = False) -> str:
    """The folder or URL of work files for a dataset's folder or URL: in the one given, else beside the data.

    For a URL that is `OUTPUT/_work` if workers are elsewhere (`shared`), else a folder of the user's cache on this machine.
    """
    name = xxhash.xxh3_128_hexdigest(output.encode())[:16]
    if scratch is not None:
        return f"{str(scratch).rstrip('/')}/{name}" if "://" in str(scratch) else str((Path(scratch) / name).absolute())
    if "://" not in output:
        return str(Path(output).absolute() / "_work")
    if shared:
        return f"{output.rstrip('/')}/_work"
    return str(Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")).absolute() / "gristmill" / name)


def open_store(root: str) -> WorkStore:
    """The store of work files in a folder or behind a URL."""
    if "://" not in root:
        return WorkStore(root)
    from gristmill.pipelines.remote_work import RemoteWorkStore

    return RemoteWorkStore(root)


class Files(Protocol):
    """The files of finished work: `files / NAME` is the path of one, `glob` gives those whose names match."""

    def __truediv__(self, name: str) -> Path: ...

    def glob(self, pattern: str) -> Iterable[Path]: ...


@dataclass(frozen=True)
class WorkStore:
    """The scratch folder of a run. Shared safely by runs at the same time: equal keys mean equal content, and a folder appears whole or not at all."""

    root: str
    requests: ClassVar[int] = 1  # how many files are best asked for at a time

    def folder(self, key: str) -> Files:
        """The files of the work of this key, once it is done."""
        return self._place(key)

    def block(self, key: str, name: str, start: int, stop: int) -> pa.Buffer:
        """Bytes start to stop of a file of finished work, memory-mapped."""
        return mapped(self._place(key) / name, start, stop)

    def _place(self, key: str) -> Path:
        return Path(self.root) / "items" / key[:2] / key

    def done(self, key: str) -> dict[str, Any] | None:
        """The summary of finished work, or None."""
        try:
            with open(
                f"{self.root}/items/{key[:2]}/{key}/summary.json", "rb"
            ) as content:  # asked for every item: no Path objects
                return json.loads(content.read())
        except FileNotFoundError:
            return None

    def summaries(self, keys: Sequence[str]) -> list[dict[str, Any] | None]:
        """`done` of each; of many the folders are listed first, for most are there or most aren't."""
        if len(keys) < MANY:
            return [self.done(key) for key in keys]
        there = {name for folder in Path(self.root).glob("items/??") for name in os.listdir(folder)}
        return [self.done(key) if key in there else None for key in keys]

    def sees(self, key: str) -> bool:
        """Whether finished work is visible here; waits a minute for a network file system that remembers what was not there."""
        last = time.monotonic() + VISIBLE
        while self.done(key) is None:
            if time.monotonic() > last:
                return False
            time.sleep(0.5)
            with suppress(FileNotFoundError):
                os.listdir(self._place(key).parent)
        return True

    @contextmanager
    def create(self, key: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """(an empty folder to write to, the summary to fill). Both become visible together when the block ends without an error.

        If another process finished the same key meanwhile, its equal content stays and this one's goes.
        """
        final = self._place(key)
        with self._clear_errors():
            if not os.path.isdir(self.root):
                raise RunError(
                    f"the folder for work files '{self.root}' is not there on {socket.gethostname()}; with workers on other machines give one "
                    "that all of them have mounted, or a URL such as s3://bucket/scratch, with --scratch"
                )
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(temporary_name(str(final)))
            temporary.mkdir()
        summary: dict[str, Any] = {}
        try:
            with self._clear_errors():
                yield temporary, summary
                (temporary / "summary.json").write_text(json.dumps(summary))
                _rename(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def note(self, name: str, content: Any) -> None:
        """Writes the JSON file `name` beside the work, whole or not at all."""
        temporary = Path(temporary_name(f"{self.root}/{name}"))
        try:
            with self._clear_errors():
                temporary.write_text(json.dumps(content))
                temporary.replace(Path(self.root) / name)
        finally:
            temporary.unlink(missing_ok=True)

    def noted(self, name: str) -> Any:
        """What `note` wrote last, or None."""
        try:
            return json.loads((Path(self.root) / name).read_bytes())
        except FileNotFoundError:
            return None

    @contextmanager
    def held(self) -> Iterator[Lock]:
        """A lock that tells other runs that this one is at work here; it goes with the process."""
        with self._clear_errors():
            Path(self.root).mkdir(parents=True, exist_ok=True)
            file = (Path(self.root) / SIGNS[0]).open("wb")
        with file:
            lock = Lock(file)
            lock.share()
            yield lock

    def claim(self, lock: Lock, advice: str) -> None:
        """Has the store for this process alone, before work files are removed, until the lock is shared again or ends.

        Raises:
            RunError: a run is at work in it, with the advice.
        """
        if not lock.alone():
            raise RunError(f"another run is at work in '{self.root}', so work files can't be removed; {advice}")

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno is not None and error.errno in FULL:
                raise RunError(
                    f"no space left for work files in {self.root} ({error.strerror}); free some, or give another folder with --scratch. "
                    "What is finished is kept: the same command resumes."
                ) from error
            raise

    def forget(self, key: str) -> None:
        """Takes the work of this key out, so that it is done again."""
        _remove(self._place(key))

    def prune(self, keep: set[str]) -> int:
        """How many finished folders were removed: all whose key isn't in `keep`."""
        gone = 0
        for folder in (Path(self.root) / "items").glob("??/*"):
            if folder.name not in keep and not is_temporary(folder.name):
                _remove(folder)
                gone += 1
        return gone

    def frames(self, *, here: bool = False) -> Path:
        """The folder of stored frames; with `here` one that only this process need see."""
        folder = Path(self.root) / "frames"
        with self._clear_errors():
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def keep_frame(self, temporary: Path, name: str) -> str:
        """Where every worker finds the file, now named by its content, that was written to `frames(here=True)`."""
        final = self.frames() / name
        temporary.replace(final)
        return str(final)

    def prune_frames(self, keep: Sequence[str]) -> None:
        """Removes stored frames that hold none of the files `keep` and are older than a day: another run may have stored a younger one just now."""
        frames = Path(self.root) / "frames"
        kept = {Path(file).relative_to(frames).parts[0] for file in keep if Path(file).is_relative_to(frames)}
        for stored in frames.glob("[!.]*"):
            if stored.name not in kept and time.time() - stored.stat().st_mtime > DAY:
                shutil.rmtree(stored, ignore_errors=True) if stored.is_dir() else stored.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Removes what killed processes of this machine left behind; what living ones write stays."""
        sweep(Path(self.root), ("", "items/??/", "frames/"))


def finish(
    engine: Engine,
    function: Callable[[Any], dict[str, Any]],
    tasks: Sequence[Any],
    found: Sequence[dict[str, Any] | None] | None = None,
    advance: Callable[[dict[str, Any]], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """The summaries of the tasks, in order; those that are done already (`found`: their summaries, looked up if None) aren't run."""
    if not tasks:
        return []
    store: WorkStore = tasks[0].store
    found = store.summaries([task.key for task in tasks]) if found is None else found
    missing = [task for task, summary in zip(tasks, found, strict=True) if summary is None]
    fresh = iter(engine.map(functools.partial(once, function), missing, advance))
    if missing and not store.sees(missing[-1].key):
        raise RunError(
            f"a worker says that it has done {missing[-1]}, but nothing of it is in '{store.root}' as {socket.gethostname()} sees it; "
            "with workers on other machines give a folder that all have mounted, or a URL such as s3://bucket/scratch, with --scratch"
        )
    return [next(fresh) if summary is None else summary for summary in found]


def once(function: Callable[[Any], dict[str, Any]], task: Any) -> dict[str, Any]:
    """The task's summary; clusters repeat finished tasks when they lose a worker, and that costs nothing here."""
    done: dict[str, Any] | None = task.store.done(task.key)
    return function(task) if done is None else done


class Lock:
    """An advisory lock on the store: shared by the runs at work in it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def share(self) -> None:
        """Holds the lock together with other runs; waits while one of them removes finished work."""
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def alone(self) -> bool:
        """Whether no other run holds it: then this one has it for itself. Otherwise this one has it no longer."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def mapped(path: Path, start: int, stop: int) -> pa.Buffer:
    """Bytes start to stop of a file, memory-mapped."""
    with pa.memory_map(str(path)) as source:
        source.seek(start)
        return source.read_buffer(stop - start)


def _rename(temporary: Path, final: Path) -> None:
    try:
        temporary.rename(final)
    except OSError:
        if not (final / "summary.json").exists():
            raise


def sweep(root: Path, places: Sequence[str]) -> None:
    """Removes the temporary files and folders of dead processes of this machine in these folders of one (`a/`, as globs)."""
    for place in places:
        for left in root.glob(f"{place}{TEMPORARY}*"):
            if is_abandoned(left.name):
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    """Removes finished work, which is gone at once: of a folder that is removed file by file a kill would leave a part, with its summary."""
    temporary = Path(temporary_name(str(folder)))
    with suppress(FileNotFoundError):
        folder.rename(temporary)
    shutil.rmtree(temporary, ignore_errors=True)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return [type(value).__name__, getattr(value, "VERSION", 0), value.model_dump(mode="json")]
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"no key can be made of {type(value).__name__}")


_ENCODER = json.JSONEncoder(sort_keys=True, default=_plain)
