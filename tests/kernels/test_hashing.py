"""XXH3-128 in numba against the reference implementation, and the digests' text and sum."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from gristmill.kernels import hashing
from gristmill.kernels.hashing import NULL, hash_slices, hash_text, hex_digests, sum_digests

BLOCK = 1024
# every branch's ends: 0, 1-3, 4-8, 9-16, 17-128, 129-240, one block, and around each of the first blocks and stripes
LENGTHS = [*range(700), *[k * BLOCK + d for k in (1, 2, 3, 16) for d in (-65, -64, -63, -1, 0, 1, 63, 64, 65)]]


def number(digest: np.ndarray) -> int:
    return (int(digest[0]) << 64) + int(digest[1])


@pytest.mark.parametrize("fill", ["random", "zeros", "ones"])
def test_equals_the_reference_at_every_length(fill: str) -> None:
    rng = np.random.default_rng(7)
    total = sum(LENGTHS)
    data = {
        "random": rng.integers(0, 256, total, np.uint8),
        "zeros": np.zeros(total, np.uint8),
        "ones": np.full(total, 255, np.uint8),
    }[fill]
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])  # rows begin at every alignment
    digests = hash_slices(data, offsets)
    expected = [xxhash.xxh3_128_intdigest(data[a:b].tobytes()) for a, b in zip(offsets, offsets[1:], strict=False)]
    assert [number(each) for each in digests] == expected


@pytest.mark.parametrize("length", [0, 1, 3, 4, 8, 9, 16, 17, 32, 33, 128, 129, 240, 241, 1024, 1025, 100_000])
def test_reads_nothing_outside_a_row(length: int) -> None:
    inner = np.random.default_rng(length).integers(0, 256, length, np.uint8)
    expected = xxhash.xxh3_128_intdigest(inner.tobytes())
    for around in (0, 255):
        padded = np.concatenate([np.full(64, around, np.uint8), inner, np.full(64, around, np.uint8)])
        assert number(hash_slices(padded, np.array([64, 64 + length]))[0]) == expected
    assert number(hash_slices(inner, np.array([0, length]))[0]) == expected


@given(st.lists(st.binary(max_size=400)))
def test_rows_of_any_bytes_equal_the_reference(rows: list[bytes]) -> None:
    data = np.frombuffer(b"".join(rows), np.uint8)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)]).astype(np.int64)
    digests = hash_slices(data, offsets)
    assert digests.shape == (len(rows), 2)
    assert [number(each) for each in digests] == [xxhash.xxh3_128_intdigest(row) for row in rows]


def test_one_kernel_serves_read_only_and_writable_buffers() -> None:
    data, offsets = np.zeros(4, np.uint8), np.array([0, 4])
    for make_data in (False, True):
        for make_offsets in (False, True):
            data.flags.writeable, offsets.flags.writeable = make_data, make_offsets
            hash_slices(data, offsets)
    assert len(hashing._hash_slices.signatures) == 1


KINDS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int8(), pa.string()),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_text_of_every_layout(kind: pa.DataType) -> None:
    texts = ["skipped", "", None, "a", "漢字" * 100, None, "b"]
    array = pa.array(texts, pa.string()).cast(pa.binary() if "binary" in str(kind) else pa.string())
    array = array.dictionary_encode() if pa.types.is_dictionary(kind) else array.cast(kind)
    expected = [number(NULL) if text is None else xxhash.xxh3_128_intdigest(text.encode()) for text in texts]
    assert [number(each) for each in hash_text(array)] == expected
    assert [number(each) for each in hash_text(array.slice(1, 4))] == expected[1:5]
    assert [
        number(each) for each in hash_text(pa.chunked_array([array.slice(1, 2), array.slice(0, 0), array.slice(3)]))
    ] == expected[1:]


def test_empty_arrays_and_null_beside_empty_text() -> None:
    assert hash_text(pa.array([], pa.string())).shape == (0, 2)
    assert hash_text(pa.chunked_array([], pa.string())).shape == (0, 2)
    empty, null = hash_text(pa.array(["", None]))
    assert number(empty) == xxhash.xxh3_128_intdigest(b"")
    assert number(null) == number(NULL) != number(empty)


def test_numbers_are_refused() -> None:
    with pytest.raises(TypeError, match="int64"):
        hash_text(pa.array([1, 2]))


@given(st.lists(st.text(max_size=30)))
def test_hex_is_the_references(texts: list[str]) -> None:
    found = hex_digests(hash_text(pa.array(texts, pa.string())))
    assert found.to_pylist() == [xxhash.xxh3_128_hexdigest(text.encode()) for text in texts]
    found.validate(full=True)


def test_hex_of_rows_that_are_not_contiguous() -> None:
    digests = hash_text(pa.array(["a", "b", "c", "d"]))
    assert hex_digests(digests[::2]).to_pylist() == [xxhash.xxh3_128_hexdigest(text) for text in (b"a", b"c")]


@given(st.lists(st.integers(0, 2**128 - 1)))
def test_sum_is_exact_and_free_of_order(numbers: list[int]) -> None:
    digests = np.array([[value >> 64, value & (2**64 - 1)] for value in numbers], np.uint64).reshape(-1, 2)
    assert sum_digests(digests) == sum(numbers) % 2**128 == sum_digests(digests[::-1])


def test_sum_carries_out_of_every_half() -> None:
    most = np.full((100_000, 2), 2**64 - 1, np.uint64)
    assert sum_digests(most) == (2**128 - 1) * 100_000 % 2**128
