"""Where the records of CSV text begin and end: quotes may hold line ends and delimiters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

I64 = npt.NDArray[np.int64]
LF, CR = 10, 13


class CsvRecords(NamedTuple):
    """starts, stops (records,): byte ranges without the line end; fields (records,): how many fields each has.

    rest: where the record begins that has no end yet; the length of the data if none. open: whether that one ends inside quotes.
    """

    starts: I64
    stops: I64
    fields: I64
    rest: int
    open: bool


@njit(cache=True, nogil=True)
def _scan(data, first, delimiter, quote, last, starts, stops, fields):  # type: ignore[no-untyped-def]
    count, start, found = 0, first, 1
    at_start, inside = True, False
    at, size = first, len(data)
    while at < size:
        code = data[at]
        if inside:
            if code == quote:
                if at + 1 < size and data[at + 1] == quote:
                    at += 1
                else:
                    inside = False
        elif code == quote and at_start:
            inside, at_start = True, False
        elif code == delimiter:
            found += 1
            at_start = True
        elif code == LF or code == CR:
            if code == CR and at + 1 == size and not last:
                break  # the line feed that belongs to it may come
            starts[count], stops[count], fields[count] = start, at, found
            count += 1
            at += code == CR and at + 1 < size and data[at + 1] == LF
            start, found, at_start = at + 1, 1, True
        else:
            at_start = False
        at += 1
    if last and start < size and not inside:
        starts[count], stops[count], fields[count] = start, size, found
        count += 1
        start = size
    return count, start, inside


def csv_records(
    data: bytes, first: int = 0, *, delimiter: str = ",", quote: str = '"', last: bool = True
) -> CsvRecords:
    """The records from byte `first` on. last: the data ends here, so that a record needs no line end.

    A quote counts at the start of a field only, and two of them inside quotes are one of the text. Records end at LF, CR LF or CR.
    """
    array = np.frombuffer(data, np.uint8)
    most = int(np.count_nonzero(array[first:] == LF) + np.count_nonzero(array[first:] == CR)) + 1
    starts, stops, fields = (np.empty(most, np.int64) for _ in range(3))
    count, rest, inside = _scan(array, first, ord(delimiter), ord(quote) if quote else -1, last, starts, stops, fields)
    return CsvRecords(starts[:count], stops[:count], fields[:count], int(rest), bool(inside))
