"""XXH3-128 (seed 0) of every row of a flat buffer, in numba: bit-equal to the reference implementation, with no Python object per row.

Constants and steps are those of the XXH3 specification (github.com/Cyan4973/xxHash, BSD-2-Clause), little-endian.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from gristmill.kernels.buffers import read_only, slices
from gristmill.kernels.words64 import load32, load64, mulhi

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

SECRET = np.frombuffer(
    bytes.fromhex(
        "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
        "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
        "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
        "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
        "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
        "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
    ),
    np.uint8,
)
P32_1, P32_2, P32_3 = np.uint64(0x9E3779B1), np.uint64(0x85EBCA77), np.uint64(0xC2B2AE3D)
P64_1, P64_2, P64_3 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
P64_4, P64_5 = np.uint64(0x85EBCA77C2B2AE63), np.uint64(0x27D4EB2F165667C5)
MX1, MX2 = np.uint64(0x165667919E3779F9), np.uint64(0x9FB21C651E98DF25)
LOW = np.uint64(0xFFFFFFFF)

NULL = np.frombuffer(b"null" * 4, np.uint64)
"""What stands for a null row: no text is known to hash to it."""
_HEX = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), np.uint16)  # the two digits of each byte


@njit(inline="always")
def _avalanche(h):  # type: ignore[no-untyped-def]
    h ^= h >> np.uint64(37)
    h *= MX1
    return h ^ (h >> np.uint64(32))


@njit(inline="always")
def _avalanche64(h):  # type: ignore[no-untyped-def]
    h ^= h >> np.uint64(33)
    h *= P64_2
    h ^= h >> np.uint64(29)
    h *= P64_3
    return h ^ (h >> np.uint64(32))


@njit(inline="always")
def _swap64(x):  # type: ignore[no-untyped-def]
    x = ((x & np.uint64(0x00FF00FF00FF00FF)) << np.uint64(8)) | ((x >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF))
    x = ((x & np.uint64(0x0000FFFF0000FFFF)) << np.uint64(16)) | ((x >> np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF))
    return (x << np.uint64(32)) | (x >> np.uint64(32))


@njit(inline="always")
def _fold(a, b):  # type: ignore[no-untyped-def]
    return (a * b) ^ mulhi(a, b)


@njit(inline="always")
def _mix16(data, at, key):  # type: ignore[no-untyped-def]
    return _fold(load64(data, at) ^ load64(SECRET, key), load64(data, at + 8) ^ load64(SECRET, key + 8))


@njit
def _short(data, at, n):  # type: ignore[no-untyped-def]
    """(high, low) for 0 to 16 bytes."""
    if n > 8:
        low = load64(data, at)
        high = load64(data, at + n - 8)
        mixed = low ^ high ^ (load64(SECRET, 32) ^ load64(SECRET, 40))
        m_low, m_high = mixed * P64_1, mulhi(mixed, P64_1)
        m_low += np.uint64(n - 1) << np.uint64(54)
        high ^= load64(SECRET, 48) ^ load64(SECRET, 56)
        m_high += high + (high & LOW) * (P32_2 - np.uint64(1))
        m_low ^= _swap64(m_high)
        h_low, h_high = m_low * P64_2, mulhi(m_low, P64_2)
        h_high += m_high * P64_2
        return _avalanche(h_high), _avalanche(h_low)
    if n >= 4:
        keyed = (load32(data, at) + (load32(data, at + n - 4) << np.uint64(32))) ^ (
            load64(SECRET, 16) ^ load64(SECRET, 24)
        )
        factor = P64_1 + (np.uint64(n) << np.uint64(2))
        m_low, m_high = keyed * factor, mulhi(keyed, factor)
        m_high += m_low << np.uint64(1)
        m_low ^= m_high >> np.uint64(3)
        m_low ^= m_low >> np.uint64(35)
        m_low *= MX2
        m_low ^= m_low >> np.uint64(28)
        return _avalanche(m_high), m_low
    if n:
        first, middle, last = np.uint64(data[at]), np.uint64(data[at + (n >> 1)]), np.uint64(data[at + n - 1])
        low = (first << np.uint64(16)) | (middle << np.uint64(24)) | last | (np.uint64(n) << np.uint64(8))
        swapped = _swap64(low) >> np.uint64(32)
        high = ((swapped << np.uint64(13)) | (swapped >> np.uint64(19))) & LOW
        flip_low, flip_high = load32(SECRET, 0) ^ load32(SECRET, 4), load32(SECRET, 8) ^ load32(SECRET, 12)
        return _avalanche64(high ^ flip_high), _avalanche64(low ^ flip_low)
    return _avalanche64(load64(SECRET, 80) ^ load64(SECRET, 88)), _avalanche64(load64(SECRET, 64) ^ load64(SECRET, 72))


@njit
def _middle(data, at, n):  # type: ignore[no-untyped-def]
    """(high, low) for 17 to 240 bytes."""
    low, high = np.uint64(n) * P64_1, np.uint64(0)
    if n <= 128:
        for i in range((n - 1) // 32, -1, -1):
            one, two, key = at + 16 * i, at + n - 16 * (i + 1), 32 * i
            low = (low + _mix16(data, one, key)) ^ (load64(data, two) + load64(data, two + 8))
            high = (high + _mix16(data, two, key + 16)) ^ (load64(data, one) + load64(data, one + 8))
    else:
        for i in range(32, n + 1, 32):
            one, two = at + i - 32, at + i - 16
            key = i - 32 if i < 160 else 3 + i - 160
            low = (low + _mix16(data, one, key)) ^ (load64(data, two) + load64(data, two + 8))
            high = (high + _mix16(data, two, key + 16)) ^ (load64(data, one) + load64(data, one + 8))
            if i == 128:
                low, high = _avalanche(low), _avalanche(high)
        one, two, key = at + n - 16, at + n - 32, 136 - 17 - 16
        low = (low + _mix16(data, one, key)) ^ (load64(data, two) + load64(data, two + 8))
        high = (high + _mix16(data, two, key + 16)) ^ (load64(data, one) + load64(data, one + 8))
    h_low = _avalanche(low + high)
    h_high = np.uint64(0) - _avalanche(low * P64_1 + high * P64_4 + np.uint64(n) * P64_2)
    return h_high, h_low


@njit(inline="always")
def _stripe(acc, data, at, key):  # type: ignore[no-untyped-def]
    for lane in range(8):
        value = load64(data, at + 8 * lane)
        keyed = value ^ load64(SECRET, key + 8 * lane)
        acc[lane ^ 1] += value
        acc[lane] += (keyed & LOW) * (keyed >> np.uint64(32))


@njit
def _merge(acc, key, start):  # type: ignore[no-untyped-def]
    result = start
    for pair in range(4):
        result += _fold(
            acc[2 * pair] ^ load64(SECRET, key + 16 * pair), acc[2 * pair + 1] ^ load64(SECRET, key + 16 * pair + 8)
        )
    return _avalanche(result)


@njit
def _long(data, at, n, acc):  # type: ignore[no-untyped-def]
    """(high, low) for more than 240 bytes; acc (8,) uint64 is scratch."""
    acc[0], acc[1], acc[2], acc[3] = P32_3, P64_1, P64_2, P64_3
    acc[4], acc[5], acc[6], acc[7] = P64_4, P32_2, P64_5, P32_1
    blocks = (n - 1) // 1024
    for block in range(blocks):
        for stripe in range(16):
            _stripe(acc, data, at + block * 1024 + stripe * 64, stripe * 8)
        for lane in range(8):
            value = acc[lane]
            acc[lane] = (value ^ (value >> np.uint64(47)) ^ load64(SECRET, 128 + 8 * lane)) * P32_1
    rest = (n - 1 - blocks * 1024) // 64
    for stripe in range(rest):
        _stripe(acc, data, at + blocks * 1024 + stripe * 64, stripe * 8)
    _stripe(acc, data, at + n - 64, 192 - 64 - 7)
    length = np.uint64(n)
    return _merge(acc, 192 - 64 - 11, ~(length * P64_2)), _merge(acc, 11, length * P64_1)


@njit(cache=True, nogil=True)
def _hash_slices(data, offsets):  # type: ignore[no-untyped-def]
    rows = len(offsets) - 1
    out = np.empty((rows, 2), np.uint64)
    acc = np.empty(8, np.uint64)
    for i in range(rows):
        at, n = offsets[i], offsets[i + 1] - offsets[i]
        if n <= 16:
            high, low = _short(data, at, n)
        elif n <= 240:
            high, low = _middle(data, at, n)
        else:
            high, low = _long(data, at, n, acc)
        out[i, 0] = high
        out[i, 1] = low
    return out


def hash_slices(data: U8, offsets: I64) -> U64:
    """(rows, 2) uint64: the high and low half of XXH3-128 of `data[offsets[i]:offsets[i + 1]]`. Offsets may not fall; they are not checked."""
    return _hash_slices(read_only(data), read_only(offsets))


def hash_text(array: pa.Array | pa.ChunkedArray) -> U64:
    """(rows, 2) uint64: high and low half of the hash of the bytes of each row of a text or bytes array; a null row's is NULL.

    Chunk by chunk, so nothing is joined or copied. A null differs from "", but NULL is a value like any other: callers mask by validity.

    Raises:
        TypeError: the array holds neither text nor bytes.
    """
    if isinstance(array, pa.ChunkedArray):
        chunks = [hash_text(chunk) for chunk in array.chunks]
        return np.concatenate(chunks) if chunks else hash_text(pa.array([], array.type))
    rows = slices(array)
    digests = hash_slices(rows.data, rows.offsets)
    digests[rows.valid == 0] = NULL
    return digests


def hex_digests(digests: U64) -> pa.Array:
    """The digests as large_string: 32 lower-case hex digits each, high half first, as `xxhash.xxh3_128_hexdigest` writes them."""
    big_endian = np.ascontiguousarray(digests, ">u8").view(np.uint8)
    text = _HEX[big_endian]  # (rows, 16) pairs of digits
    offsets = np.arange(len(digests) + 1, dtype=np.int64) * 32
    return pa.Array.from_buffers(pa.large_string(), len(digests), [None, pa.py_buffer(offsets), pa.py_buffer(text)])


def sum_digests(digests: U64) -> int:
    """The sum of the digests as 128-bit numbers, mod 2^128: the same in any order. Exact below 2^32 rows a call."""
    total = 0
    for column, shift in ((0, 64), (1, 0)):
        halves = digests[:, column]
        low = int((halves & LOW).sum(dtype=np.uint64))
        total += (low + (int((halves >> np.uint64(32)).sum(dtype=np.uint64)) << 32)) << shift
    return total % 2**128
