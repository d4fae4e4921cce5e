"""Keyed permutations from 64-bit integer arithmetic alone: the same on every platform and every version of numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

GAMMA = 0x9E3779B97F4A7C15
WORD = 2**64 - 1
ROUNDS = 6
MIN_BITS = 6  # smaller domains are walked inside one of 64: on very few bits the rounds don't reach every order


def mix64(values: U64) -> U64:
    """SplitMix64's finaliser, a bijection of 64-bit words (Steele, Lea, Flood 2014; Stafford's variant 13)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def derive_key(*parts: int) -> int:
    """A 64-bit key of some integers. Unlike a sum it differs for (seed 1, epoch 2) and (seed 2, epoch 1)."""
    state = 0x243F6A8885A308D3
    for part in parts:
        word = np.array([(part + GAMMA) & WORD], np.uint64)
        state = int(mix64(np.array([state], np.uint64) ^ mix64(word))[0])
    return state


def derive_keys(key: int, numbers: I64) -> U64:
    """A 64-bit key of a key and each number."""
    return mix64(np.uint64(key) ^ mix64(numbers.astype(np.uint64) + np.uint64(GAMMA)))


def permutation(count: int, key: int) -> I64:
    """The numbers below `count` in an order that the key decides, uniform over all orders: they are sorted by 64-bit hashes.

    The low bits of a hash are replaced by the number: no ties, and plain sorting is faster than sorting indices.
    """
    numbers = np.arange(count, dtype=np.uint64)
    low = np.uint64((1 << max(1, count - 1).bit_length()) - 1)
    hashes = mix64(np.uint64(key) + numbers * np.uint64(GAMMA))
    return (np.sort((hashes & ~low) | numbers) & low).astype(np.int64)


def scramble(values: I64, sizes: I64, keys: U64, *, inverse: bool = False) -> I64:
    """Each value's image under a permutation of the numbers below its size that its key decides: no table, O(1) a value.

    values, sizes, keys: (n,). Rounds of an odd multiplication, an addition and a xor-shift permute the next power of two; images outside the size
    are mapped again until they fall inside (cycle walking: under two times on average, more for sizes below 32).
    """
    bits = np.maximum(_bit_length(sizes - 1), MIN_BITS)
    mask = (np.uint64(1) << bits) - np.uint64(1)
    shift = (bits + np.uint64(1)) >> np.uint64(1)  # at least half the bits: the xor-shift is then its own inverse
    out = values.astype(np.uint64)
    limit = sizes.astype(np.uint64)
    step = _backward if inverse else _forward
    todo: npt.NDArray[np.intp] | None = None
    while True:
        if todo is None:
            out = step(out, mask, shift, keys)
            todo = np.flatnonzero(out >= limit)
        else:
            image = step(out[todo], mask[todo], shift[todo], keys[todo])
            out[todo] = image
            todo = todo[image >= limit[todo]]
        if not len(todo):
            return out.astype(np.int64)


def _forward(x: U64, mask: U64, shift: U64, keys: U64) -> U64:
    for number in range(ROUNDS):
        word = _round_key(keys, number)
        x = (x * (word | np.uint64(1)) + (word >> np.uint64(32))) & mask
        x ^= x >> shift
    return x


def _backward(x: U64, mask: U64, shift: U64, keys: U64) -> U64:
    for number in reversed(range(ROUNDS)):
        word = _round_key(keys, number)
        odd = word | np.uint64(1)
        x = x ^ (x >> shift)
        x = ((x - (word >> np.uint64(32))) * _odd_inverse(odd)) & mask
    return x


def _round_key(keys: U64, number: int) -> U64:
    word = (keys ^ np.uint64((GAMMA * (2 * number + 1)) & WORD)) * np.uint64(0xBF58476D1CE4E5B9)
    return word ^ (word >> np.uint64(29))


def _odd_inverse(odd: U64) -> U64:
    """The inverse modulo 2^64 of odd numbers, by Newton's iteration: 3 bits are right at first, twice as many after each step."""
    inverse = odd
    for _ in range(5):
        inverse = inverse * (np.uint64(2) - odd * inverse)
    return inverse


def _bit_length(values: I64) -> U64:
    """The bits that each value needs, exact below 2^52."""
    return np.frexp(np.maximum(values, 0).astype(np.float64))[1].astype(np.uint64)
