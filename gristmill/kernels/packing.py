"""Pieces of given sizes into bins of one capacity, and the copying of them there."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from gristmill.kernels.buffers import read_only

I64 = npt.NDArray[np.int64]
WORD = 64


def best_fit(sizes: I64, capacity: int) -> I64:
    """(pieces,) the bin of each piece: largest first, each into the fullest bin that has room (best-fit decreasing).

    sizes: from 1 to capacity. Ties go by place, so the result is a function of the sizes alone.
    """
    order = np.argsort(-sizes, kind="stable")
    bins = np.empty(len(sizes), np.int64)
    bins[order] = _best_fit(read_only(sizes[order]), capacity)
    return bins


def copy_pieces(values: npt.NDArray[Any], starts: I64, sizes: I64, targets: I64, out: npt.NDArray[Any]) -> None:
    """Copies values[starts[i] : starts[i] + sizes[i]] to out[targets[i] :] for every i."""
    plain = np.dtype(f"u{values.dtype.itemsize}")
    _copy(read_only(values.view(plain)), read_only(starts), read_only(sizes), read_only(targets), out.view(plain))


def number_pieces(
    sizes: I64, targets: I64, marks: I64, places: npt.NDArray[np.int32], owners: npt.NDArray[np.int32]
) -> None:
    """For every piece, places[targets[i] :] = 0, 1, 2, ... and owners[targets[i] :] = marks[i]."""
    _number(read_only(sizes), read_only(targets), read_only(marks), places, owners)


@njit(cache=True, nogil=True)
def _best_fit(sizes, capacity):  # type: ignore[no-untyped-def]
    words = np.zeros(capacity // WORD + 1, np.uint64)  # a bit for each amount of room that some bin has
    newest = np.full(capacity + 1, -1, np.int64)  # room -> the bin that came to it last
    below = np.full(len(sizes), -1, np.int64)  # bin -> the one under it with the same room
    bins = np.empty(len(sizes), np.int64)
    count = 0
    for i in range(len(sizes)):
        room = _next_bit(words, sizes[i])
        if room < 0:
            chosen, room = count, capacity
            count += 1
        else:
            chosen = newest[room]
            newest[room] = below[chosen]
            if newest[room] < 0:
                words[room // WORD] &= ~(np.uint64(1) << np.uint64(room % WORD))
        bins[i] = chosen
        left = room - sizes[i]
        if left:
            below[chosen] = newest[left]
            newest[left] = chosen
            words[left // WORD] |= np.uint64(1) << np.uint64(left % WORD)
    return bins


@njit(cache=True, nogil=True)
def _next_bit(words, start):  # type: ignore[no-untyped-def]
    """The first bit set from a place on; -1 if there is none."""
    word = start // WORD
    if word >= len(words):
        return -1
    bits = words[word] >> np.uint64(start % WORD)
    at = start
    while bits == 0:
        word += 1
        if word >= len(words):
            return -1
        bits, at = words[word], word * WORD
    while bits & np.uint64(1) == 0:
        bits >>= np.uint64(1)
        at += 1
    return at


@njit(cache=True, nogil=True)
def _copy(values, starts, sizes, targets, out):  # type: ignore[no-untyped-def]
    for i in range(len(starts)):
        for k in range(sizes[i]):
            out[targets[i] + k] = values[starts[i] + k]


@njit(cache=True, nogil=True)
def _number(sizes, targets, marks, places, owners):  # type: ignore[no-untyped-def]
    for i in range(len(sizes)):
        for k in range(sizes[i]):
            places[targets[i] + k] = k
            owners[targets[i] + k] = marks[i]
