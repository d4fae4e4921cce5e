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
    paths = [tmp_path / str(number) for number in range(3)]
    chosen = rng.integers(0, 3, 500)
    lengths = np.array([len(content) for content in contents])[chosen]
    at = rng.integers(0, lengths)
    sizes = rng.integers(0, lengths - at + 1)
    starts = np.cumsum(sizes) - sizes
    out = np.zeros(sizes.sum(), np.uint8)
    order = rng.permutation(500)
    read_spans(paths, chosen[order], at[order], sizes[order], out, starts[order])
    expected = b"".join(
        contents[file][start : start + size] for file, start, size in zip(chosen, at, sizes, strict=True)
    )
    assert out.tobytes() == expected


def test_a_file_that_is_too_short_or_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"more than four")
    (tmp_path / "short").write_bytes(b"four")
    file, at = np.array([0, 1]), np.array([1, 1])
    for name, text in (("short", "bytes 1 to 5 of 4 can't be read: '{}'"), ("gone", "No such file or directory: '{}'")):
        with pytest.raises(OSError, match=text.format(tmp_path / name)):
            read_spans([tmp_path / "long", tmp_path / name], file, at, 4 * at, np.zeros(8, np.uint8), 4 * file)
