"""Memory of batches that is used again: the system hands out fresh memory a page of 4 kB at a time, which costs more than filling it."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

SMALL = 1 << 16  # bytes; the allocator keeps memory of this size itself
ROUNDS = 4


class Buffers:
    """Arrays whose memory comes back by itself when nobody holds them any more, no tensor and no part of them either. May be used by several threads.

    most: bytes that are kept for later, or ROUNDS of the largest arrays if those are more: batches come back in bursts.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._largest = 0
        self._lock = threading.Lock()
        self._returned: deque[npt.NDArray[np.uint8]] = (
            deque()
        )  # filled wherever Python frees an array: without the lock
        self._free: list[npt.NDArray[np.uint8]] = []

    def take(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array with any content."""
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        size = count * kind.itemsize
        if size < SMALL or kind.hasobject:
            return np.empty(shape, kind)
        memory = self._find(size)
        # over a memoryview, so that whatever is made of the array refers to the array, not to the memory under it
        array = np.frombuffer(memory.data, kind, count)
        weakref.finalize(array, self._returned.append, memory).atexit = False
        return array.reshape(shape)

    def _find(self, size: int) -> npt.NDArray[np.uint8]:
        """The smallest free memory that is large enough and not more than twice as large, or new one."""
        with self._lock:
            self._largest = max(self._largest, size)
            while self._returned:
                self._free.append(self._returned.popleft())
            fitting = [i for i, memory in enumerate(self._free) if size <= len(memory) <= 2 * size]
            found = self._free.pop(min(fitting, key=lambda i: len(self._free[i]))) if fitting else None
            while sum(map(len, self._free)) > max(self._most, ROUNDS * self._largest):
                self._free.pop(0)
        return np.empty(size, np.uint8) if found is None else found
