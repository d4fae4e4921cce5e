"""Parts of files against the bytes of the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gristmill.kernels.spans import read_spans


def test_parts_of_several_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    contents = [rng.integers(0, 256, size, dtype=np.uint8).tobytes() for size in (1, 5000, 300_000)]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    files = [(tmp_path / str(number)).open("rb") for number in range(3)]
    chosen = rng.integers(0, 3, 500)
    lengths = np.array([len(content) for content in contents])[chosen]
    at = rng.integers(0, lengths)
    sizes = rng.integers(0, lengths - at + 1)
    starts = np.cumsum(sizes) - sizes
    out = np.zeros(sizes.sum(), np.uint8)
    order = rng.permutation(500)
    numbers = np.array([file.fileno() for file in files])[chosen]
    read_spans(numbers[order], at[order], sizes[order], out, starts[order])
    expected = b"".join(
        contents[file][start : start + size] for file, start, size in zip(chosen, at, sizes, strict=True)
    )
    assert out.tobytes() == expected
    for file in files:
        file.close()


def test_a_file_that_is_too_short(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"four")
    with (tmp_path / "short").open("rb") as file:
        one = np.array([1])
        with pytest.raises(OSError, match="bytes 1 to 5 can't be read"):
            read_spans(one * file.fileno(), one, 4 * one, np.zeros(4, np.uint8), 0 * one)
    with pytest.raises(OSError, match="can't be read"):
        read_spans(one * 1_000_000, one, one, np.zeros(1, np.uint8), 0 * one)  # not open
