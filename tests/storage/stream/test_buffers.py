"""Memory that comes back must be nobody's any more."""

from __future__ import annotations

import gc

import numpy as np
import torch

from gristmill.storage.stream.buffers import ROUNDS, SMALL, Buffers


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_comes_back_when_the_last_part_of_it_is_gone():
    buffers = Buffers(10 * SMALL)
    array = buffers.take((2, SMALL), np.uint8)
    where, part = address(array), torch.from_numpy(array[1:])[:, 5:].numpy()
    del array
    gc.collect()
    assert address(other := buffers.take((2, SMALL), np.uint8)) != where
    other[:] = 1
    part[:] = 7
    assert (other == 1).all() and (part == 7).all()
    del part
    gc.collect()
    assert address(buffers.take((SMALL, 2), np.int8)) == where


def test_little_is_kept_and_nothing_much_larger_is_given():
    buffers = Buffers(2 * SMALL)
    arrays = [buffers.take((SMALL,), np.uint8) for _ in range(9)]
    places = {address(array) for array in arrays}
    del arrays
    gc.collect()
    again = [buffers.take((SMALL // 4,), np.float32) for _ in range(9)]
    assert len(places & {address(array) for array in again}) >= 2
    del again
    gc.collect()
    small = buffers.take((SMALL,), np.uint8)
    assert sum(map(len, buffers._free)) <= ROUNDS * SMALL
    assert buffers.take((3,), object).tolist() == [None] * 3
    large = buffers.take((8 * SMALL,), np.uint8)
    del large
    gc.collect()
    assert buffers.take((SMALL,), np.uint8).nbytes == small.nbytes
    assert 8 * SMALL <= sum(map(len, buffers._free)) <= ROUNDS * 8 * SMALL
