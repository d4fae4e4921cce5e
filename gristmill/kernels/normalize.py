"""Text cleaned byte by byte: line breaks made one kind, control characters taken out. Rows with nothing to do are found in one fast scan."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from gristmill.kernels.buffers import Slices

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

PLAIN, NON_ASCII, TO_CLEAN = 0, 1, 2
"""What `scan` says of a row, as bits: it has bytes over 127; it may have line breaks or control characters to change."""


class Cleaned(NamedTuple):
    """The rows after cleaning, and for each how many line breaks were changed and how many characters taken out."""

    data: U8
    offsets: I64
    newlines: I64
    controls: I64


@njit(cache=True, nogil=True)
def scan(data, offsets, valid):  # type: ignore[no-untyped-def]
    """(rows,) uint8 of the bits above; 0 for a row that is ASCII without anything to change."""
    rows = len(valid)
    out = np.zeros(rows, np.uint8)
    for i in range(rows):
        if not valid[i]:
            continue
        high, control, wide = np.uint8(0), False, False
        for at in range(offsets[i], offsets[i + 1]):
            byte = data[at]
            high |= byte
            control |= (byte < 32 and byte != 10 and byte != 9) or byte == 127
            # U+0080-9F begin with C2, U+2028 and 2029 with E2 80, U+FEFF with EF BB: rows with these first bytes are looked at closely
            wide |= byte == 0xC2 or byte == 0xE2 or byte == 0xEF
        out[i] = (NON_ASCII if high >= 128 else 0) | (TO_CLEAN if control or wide else 0)
    return out


@njit(cache=True, nogil=True)
def _clean(data, offsets, flags):  # type: ignore[no-untyped-def]
    rows = len(flags)
    out = np.empty(offsets[rows] - offsets[0], np.uint8)
    ends = np.zeros(rows + 1, np.int64)
    newlines, controls = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    total = 0
    for i in range(rows):
        at, stop = offsets[i], offsets[i + 1]
        if not flags[i] & TO_CLEAN:
            out[total : total + stop - at] = data[at:stop]
            total += stop - at
            ends[i + 1] = total
            continue
        while at < stop:
            byte = data[at]
            second = data[at + 1] if at + 1 < stop else np.uint8(0)
            third = data[at + 2] if at + 2 < stop else np.uint8(0)
            if byte == 13:  # CR, CR LF
                out[total] = 10
                total += 1
                newlines[i] += 1
                at += 2 if second == 10 else 1
            elif (byte < 32 and byte != 10 and byte != 9) or byte == 127:
                controls[i] += 1
                at += 1
            elif byte == 0xC2 and 0x80 <= second < 0xA0:
                if second == 0x85:  # NEL
                    out[total] = 10
                    total += 1
                    newlines[i] += 1
                else:
                    controls[i] += 1
                at += 2
            elif byte == 0xE2 and second == 0x80 and (third == 0xA8 or third == 0xA9):  # line and paragraph separator
                out[total] = 10
                total += 1
                newlines[i] += 1
                at += 3
            elif byte == 0xEF and second == 0xBB and third == 0xBF:  # byte order mark
                controls[i] += 1
                at += 3
            else:
                out[total] = byte
                total += 1
                at += 1
        ends[i + 1] = total
    return out[:total], ends, newlines, controls


def clean(rows: Slices, flags: U8) -> Cleaned:
    """The rows with every line break as a line feed, and without control characters.

    Line breaks are CR LF, CR, NEL (U+0085), U+2028 and U+2029; control characters C0 and C1 but tab and line feed, DEL, and U+FEFF. `flags`
    are those of `scan`.
    """
    return Cleaned(*_clean(rows.data, rows.offsets, flags))
