"""Arrays of kept states, checked a block at a time when they are looked at: a large one costs only what is used of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from gristmill.errors import DamagedStateError

BLOCK = 1 << 14  # bytes that are checked together: more take less time to check, less is read for a small slice


class Parts(NamedTuple):
    """An array to keep so, a part at a time. shape: of a row."""

    parts: Iterable[npt.NDArray[Any]]
    dtype: npt.DTypeLike
    shape: tuple[int, ...] = ()
    block: int = BLOCK

    def array(self) -> npt.NDArray[Any]:
        """The whole."""
        return np.concatenate([np.zeros((0, *self.shape), self.dtype), *self.parts])

    def write(self, sink: IO[bytes]) -> tuple[int, npt.NDArray[np.uint64]]:
        """(bytes written, the XXH3 of each block)."""
        size, checks, state, room = 0, [], xxhash.xxh3_64(), self.block
        for part in self.parts:
            left = np.ascontiguousarray(part, self.dtype).reshape(-1).view(np.uint8).data
            size += sink.write(left)
            while left:
                state.update(left[:room])
                room, left = room - len(left[:room]), left[room:]
                if not room:
                    checks.append(state.intdigest())
                    state, room = xxhash.xxh3_64(), self.block
        if room < self.block:
            checks.append(state.intdigest())
        return size, np.array(checks, np.uint64)


class Checked:
    """(rows, ...) an array of `Parts` in a mapped file.

    Raises:
        DamagedStateError: a slice lies in a block that isn't what was written.
    """

    def __init__(
        self,
        content: Any,
        checks: npt.NDArray[np.uint64],
        block: int,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        path: str,
    ) -> None:
        self.dtype, self.shape, self._block = dtype, shape, block
        self._content, self._checks, self._path = content, checks, path
        self._bytes = memoryview(content)
        self._sound = np.zeros(len(checks), bool)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        start, stop, _ = rows.indices(len(self))
        size = self.dtype.itemsize * math.prod(self.shape[1:])
        first, last = start * size, max(start, stop) * size
        size = self._block
        blocks = slice(first // size, -(-last // size))
        if not self._sound[blocks].all():
            starts = range(blocks.start * size, blocks.stop * size, size)
            found = [xxhash.xxh3_64_intdigest(self._bytes[start : start + size]) for start in starts]
            if found != self._checks[blocks].tolist():
                raise DamagedStateError(f"'{self._path}' is damaged", path=self._path)
            self._sound[blocks] = True
        part: npt.NDArray[Any] = self._content[first:last].view(self.dtype).reshape(-1, *self.shape[1:])
        return part
