"""Sizes of rows: from the values alone."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.storage.sizes import row_bytes

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.large_string())]))
message = st.none() | st.fixed_dictionaries(
    {"role": st.none() | st.text(max_size=5), "content": st.none() | st.text(max_size=30)}
)
cells = st.tuples(
    st.none() | st.text(max_size=20),
    st.none() | st.lists(message, max_size=4),
    st.none() | st.lists(st.integers(0, 9), max_size=5),
    st.none() | st.lists(st.tuples(st.text(max_size=3), st.integers(0, 9)), max_size=3),
    st.none() | st.lists(st.text(max_size=4), min_size=2, max_size=2),
)


def expected(
    text: str | None, messages: list | None, numbers: list | None, pairs: list | None, two: list | None
) -> int:
    def of(value: str | None) -> int:
        return 4 + len((value or "").encode())

    size = (
        of(text)
        + 4
        + 8 * len(numbers or [])
        + 4
        + sum(of(key) + 4 for key, _ in pairs or [])
        + 4
        + sum(map(of, two or []))
    )
    return size + 4 + sum(of(one and one["role"]) + of(one and one["content"]) for one in messages or [])


@given(st.lists(cells, max_size=20), st.integers(0, 20))
def test_sizes_are_those_of_the_values_however_cut(rows: list, cut: int) -> None:
    kinds = [pa.string(), MESSAGES, pa.list_(pa.int64()), pa.map_(pa.string(), pa.int32()), pa.list_(pa.string(), 2)]
    table = pa.table({str(i): pa.array([row[i] for row in rows], kind) for i, kind in enumerate(kinds)})
    want = [expected(*row) for row in rows]
    assert row_bytes(table).tolist() == want
    cut = min(cut, len(rows))
    pieces = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    assert row_bytes(pieces).tolist() == want
    assert row_bytes(table.slice(cut)).tolist() == want[cut:]


def test_what_lies_under_a_null_does_not_count() -> None:
    hidden = pa.ListArray.from_arrays(
        pa.array([0, 3, 4]), pa.array(["aaa", "bbb", "ccc", "d"]), mask=pa.array([True, False])
    )
    assert row_bytes(pa.table({"a": hidden})).tolist() == [4, 4 + 5]


@pytest.mark.parametrize(
    ("array", "want"),
    [
        (pa.array([True, None]), [1, 1]),
        (pa.array([1, None], pa.int16()), [2, 2]),
        (pa.nulls(2), [0, 0]),
        (pa.array(["a", "b"]).dictionary_encode(), [4, 4]),
        (pa.array(["abc", None], pa.string_view()), [7, 4]),
        (pa.array([b"ab", b"cd"], pa.binary(2)), [2, 2]),
        (pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)), [12, 4]),
    ],
)
def test_plain_kinds(array: pa.Array, want: list[int]) -> None:
    assert row_bytes(pa.table({"a": array})).tolist() == want
