"""Arrow arrays of numbers as numpy arrays and back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.kernels.buffers import number_array, numbers

KINDS = (pa.int8(), pa.uint16(), pa.int64(), pa.float16(), pa.float32(), pa.float64(), pa.bool_())


@given(st.lists(st.integers(0, 100), max_size=40), st.integers(0, 40), st.integers(0, 40), st.sampled_from(KINDS))
def test_numbers_of_any_slice(values, start, length, kind):
    whole = pa.array([float(value) for value in values], pa.float64()).cast(kind, safe=False)
    cut = whole.slice(min(start, len(values)), length)
    found = numbers(cut)
    assert found.tolist() == cut.to_pylist() and found.dtype == kind.to_pandas_dtype()
    assert numbers(pa.chunked_array([cut, whole], kind)).tolist() == cut.to_pylist() + whole.to_pylist()
    if kind != pa.bool_():
        assert number_array(found).equals(cut)


def test_no_chunks_and_no_copy():
    assert numbers(pa.chunked_array([], pa.int32())).dtype == np.int32
    array = pa.array([1, 2, 3])
    assert np.shares_memory(numbers(array), np.frombuffer(array.buffers()[1], np.int64))
    values = np.arange(3.0)
    assert np.shares_memory(numbers(number_array(values)), values)


@pytest.mark.parametrize("values", [[None, 1, None], [True, None], [1.5]])
def test_nulls_keep_the_places_of_the_others(values):
    array = pa.array(values)
    valid = numbers(array.is_valid())
    assert numbers(array)[valid].tolist() == [value for value in values if value is not None]
