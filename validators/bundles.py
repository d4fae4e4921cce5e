"""Several states in one file: the arrays as they are, read where they are used, and JSON with plain values and the places of arrays."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from gristmill.errors import DamagedStateError, InputError, RunError
from gristmill.storage.dataset import Dataset
from gristmill.storage.folder import Folder
from gristmill.storage.gc import STATES
from gristmill.validators.accumulators import Fields
from gristmill.validators.checked import Checked, Parts
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
TAIL = 16  # bytes behind the header
log = logging.getLogger("gristmill")
SMALL = 1 << 16  # files that are read rather than mapped: there may be more of them than a process may map


def write(
    dataset: Dataset,
    place: str,
    states: Iterable[tuple[str, Fields]],
    facts: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> bool:
    """Keeps states in a new file of a folder, one after another, so that one is in memory at a time; no file for no states.

    facts: plain values about all of them. name: of the file; told from the names of the states for None. Where nothing can be kept (a dataset
    that may only be read, a full disk) it says so and is False: the next validation works it out anew. Of a dataset of which rows were erased
    meanwhile nothing stays: an erasure leaves its mark before it removes files, and it is looked for after the file was written.
    """
    folder, states = dataset.folder, iter(states)
    first = next(states, None)
    if first is None:
        return True
    try:
        with folder.writer(f"{place}/{name or 'new'}.state", sync=False) as target:
            names = _encode(target.sink, itertools.chain([first], states), {**(facts or {}), "place": place})
            target.rename(f"{place}/{name or digest(sorted(names))}.state")
        if dataset.is_erased():
            folder.delete(target.path)
            return False
    except DamagedStateError:  # of what was to be kept again
        raise
    except UNAVAILABLE as error:
        log.warning("nothing is kept for the next validation: %s", error)
        return False
    return True


def _encode(sink: IO[bytes], states: Iterable[tuple[str, Fields]], facts: Mapping[str, Any]) -> list[str]:
    """Writes each array at a multiple of 64, with the checks of its blocks behind it where it is in parts, then where they are and the plain values as JSON, its length and its hash; gives the names."""
    places: dict[str, Any] = {}
    end = 0
    for name, fields in states:
        plain: dict[str, Any] = {}
        placed: dict[str, Any] = {}
        for field, value in fields.items():
            if isinstance(value, Parts):
                size, checks = value.write(sink)
                sink.write(bytes(-size % ALIGNED))
                check = [size, value.block, _check(checks)]
                placed[field] = ["parts", np.dtype(value.dtype).str, value.shape, end, check]
                end += size + -size % ALIGNED
                end += sink.write(checks.data) + sink.write(bytes(-checks.nbytes % ALIGNED))
                continue
            kind, array = _as_array(value)
            if array is None:
                plain[field] = value
                continue
            placed[field] = [kind, array.dtype.str, array.shape, end, _check(array)]
            end += sink.write(array.reshape(-1).view(np.uint8).data)
            end += sink.write(bytes(-array.nbytes % ALIGNED))
        places[name] = [plain, placed]
    header = json.dumps({"facts": facts, "states": places}).encode()
    sink.write(header + len(header).to_bytes(8, "little") + xxhash.xxh3_64_digest(header))
    return list(places)


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
    """A file of `write`. Arrays of a larger local one are mapped, without an open file; what isn't looked at isn't read.

    Raises:
        UNREADABLE: not such a file, a part of one, one that was written in another folder, or (here, or when a state is asked for) a damaged one.
    """

    def __init__(self, folder: Folder, path: str) -> None:
        self.path = path
        if folder.remote or os.path.getsize(folder.url(path)) <= SMALL:
            self._content = np.frombuffer(folder.read_bytes(path), np.uint8)
        else:
            with pa.memory_map(folder.url(path)) as file:
                self._content = np.frombuffer(file.read_buffer(), np.uint8).view(Mapped)
        tail = self._content[-TAIL:].tobytes()
        text = self._content[:-TAIL][-int.from_bytes(tail[:8], "little") :].tobytes()
        if xxhash.xxh3_64_digest(text) != tail[8:]:
            raise ValueError("not a state, or a part of one")
        self.mark = tail[8:].hex()  # of all that is in it: the header has the checks of the arrays
        header = json.loads(text)
        self.facts: dict[str, Any] = header["facts"]
        self._states: dict[str, Any] = header["states"]
        if path.rpartition("/")[0] != self.facts["place"]:
            raise ValueError("of another shard: it was moved or copied here")

    @property
    def names(self) -> set[str]:
        """Of its states."""
        return set(self._states)

    def plain(self, name: str) -> Fields:
        """Those fields of one of its states that aren't arrays."""
        return dict(self._states[name][0])

    def fields(self, name: str) -> Fields:
        """One of its states; arrays are views of a mapped file, copies of what was read."""
        plain, placed = self._states[name]
        fields: Fields = dict(plain)
        for field, (kind, dtype, shape, place, check) in placed.items():
            if kind == "parts":
                fields[field] = self._parts(np.dtype(dtype), shape, place, *check)
                continue
            size = np.dtype(dtype).itemsize * math.prod(shape)
            array = self._content[place : place + size].view(dtype).reshape(shape)
            if _check(array) != check:
                raise ValueError("a damaged state")
            if not isinstance(array, Mapped):
                array = array.copy()  # what isn't used of the file goes
            if kind == "rows":
                fields[field] = RowSet.unpacked(array)
            elif kind in ("arrow", "table"):
                with pa.ipc.open_stream(pa.py_buffer(np.asarray(array))) as reader:
                    table = reader.read_all()
                fields[field] = table if kind == "table" else table.column(0).combine_chunks()
            else:
                fields[field] = array
        return fields

    def _parts(self, dtype: np.dtype[Any], shape: list[int], place: int, size: int, block: int, check: str) -> Any:
        """An array that is checked where it is used; at once where it is in memory."""
        at = place + size + -size % ALIGNED
        checks = self._content[at : at + 8 * -(-size // block)].view(np.uint64)
        if _check(checks) != check:
            raise ValueError("a damaged state")
        rows = size // (dtype.itemsize * math.prod(shape))
        array = Checked(self._content[place : place + size], checks, block, dtype, (rows, *shape), self.path)
        return array if isinstance(self._content, Mapped) else array[:].copy()


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


def keep(dataset: Dataset, shard: Shard, name: str, fields: Fields) -> bool:
    """Keeps one state of a shard under a name, as `write` does."""
    return shard.key is None or write(dataset, place_of(shard), [(name, fields)], name=name)


def remove(folder: Folder, path: str) -> bool:
    """Removes a file, if that may be done; whether it was."""
    try:
        folder.delete(path)
    except UNAVAILABLE as error:
        log.warning("'%s' is of no use any more, but can't be removed: %s", folder.url(path), error)
        return False
    return True
