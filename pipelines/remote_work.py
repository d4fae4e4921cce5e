"""Work files behind a URL: workers need no common folder, each keeps copies of what it reads and writes in a local cache."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.errors import UsageError
from gristmill.pipelines.fetched import Cache, cache_of
from gristmill.pipelines.work import DAY, Lock, WorkStore, mapped
from gristmill.storage.folder import Folder, is_alive, open_folder

THREADS = 16  # of requests at a time
LEASE = 600.0  # seconds after which a run that gives no sign of life is taken for dead
RENEW = 60.0  # seconds between signs of life
WAIT = 1.0  # seconds between looks at a store that another run has for itself

RUNS = 4  # whose markers a process keeps

_known: dict[str, dict[str, dict[str, Any]]] = {}
"""The markers that this process has read, by run and key: while a run is at work nothing of it is removed, but between two runs all may be."""


@dataclass(frozen=True)
class RemoteWorkStore(WorkStore):
    """The scratch folder of a run behind a URL.

    Each attempt at an item uploads its files under a name of its own; the item's marker, made last and only if there is none, names the attempt
    that counts. So work is there whole or not at all, and of two attempts that end together one stays.
    """

    run: str = field(default_factory=lambda: uuid.uuid4().hex)  # goes to the workers, which may outlive many runs
    requests: ClassVar[int] = THREADS

    @property
    def remote(self) -> Folder:
        """The folder behind the URL."""
        return open_folder(self.root)

    @property
    def cache(self) -> Cache:
        """The copies on this machine."""
        return cache_of(self.root)

    def folder(self, key: str) -> RemoteFiles:
        """The files of finished work, fetched when they are asked for."""
        return RemoteFiles(self, key)

    def block(self, key: str, name: str, start: int, stop: int) -> pa.Buffer:
        """See `WorkStore.block`: of a file that isn't here only these bytes are fetched."""
        return self.folder(key).block(name, start, stop)

    def done(self, key: str) -> dict[str, Any] | None:
        marker = self.marker(key)
        return None if marker is None else marker["summary"]

    def summaries(self, keys: Sequence[str]) -> list[dict[str, Any] | None]:
        with ThreadPoolExecutor(THREADS) as threads:
            return list(threads.map(self.done, keys))

    def marker(self, key: str, *, anew: bool = False) -> dict[str, Any] | None:
        """summary, attempt, files (bytes by name) of finished work, or None."""
        known = self._seen()
        found = None if anew else known.get(key)
        if found is None:
            try:
                found = json.loads(self.remote.read_bytes(_marker(key)))
            except FileNotFoundError:
                known.pop(key, None)
                return None
            known[key] = found
        return found

    def _seen(self) -> dict[str, dict[str, Any]]:
        """The markers that this process has read for this run."""
        if self.run not in _known:
            for old in list(_known)[: 1 - RUNS]:
                _known.pop(old, None)
        return _known.setdefault(self.run, {})

    @contextlib.contextmanager
    def create(self, key: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """See `WorkStore.create`: the folder is a local one, uploaded when the block ends."""
        attempt = uuid.uuid4().hex
        summary: dict[str, Any] = {}
        with self.cache.making() as made:
            yield made, summary
            files = {path.name: path.stat().st_size for path in made.iterdir()}
            with ThreadPoolExecutor(THREADS) as threads:
                list(threads.map(lambda name: self.remote.upload(made / name, _file(key, attempt, name)), files))
            marker = {"summary": summary, "attempt": attempt, "files": files}
            if self._make_marker(key, marker):
                self._seen()[key] = marker
                self.cache.keep(made, f"{key}/{attempt}")
            else:
                self._delete([_file(key, attempt, name) for name in files])

    def _make_marker(self, key: str, marker: dict[str, Any]) -> bool:
        """Whether it is ours: not if another attempt was first."""
        try:
            self.remote.create(_marker(key), json.dumps(marker).encode())
        except FileExistsError:
            found = self.marker(key, anew=True)
            return found is not None and found["attempt"] == marker["attempt"]  # the answer to our own request was lost
        return True

    def note(self, name: str, content: Any) -> None:
        self.remote.write_atomic(name, json.dumps(content).encode())

    def noted(self, name: str) -> Any:
        try:
            return json.loads(self.remote.read_bytes(name))
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def held(self) -> Iterator[Lease]:
        lease = Lease(self.remote)
        try:
            lease.share()
            _known.pop(self.run, None)  # what was there before may have been removed
            yield lease
        finally:
            lease.end()

    def forget(self, key: str) -> None:
        self.remote.delete(_marker(key))
        self._seen().pop(key, None)

    def prune(self, keep: set[str]) -> int:
        """See `WorkStore.prune`. Files of attempts that never ended go after a day: until then a worker may still be at them."""
        found = self.remote.list("items")
        markers = {path: path.rpartition("/")[2].removesuffix(".json") for path, *_ in found if path.endswith(".json")}
        gone = [path for path, key in markers.items() if key not in keep]
        self._delete(gone)
        for path in gone:
            self._seen().pop(markers[path], None)
        left = set(markers.values()) & keep
        dead = {markers[path] for path in gone}
        old = time.time() - DAY
        self._delete(
            [
                path
                for path, _, changed in found
                if (parts := path.split("/"))
                and len(parts) == 5
                and parts[2] not in left
                and (parts[2] in dead or changed < old)
            ]
        )
        return len(gone)

    def frames(self, *, here: bool = False) -> Path:
        if not here:
            raise UsageError(
                f"a Dask or Spark frame as a source is written by the cluster, which needs a folder that all of it has mounted for --scratch, not '{self.root}'; "
                "or write it to Parquet in the store and read that"
            )
        return self.cache.frames()

    def keep_frame(self, temporary: Path, name: str) -> str:
        where = f"frames/{name}"
        if not self.remote.exists(where):
            self.remote.upload(temporary, where)
        temporary.unlink()
        return self.remote.url(where)

    def prune_frames(self, keep: Sequence[str]) -> None:
        base = f"{self.remote.url()}/"
        kept = {"/".join(file.removeprefix(base).split("/")[:2]) for file in keep if file.startswith(base)}
        old = time.time() - DAY
        found = self.remote.list("frames")
        self._delete(
            [path for path, _, changed in found if changed < old and "/".join(path.split("/")[:2]) not in kept]
        )

    def sweep(self) -> None:
        self.cache.sweep()

    def _delete(self, paths: Sequence[str]) -> None:
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(self.remote.delete, paths))


@dataclass(frozen=True)
class RemoteFiles:
    """The files of one finished work item: local copies of those that are asked for."""

    store: RemoteWorkStore
    key: str

    def __truediv__(self, name: str) -> Path:
        """The path of the local copy.

        Raises:
            FileNotFoundError: the work isn't finished, or has no such file.
        """
        return self._local(name)[0]

    def block(self, name: str, start: int, stop: int) -> pa.Buffer:
        """Bytes start to stop of a file, memory-mapped from the copy of the file, or from a copy of just these."""
        path, whole = self._local(name, (start, stop))
        return mapped(path, start, stop) if whole else mapped(path, 0, stop - start)

    def _local(self, name: str, span: tuple[int, int] | None = None) -> tuple[Path, bool]:
        """(the path of a local copy, whether it is of the whole file). span: bytes that will do."""
        store = self.store
        for anew in (False, True):  # another run may have removed what this process knew, and the work been done again
            marker = store.marker(self.key, anew=anew)
            if marker is None or name not in marker["files"]:
                continue
            where, copy = _file(self.key, marker["attempt"], name), f"{self.key}/{marker['attempt']}/{name}"
            with contextlib.suppress(FileNotFoundError):
                if span is None:
                    return store.cache.fetch(store.remote, where, copy, marker["files"][name]), True
                if (found := store.cache.find(copy)) is not None:
                    return found, True
                start, stop = span
                return store.cache.fetch(store.remote, where, f"{copy}.{start}-{stop}", stop - start, start), False
        raise FileNotFoundError(f"{store.remote.url(_marker(self.key))} has no file '{name}'")

    def glob(self, pattern: str) -> list[Path]:
        """Local copies of the files whose names match."""
        marker = self.store.marker(self.key)
        return [self / name for name in (marker or {"files": {}})["files"] if fnmatch.fnmatchcase(name, pattern)]


class Lease(Lock):
    """The sign of life of a run among those of others. It has the store for itself if it made the mark `runs/alone` and then saw no other's sign."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._name = f"runs/{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
        self._over = threading.Event()
        threading.Thread(target=self._renew, name="gristmill lease", daemon=True).start()

    def share(self) -> None:
        """Is at work together with other runs; waits while one of them removes finished work."""
        self._sign()
        if self._owner() == self._name:
            self._folder.delete(ALONE)
        while (owner := self._owner()) not in (None, self._name) and owner in self._others():
            time.sleep(WAIT)

    def alone(self) -> bool:
        """Whether no other run is at work: then the store is this one's until `share` or the end."""
        self._sign()
        others = self._others()
        owner = self._owner()
        if owner in others:
            return False
        if owner not in (None, self._name):
            self._folder.delete(ALONE)  # its run is dead
        try:
            self._folder.create(ALONE, self._name.encode())
        except FileExistsError:
            return self._owner() == self._name
        if self._others():
            self._folder.delete(ALONE)
            return False
        return True

    def end(self) -> None:
        """Takes the sign back."""
        self._over.set()
        with contextlib.suppress(OSError):  # it runs out by itself
            if self._owner() == self._name:
                self._folder.delete(ALONE)
            self._folder.delete(self._name)

    def _sign(self) -> None:
        self._folder.write_atomic(self._name, b"")

    def _renew(self) -> None:
        while not self._over.wait(RENEW):
            with contextlib.suppress(OSError):  # the next one may succeed
                self._sign()

    def _owner(self) -> str | None:
        try:
            return self._folder.read_bytes(ALONE).decode()
        except FileNotFoundError:
            return None

    def _others(self) -> set[str]:
        """The names of other runs that are alive, by the store's clock."""
        found = {path: changed for path, _, changed in self._folder.list("runs") if path != ALONE}
        now = found.get(self._name, time.time())
        return {
            path for path, changed in found.items() if path != self._name and now - changed < LEASE and not _dead(path)
        }


ALONE = "runs/alone"


def _dead(name: str) -> bool:
    """Whether it is the sign of a process of this machine that is gone."""
    host, pid, _ = name.removeprefix("runs/").rsplit("-", 2)
    return host == socket.gethostname() and pid.isdecimal() and not is_alive(int(pid))


def _marker(key: str) -> str:
    return f"items/{key[:2]}/{key}.json"


def _file(key: str, attempt: str, name: str) -> str:
    return f"items/{key[:2]}/{key}/{attempt}/{name}"
