"""Several states in one file: a JSON header with plain values and the places of arrays, and the arrays as they are, read where they are used."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from gristmill.errors import InputError, RunError
from gristmill.storage.folder import Folder
from gristmill.storage.gc import STATES
from gristmill.validators.accumulators import Fields
from gristmill.validators.inputs import Shard
from gristmill.validators.rows import RowSet
from gristmill.validators.spill import Mapped

FOLDER = STATES.rstrip("/")
UNREADABLE = (
    ValueError,
    LookupError,
    TypeError,
    OSError,
    pa.ArrowException,
)  # what a file of another version, a torn or a damaged one raises
UNAVAILABLE = (
    InputError,
    RunError,
    OSError,
)  # what a folder answers that may not be written, is full or is out of reach
ALIGNED = 64
START = 16  # bytes before the header
log = logging.getLogger("gristmill")
SMALL = 1 << 16  # files that are read rather than mapped: there may be more of them than a process may map


def encode(states: Mapping[str, Fields], facts: Mapping[str, Any]) -> bytes:
    """The length of the header and its hash, the header, and each array at a multiple of 64. facts: plain values about all of them."""
    arrays: list[npt.NDArray[Any]] = []
    places: dict[str, Any] = {}
    end = 0
    for name, fields in states.items():
        plain: dict[str, Any] = {}
        placed: dict[str, Any] = {}
        for field, value in fields.items():
            kind, array = _as_array(value)
            if array is None:
                plain[field] = value
                continue
            placed[field] = [kind, array.dtype.str, array.shape, end, _check(array)]
            arrays.append(array)
            end += -(-array.nbytes // ALIGNED) * ALIGNED
        places[name] = [plain, placed]
    header = json.dumps({"facts": facts, "states": places, "bytes": end}).encode()
    header = header.ljust(-(-(len(header) + START) // ALIGNED) * ALIGNED - START)
    out = io.BytesIO()
    out.write(len(header).to_bytes(8, "little") + xxhash.xxh3_64_digest(header) + header)
    for array in arrays:
        out.write(array.reshape(-1).view(np.uint8).data)
        out.write(bytes(-array.nbytes % ALIGNED))
    return out.getvalue()


def _as_array(value: Any) -> tuple[str, npt.NDArray[Any] | None]:
    if isinstance(value, RowSet):
        return "rows", value.packed()
    if isinstance(value, (pa.Array, pa.Table)):
        table = value if isinstance(value, pa.Table) else pa.table({"value": value})
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        return "table" if table is value else "arrow", np.frombuffer(sink.getvalue(), np.uint8)
    return ("array", np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else ("", None)


class Bundle:
    """A file of `encode`. Arrays of a larger local one are mapped, without an open file; what isn't looked at isn't read.

    Raises:
        UNREADABLE: not such a file, a part of one, or (here, or when a state is asked for) a damaged one.
    """

    def __init__(self, folder: Folder, path: str) -> None:
        if folder.remote or os.path.getsize(folder.url(path)) <= SMALL:
            self._content = np.frombuffer(folder.read_bytes(path), np.uint8)
        else:
            with pa.memory_map(folder.url(path)) as file:
                self._content = np.frombuffer(file.read_buffer(), np.uint8).view(Mapped)
        self._start = START + int.from_bytes(self._content[:8].tobytes(), "little")
        text = self._content[START : self._start].tobytes()
        if xxhash.xxh3_64_digest(text) != self._content[8:START].tobytes():
            raise ValueError("not a state")
        header = json.loads(text)
        if len(self._content) != self._start + header["bytes"]:
            raise ValueError("a part of a state")
        self.facts: dict[str, Any] = header["facts"]
        self._states: dict[str, Any] = header["states"]

    @property
    def names(self) -> set[str]:
        """Of its states."""
        return set(self._states)

    def fields(self, name: str) -> Fields:
        """One of its states; arrays are views of the file."""
        plain, placed = self._states[name]
        fields: Fields = dict(plain)
        for field, (kind, dtype, shape, place, check) in placed.items():
            size = np.dtype(dtype).itemsize * math.prod(shape)
            at = self._start + place
            array = self._content[at : at + size].view(dtype).reshape(shape)
            if _check(array) != check:
                raise ValueError("a damaged state")
            if kind == "rows":
                fields[field] = RowSet.unpacked(array)
            elif kind in ("arrow", "table"):
                with pa.ipc.open_stream(pa.py_buffer(np.asarray(array))) as reader:
                    table = reader.read_all()
                fields[field] = table if kind == "table" else table.column(0).combine_chunks()
            else:
                fields[field] = array
        return fields


def _check(array: npt.NDArray[Any]) -> str:
    return xxhash.xxh3_64_hexdigest(array.reshape(-1).view(np.uint8).data)


def place_of(shard: Shard) -> str:
    """The folder, in that of a dataset, of what is known of one of its shards."""
    assert shard.key is not None
    return f"{FOLDER}/{shard.key[:20]}"


def digest(what: Any) -> str:
    """A name for plain values."""
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:20]


def bundles(folder: Folder, place: str) -> Iterator[Bundle]:
    """The files of a folder that can be read; the others are worked out anew."""
    for path in listed(folder, place):
        with contextlib.suppress(*UNREADABLE):
            yield Bundle(folder, path)


def listed(folder: Folder, place: str) -> list[str]:
    """The files of a folder, newest first; none, and a word about it, where it may not be looked at."""
    try:
        found = [(changed, path) for path, _, changed in folder.list(place) if path.endswith(".state")]
    except UNAVAILABLE as error:
        log.warning("what is kept of earlier validations can't be used: %s", error)
        return []
    return [path for _, path in sorted(found, reverse=True)]


def recall(folder: Folder, shard: Shard, name: str) -> Fields | None:
    """What `keep` kept of a shard under a name."""
    if shard.key is None:
        return None
    with contextlib.suppress(*UNREADABLE):
        return Bundle(folder, f"{place_of(shard)}/{name}.state").fields(name)
    return None


def keep(folder: Folder, shard: Shard, name: str, fields: Fields) -> None:
    """Keeps one state of a shard under a name."""
    if shard.key is not None:
        write(folder, f"{place_of(shard)}/{name}.state", encode({name: fields}, {}))


def write(folder: Folder, path: str, content: bytes) -> None:
    """Keeps a file; where that can't be done (a dataset that may only be read, a full disk) it says so and goes on: the next validation works
    it out anew.
    """
    try:
        folder.write_atomic(path, content)
    except UNAVAILABLE as error:
        log.warning("nothing is kept for the next validation: %s", error)


def remove(folder: Folder, path: str) -> None:
    """Removes a file, if that may be done."""
    try:
        folder.delete(path)
    except UNAVAILABLE as error:
        log.warning("'%s' is of no use any more, but can't be removed: %s", folder.url(path), error)
