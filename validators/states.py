"""States of shards, kept beside their dataset by (sha256 of the shard, accumulator): a shard that has one isn't read again."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.storage.folder import Folder
from gristmill.validators.accumulators import Accumulator, Fields
from gristmill.validators.inputs import Data, Shard
from gristmill.validators.passes import States
from gristmill.validators.plan import Key, Task
from gristmill.validators.rows import RowSet

VERSION = 1
"""To be raised whenever what an accumulator works out changes."""
FOLDER = "_work/validation"


def store_of(data: Data) -> StateStore | None:
    """The store beside a dataset, None for other data."""
    return None if data.dataset is None else StateStore(data.dataset.folder)


class StateStore:
    """One file a shard and accumulator: `_work/validation/<shard>/<accumulator>.npz`. Nothing in it is code; it may be deleted at any time."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def load(self, shard: Shard, tasks: Sequence[Task], first: int) -> States:
        """The states that are there; `first` is added to their row numbers."""
        found: States = {}
        if shard.key is None:
            return found
        there = {path for path, *_ in self._folder.list(f"{FOLDER}/{shard.key[:20]}")}
        for task in tasks:
            path = _path(shard, task.key)
            if path in there:
                state = task.make()
                try:
                    state.load(_decode(self._folder.read_bytes(path)), first)
                except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile, pa.ArrowException):
                    continue  # written by another version, or torn: worked out anew
                found[task.key] = state
        return found

    def save(self, shard: Shard, states: States, first: int) -> None:
        """Keeps the states of all rows of a shard, whose first row has the number `first`."""
        if shard.key is None:
            return
        for key, state in states.items():
            fields = state.save(first) if isinstance(state, Accumulator) else None
            if fields is not None:
                self._folder.write_atomic(_path(shard, key), _encode(fields))


def _path(shard: Shard, key: Key) -> str:
    assert shard.key is not None
    digest = hashlib.sha256(json.dumps([VERSION, *key]).encode()).hexdigest()[:20]
    return f"{FOLDER}/{shard.key[:20]}/{digest}.npz"


def _encode(fields: Fields) -> bytes:
    """Plain values as JSON, arrays as they are, sets of rows as their numbers."""
    plain: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, RowSet):
            arrays[f"rows.{name}"] = value.to_numpy()
        elif isinstance(value, pa.Array):
            sink = io.BytesIO()
            batch = pa.record_batch([value], names=["value"])
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_batch(batch)
            arrays[f"arrow.{name}"] = np.frombuffer(sink.getvalue(), np.uint8)
        elif isinstance(value, np.ndarray):
            arrays[f"array.{name}"] = value
        else:
            plain[name] = value
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, plain=np.frombuffer(json.dumps(plain).encode(), np.uint8), **arrays)
    return out.getvalue()


def _decode(content: bytes) -> Fields:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        fields = json.loads(file["plain"].tobytes())
        for key in file.files:
            kind, _, name = key.partition(".")
            if kind == "rows":
                fields[name] = RowSet()
                fields[name].add(file[key])
            elif kind == "arrow":
                with pa.ipc.open_stream(pa.BufferReader(file[key].tobytes())) as reader:
                    fields[name] = reader.read_all().column(0).combine_chunks()
            elif kind == "array":
                fields[name] = file[key]
    return fields
