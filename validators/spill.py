"""What a validation may hold of hashes and numbers, all its states together; the largest go to a temporary file when it is more."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gristmill.errors import RunError
from gristmill.validators.checked import Checked

DEFAULT_MEMORY = 1 << 28


class Spillable(Protocol):
    """A state with arrays that can move to disk."""

    def spill(self) -> None:
        """Moves them; from then on none are in memory."""


class OnDisk:
    """(rows, ...) an array in a temporary file; a slice is read when it is asked for."""

    def __init__(self, file: int, place: int, dtype: np.dtype[Any], shape: tuple[int, ...], owner: Spill) -> None:
        self._file, self._place, self._owner = file, place, owner  # the file is open while an array is in it
        self.dtype, self.shape = dtype, shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        start, stop, _ = rows.indices(len(self))
        found = np.empty((max(stop - start, 0), *self.shape[1:]), self.dtype)
        row = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        view = found.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(view):
            count = os.preadv(self._file, [view[done:]], self._place + start * row + done)
            if not count:
                raise RunError("a temporary file of the validation was cut short")
            done += count
        return found


class Mapped(np.ndarray):
    """An array in a mapped file, and what is cut out of one."""


Array = npt.NDArray[Any] | OnDisk | Checked


def held(array: Array | None) -> int:
    """Bytes in memory: 0 on disk and in a mapped file."""
    return array.nbytes if isinstance(array, np.ndarray) and not isinstance(array, Mapped) else 0


class Spill:
    """limit: bytes in memory. folder: where the temporary file lies, the system's own (TMPDIR) for None; it has no name and goes with the process."""

    def __init__(self, limit: int = DEFAULT_MEMORY, folder: str | None = None) -> None:
        self.limit = limit
        self._folder = folder
        self._held: dict[Spillable, int] = {}
        self._total = 0
        self._file: Any = None
        self._end = 0

    def hold(self, state: Spillable, size: int) -> None:
        """Notes how many bytes a state holds now; over the limit, the largest go to disk."""
        self._note(state, size)
        while self._total > self.limit:
            largest = max(self._held, key=lambda each: self._held[each])
            largest.spill()
            self._note(largest, 0)

    def _note(self, state: Spillable, size: int) -> None:
        self._total += size - self._held.pop(state, 0)
        if size:
            self._held[state] = size

    def store(self, parts: Iterable[npt.NDArray[Any]], dtype: npt.DTypeLike, width: tuple[int, ...] = ()) -> OnDisk:
        """The parts, one after another, on disk. width: the shape of a row.

        Raises:
            RunError: there is no room.
        """
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="gristmill-validate-", dir=self._folder, buffering=0)  # noqa: SIM115  open as long as its arrays
        place, rows, dtype = self._end, 0, np.dtype(dtype)
        try:
            for part in parts:
                rows += len(part)
                left = np.ascontiguousarray(part, dtype).reshape(-1).view(np.uint8).data
                while left:
                    count = os.pwrite(self._file.fileno(), left, self._end)
                    self._end, left = self._end + count, left[count:]
        except OSError as error:
            text = f"temporary files of the validation: {error.strerror} in '{self._folder or tempfile.gettempdir()}'"
            raise RunError(f"{text}; make room, set TMPDIR to another disk, or allow more memory") from error
        return OnDisk(self._file.fileno(), place, dtype, (rows, *width), self)
