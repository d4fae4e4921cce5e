"""Many small parts of files read into one array, without a call of Python for each."""

from __future__ import annotations

import errno
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from gristmill.kernels.buffers import read_only
from gristmill.kernels.native import pread

I64 = npt.NDArray[np.int64]


def read_spans(files: I64, at: I64, sizes: I64, out: npt.NDArray[Any], starts: I64) -> None:
    """Reads `sizes[k]` bytes of the open file with number `files[k]`, from `at[k]` on, into the bytes of `out` from `starts[k]` on.

    Raises:
        OSError: a file is shorter than that, or can't be read.
    """
    assert out.flags.c_contiguous
    assert not len(starts) or (starts + sizes).max() <= out.nbytes
    failed = _read(*map(read_only, (files, at, sizes)), out.ctypes.data, read_only(starts))
    if failed >= 0:
        raise OSError(errno.EIO, f"bytes {at[failed]} to {at[failed] + sizes[failed]} can't be read")


@njit(cache=True, nogil=True)
def _read(files, at, sizes, address, starts):  # type: ignore[no-untyped-def]
    for k in range(len(at)):
        done = 0
        while done < sizes[k]:
            more = pread(files[k], address + starts[k] + done, sizes[k] - done, at[k] + done)
            if more <= 0:
                return k
            done += more
    return -1
