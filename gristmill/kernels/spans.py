"""Many small parts of files read into one array, without a call of Python for each."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from gristmill.kernels.buffers import read_only
from gristmill.kernels.native import pread

I64 = npt.NDArray[np.int64]


def read_spans(
    paths: Iterable[str | os.PathLike[str]], file: I64, at: I64, sizes: I64, out: npt.NDArray[Any], starts: I64
) -> None:
    """Reads `sizes[k]` bytes of the file number `file[k]` of `paths`, from `at[k]` on, into the bytes of `out` from `starts[k]` on.

    Each path is opened before the next one is asked for, and all stay open until the end.

    Raises:
        OSError: naming a file that is shorter than that, or can't be read.
    """
    assert out.flags.c_contiguous
    assert not len(starts) or (starts + sizes).max() <= out.nbytes
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open(path, "rb", 0)) for path in paths]
        numbers = np.array([each.fileno() for each in opened], np.int64)[file]
        failed = _read(*map(read_only, (numbers, at, sizes)), out.ctypes.data, read_only(starts))
        if failed >= 0:
            short, end = opened[file[failed]], at[failed] + sizes[failed]
            size = os.fstat(short.fileno()).st_size
            raise OSError(errno.EIO, f"bytes {at[failed]} to {end} of {size} can't be read", str(short.name))


@njit(cache=True, nogil=True)
def _read(numbers, at, sizes, address, starts):  # type: ignore[no-untyped-def]
    for k in range(len(at)):
        done = 0
        while done < sizes[k]:
            more = pread(numbers[k], address + starts[k] + done, sizes[k] - done, at[k] + done)
            if more <= 0:
                return k
            done += more
    return -1
