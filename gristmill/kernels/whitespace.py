"""White space made one: runs of it become one space and none is left at the ends."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from gristmill.kernels.buffers import Slices
from gristmill.kernels.unicode import CLASS, NEWLINE, SPACE, decode


@njit(cache=True, nogil=True)
def _collapse(data, offsets, valid, kinds):  # type: ignore[no-untyped-def]
    rows = len(valid)
    out = np.empty(offsets[rows] - offsets[0] + 1, np.uint8)
    ends = np.zeros(rows + 1, np.int64)
    total = 0
    for i in range(rows):
        start, blank = total, 1  # blank: what was written last is a space, or nothing
        at, stop = offsets[i], offsets[i + 1] if valid[i] else offsets[i]
        while at < stop:
            byte = data[at]
            if byte < 128:  # without a branch at the ends of words, which no processor foresees
                kind = kinds[byte]
                white = int(kind == SPACE) | int(kind == NEWLINE)
                out[total] = np.uint8(32) if white else byte
                total += 1 - (white & blank)
                blank = white
                at += 1
                continue
            code, width = decode(data, at, stop)
            if kinds[code] == SPACE or kinds[code] == NEWLINE:
                out[total] = 32
                total += 1 - blank
                blank = 1
            else:
                for k in range(width):
                    out[total + k] = data[at + k]
                total += width
                blank = 0
            at += width
        ends[i + 1] = total = total - int(blank and total > start)
    return out[:total], ends


def collapse(rows: Slices) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """(data, offsets) of the rows with every run of Unicode white space and line breaks as one space, none at either end; null rows empty."""
    return _collapse(rows.data, rows.offsets, rows.valid, CLASS)
