"""Runs a finite automaton over each row of a UTF-8 buffer: whether it accepts, in time linear in the bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from gristmill.kernels.buffers import U8, Slices, read_only

ACCEPT, REJECT = 0, 1
"""Two states that no symbol leaves. The start is state 2."""
START = 2
UNKNOWN = 255
"""The class of a code point that has not been classified."""


@njit(cache=True, nogil=True)
def _run(data, offsets, valid, ascii_class, class_of, last_newline, table, ends, skip, out):  # type: ignore[no-untyped-def]
    """The number of rows that could not be decided: a code point of unknown class."""
    width = np.int64(table.shape[1])
    flat = table.reshape(-1)
    unknown = 0
    for i in range(len(valid)):
        if not valid[i]:
            out[i] = skip
            continue
        at, stop = offsets[i], offsets[i + 1]
        last = stop - 1
        state = np.int64(START)
        while at < stop:
            byte = data[at]
            if byte < 128:
                kind = np.int64(ascii_class[byte])
                if byte == 10 and at == last:
                    kind = np.int64(last_newline)
                at += 1
            else:
                if byte < 0xE0:
                    point, size = np.int64(byte & 0x1F), 2
                elif byte < 0xF0:
                    point, size = np.int64(byte & 0x0F), 3
                else:
                    point, size = np.int64(byte & 0x07), 4
                for k in range(1, size):
                    point = (point << 6) | np.int64(data[at + k] & 0x3F)
                at += size
                kind = np.int64(class_of[point])
                if kind == UNKNOWN:
                    unknown += 1
                    state = np.int64(REJECT)
                    break
            state = np.int64(flat[state * width + kind])
            if state <= REJECT:
                break
        out[i] = ends[state]
    return unknown


def run(
    rows: Slices,
    class_of: U8,
    last_newline: int,
    table: npt.NDArray[np.uint16],
    ends: U8,
    *,
    null: int = 0,
) -> tuple[U8, int]:
    """((rows,) uint8: 1 where the automaton accepts, `null` for null rows; how many rows hold a code point of class UNKNOWN, whose answer is wrong).

    class_of (0x110000,): the class of each code point. last_newline: that of a newline which ends the row. table (states, classes): the next state.
    ends (states,): whether a row that ends in the state is accepted.
    """
    out = np.empty(rows.rows, np.uint8)
    unknown = _run(
        rows.data,
        rows.offsets,
        read_only(rows.valid),
        read_only(class_of[:128]),
        read_only(class_of),
        last_newline,
        read_only(table),
        read_only(ends),
        null,
        out,
    )
    return out, int(unknown)
