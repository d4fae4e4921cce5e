"""Runs a finite automaton over each row of a UTF-8 buffer: in which state it ends, in time linear in the bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from gristmill.kernels.buffers import U8, Slices, read_only

ACCEPT, REJECT, FOREIGN, START = 0, 1, 2, 3
"""The first states. No symbol leaves the first three; FOREIGN is that of a row with a byte over 127, for `run`, or of a class UNKNOWN, for `run_wide`."""
UNKNOWN = 255
"""The class of a code point that has not been classified."""
LAST_NEWLINE = 255
"""The symbol of a newline that ends the row: a byte that UTF-8 doesn't have."""
LANES_BELOW = (
    128  # rows shorter than so many bytes are run four at a time, to the end; longer ones alone, until they are decided
)


@njit(inline="always")
def _walk(data, at, stop, state, table):  # type: ignore[no-untyped-def]
    while at < stop and state > np.uint64(FOREIGN << 8):
        state = np.uint64(table[state + np.uint64(data[at])])
        at += np.uint64(1)
    return state


@njit(inline="always")
def _last(data, start, stop, state, table):  # type: ignore[no-untyped-def]
    if start == stop:
        return state
    byte = data[stop - np.uint64(1)]
    return np.uint64(table[state + np.uint64(LAST_NEWLINE if byte == 10 else byte)])


@njit(cache=True, nogil=True)
def _run(data, offsets, table, out):  # type: ignore[no-untyped-def]
    """State s is written s * 256 in the table, so that it and a byte added are a place in it."""
    n = len(offsets) - 1
    one, start = np.uint64(1), np.uint64(START << 8)
    i = 0
    while i < n:
        a0, a1 = np.uint64(offsets[i]), np.uint64(offsets[i + 1])
        if i + 4 <= n:
            a2, a3, a4 = np.uint64(offsets[i + 2]), np.uint64(offsets[i + 3]), np.uint64(offsets[i + 4])
            short = min(min(a1 - a0, a2 - a1), min(a3 - a2, a4 - a3))  # noqa: PLW3301  numba compiles pairs best
            if short > 0 and max(max(a1 - a0, a2 - a1), max(a3 - a2, a4 - a3)) < LANES_BELOW:  # noqa: PLW3301
                s0, s1, s2, s3 = start, start, start, start
                for step in range(short - one):
                    k = np.uint64(step)
                    s0 = np.uint64(table[s0 + np.uint64(data[a0 + k])])
                    s1 = np.uint64(table[s1 + np.uint64(data[a1 + k])])
                    s2 = np.uint64(table[s2 + np.uint64(data[a2 + k])])
                    s3 = np.uint64(table[s3 + np.uint64(data[a3 + k])])
                k = short - one
                s0 = _last(data, a0, a1, _walk(data, a0 + k, a1 - one, s0, table), table)
                s1 = _last(data, a1, a2, _walk(data, a1 + k, a2 - one, s1, table), table)
                s2 = _last(data, a2, a3, _walk(data, a2 + k, a3 - one, s2, table), table)
                s3 = _last(data, a3, a4, _walk(data, a3 + k, a4 - one, s3, table), table)
                out[i], out[i + 1], out[i + 2], out[i + 3] = s0 >> 8, s1 >> 8, s2 >> 8, s3 >> 8
                i += 4
                continue
        if a0 == a1:
            out[i] = START
        else:
            out[i] = _last(data, a0, a1, _walk(data, a0, a1 - one, start, table), table) >> 8
        i += 1


@njit(cache=True, nogil=True)
def _run_wide(data, offsets, rows, class_of, last_newline, table, out):  # type: ignore[no-untyped-def]
    for row in rows:
        at, stop = offsets[row], offsets[row + 1]
        last = stop - 1
        state = np.int64(START)
        while at < stop and state > FOREIGN:
            byte = np.int64(data[at])
            point, size = byte, 1
            if byte >= 0xF0:
                point, size = byte & 0x07, 4
            elif byte >= 0xE0:
                point, size = byte & 0x0F, 3
            elif byte >= 0x80:
                point, size = byte & 0x1F, 2
            for k in range(1, size):
                point = (point << 6) | np.int64(data[at + k] & 0x3F)
            kind = np.int64(class_of[point])
            if byte == 10 and at == last:
                kind = np.int64(last_newline)
            at += size
            state = np.int64(FOREIGN) if kind == UNKNOWN else np.int64(table[state, kind])
        out[row] = state


def run(rows: Slices, table: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint16]:
    """(rows,) the state in which each row ends, FOREIGN if it isn't ASCII; that of a null row means nothing.

    table (states, 256) uint32: the next state by byte, and by LAST_NEWLINE; bytes over 127 lead to FOREIGN.
    """
    out = np.empty(rows.rows, np.uint16)
    _run(rows.data, rows.offsets, read_only((table << np.uint32(8)).reshape(-1)), out)
    return out


def run_wide(
    rows: Slices,
    which: npt.NDArray[np.int64],
    class_of: U8,
    last_newline: int,
    table: npt.NDArray[np.uint16],
    out: npt.NDArray[np.uint16],
) -> None:
    """Puts into `out` the state in which each of these rows ends, whatever its characters; FOREIGN where one is of class UNKNOWN.

    class_of (0x110000,): the class of each code point; last_newline: that of a newline which ends the row. table (states, classes): the next state.
    """
    _run_wide(rows.data, rows.offsets, read_only(which), read_only(class_of), last_newline, read_only(table), out)
