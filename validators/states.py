"""States of shards, kept beside their dataset by (sha256 of the shard, accumulator): a shard that has one isn't read again."""

from __future__ import annotations

import hashlib
import io
import json
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

VERSION = 2
"""To be raised whenever what an accumulator works out changes."""
FOLDER = "_work/validation"
ALIGNED = 64


def store_of(data: Data) -> StateStore | None:
    """The store beside a dataset, None for other data."""
    return None if data.dataset is None else StateStore(data.dataset.folder)


class StateStore:
    """One file a shard and accumulator: `_work/validation/<shard>/<accumulator>.state`. Nothing in it is code; it may be deleted at any time."""

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
                except (ValueError, KeyError, TypeError, OSError, pa.ArrowException):
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
    return f"{FOLDER}/{shard.key[:20]}/{digest}.state"


def _encode(fields: Fields) -> bytes:
    """The length of a JSON header, the header with plain values and the places of arrays, and the arrays as they are, each at a multiple of 64."""
    plain: dict[str, Any] = {}
    arrays: dict[str, tuple[str, Any]] = {}
    for name, value in fields.items():
        if isinstance(value, RowSet):
            arrays[name] = "rows", value.to_numpy()
        elif isinstance(value, (pa.Array, pa.Table)):
            table = value if isinstance(value, pa.Table) else pa.table({"value": value})
            sink = io.BytesIO()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table.combine_chunks())
            kind = "table" if table is value else "arrow"
            arrays[name] = kind, np.frombuffer(sink.getvalue(), np.uint8)
        elif isinstance(value, np.ndarray):
            arrays[name] = "array", np.ascontiguousarray(value)
        else:
            plain[name] = value
    places, end = {}, 0
    for name, (kind, array) in arrays.items():
        places[name] = [kind, array.dtype.str, array.shape, end]
        end += -(-array.nbytes // ALIGNED) * ALIGNED
    header = json.dumps({"plain": plain, "arrays": places, "bytes": end}).encode()
    header = header.ljust(-(-(len(header) + 8) // ALIGNED) * ALIGNED - 8)
    out = io.BytesIO()
    out.write(len(header).to_bytes(8, "little") + header)
    for _, array in arrays.values():
        out.write(memoryview(array.reshape(-1)).cast("B") if array.size else b"")
        out.write(bytes(-array.nbytes % ALIGNED))
    return out.getvalue()


def _decode(content: bytes) -> Fields:
    """The inverse; arrays are views of the content.

    Raises:
        ValueError, KeyError, TypeError: not such a state, or a part of one.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    if len(content) != start + header["bytes"]:
        raise ValueError("a part of a state")
    fields: Fields = header["plain"]
    for name, (kind, dtype, shape, place) in header["arrays"].items():
        array = np.frombuffer(content, np.dtype(dtype), int(np.prod(shape)), start + place).reshape(shape)
        if kind == "rows":
            fields[name] = RowSet()
            fields[name].add(array)
        elif kind in ("arrow", "table"):
            with pa.ipc.open_stream(pa.py_buffer(array)) as reader:
                table = reader.read_all()
            fields[name] = table if kind == "table" else table.column(0).combine_chunks()
        else:
            fields[name] = array
    return fields
