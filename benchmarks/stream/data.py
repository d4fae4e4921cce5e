"""The data of the benchmarks as Parquet, written with gristmill's own settings; rows are sorted, so that a batch's row groups show how well it is shuffled."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common import SCRATCH, TEXT
from gristmill.storage.parquet import ParquetSettings

FILES = 4
TOKENS = 2048
COLUMNS = 64
SIZES = {"images": (500, 375, 94), "photos": (1024, 768, 66)}  # width, height, quality: about 110 kB each
GROUP_BYTES = ParquetSettings().row_group_bytes


def dataset(case: str, scale: float = 1.0) -> Path:
    """The folder of a case's Parquet files, made unless it is there. CASE-uncompressed: the same rows without compression."""
    case, _, uncompressed = case.partition("-")
    make, rows, group = CASES[case]
    rows = int(rows * scale)
    folder = SCRATCH / "stream" / f"{case}-{rows}{'-uncompressed' if uncompressed else ''}"
    settings = ParquetSettings(compression="none", compression_level=None) if uncompressed else ParquetSettings()
    if not folder.is_dir():
        shutil.rmtree(partial := folder.with_suffix(".partial"), ignore_errors=True)
        partial.mkdir(parents=True)
        writer, per_file = None, -(-rows // FILES)
        for start, table in zip(range(0, rows, group), make(rows, group), strict=True):
            if start % per_file < group:
                if writer is not None:
                    writer.close()
                writer = settings.writer(partial / f"{start // per_file}.parquet", table.schema)
            assert writer is not None
            writer.write_table(table, row_group_size=group)
        assert writer is not None
        writer.close()
        partial.rename(folder)
    return folder


def row_groups(folder: Path) -> np.ndarray:
    """(row groups,) their numbers of rows, in the order of ids."""
    files = [pq.ParquetFile(path).metadata for path in sorted(folder.glob("*.parquet"))]
    return np.array([each.row_group(i).num_rows for each in files for i in range(each.num_row_groups)])


def tokens(rows: int, group: int) -> Iterator[pa.Table]:
    """id, and 2,048 int32 that are as frequent as words are; the first is the id, so that a peer that keeps only tokens can be followed."""
    rng = np.random.default_rng(0)
    for start in range(0, rows, group):
        count = min(group, rows - start)
        values = np.minimum(rng.zipf(1.2, (count, TOKENS)), 50_000).astype(np.int32)
        values[:, 0] = np.arange(start, start + count)
        ends = np.arange(0, values.size + 1, TOKENS, dtype=np.int32)
        yield pa.table(
            {"id": np.arange(start, start + count), "tokens": pa.ListArray.from_arrays(ends, values.ravel())}
        )


def text(rows: int, group: int) -> Iterator[pa.Table]:
    """id, and a paragraph of the PEP history (words drawn by frequency where that isn't beside the checkout)."""
    source = TEXT / "peps_history" / "peps.parquet"
    if source.exists():
        texts = pq.read_table(source, columns=["text"])[
            "text"
        ]  # versions of one document follow each other: unshuffled they would compress to nothing
        order = np.random.default_rng(0).permutation(len(texts))
        paragraphs = (part for i in order for part in texts[int(i)].as_py().split("\n\n") if 20 < len(part) < 600)
    else:
        rng = np.random.default_rng(0)
        paragraphs = (" ".join(f"word{n}" for n in np.minimum(rng.zipf(1.3, 30), 9999)) for _ in range(rows))
    for start in range(0, rows, group):
        taken = [next(paragraphs) for _ in range(min(group, rows - start))]
        yield pa.table({"id": np.arange(start, start + len(taken)), "text": taken})


def table(rows: int, group: int) -> Iterator[pa.Table]:
    """id and 64 columns of float32."""
    rng = np.random.default_rng(0)
    for start in range(0, rows, group):
        count = min(group, rows - start)
        yield pa.table(
            {
                "id": np.arange(start, start + count),
                **{f"x{i:02d}": rng.standard_normal(count, np.float32) for i in range(COLUMNS)},
            }
        )


def images(rows: int, group: int, size: tuple[int, int, int] = SIZES["images"]) -> Iterator[pa.Table]:
    """id, a JPEG of about 110 kB and a label."""
    for start in range(0, rows, group):
        ids = range(start, min(start + group, rows))
        with ThreadPoolExecutor() as threads:
            contents = pa.array(threads.map(lambda i: picture(i, *size), ids), pa.binary())
        yield pa.table({"id": np.array(ids), "image": contents, "label": np.array([i % 10 for i in ids])})


def picture(number: int, width: int, height: int, quality: int) -> bytes:
    """A JPEG that compresses as a photograph does: blurred noise of several scales, some shapes, grain."""
    import cv2

    rng = np.random.default_rng(number)
    image = np.zeros((height, width, 3), np.float32)
    for scale, strength in ((4, 90), (16, 60), (64, 45), (200, 25)):
        small = rng.standard_normal((max(2, 375 * scale // 800), max(2, 500 * scale // 800), 3), np.float32)
        image += strength * cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    image = np.ascontiguousarray(np.clip(image + 128, 0, 255).astype(np.uint8))
    for _ in range(12):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(
            image,
            centre,
            int(rng.integers(5, width // 6)),
            rng.integers(0, 255, 3).tolist(),
            -1 if rng.random() < 0.5 else 2,
        )
    noisy = np.clip(image + rng.normal(0, 9, image.shape), 0, 255).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


Maker = Callable[[int, int], Iterator[pa.Table]]
CASES: dict[str, tuple[Maker, int, int]] = {  # rows in all, rows in a row group
    "tokens": (tokens, 100_000, GROUP_BYTES // (4 * TOKENS)),
    "text": (text, 400_000, 8192),
    "table": (table, 400_000, 8192),
    "images": (images, 4_000, GROUP_BYTES // 110_000),
    "photos": (functools.partial(images, size=SIZES["photos"]), 2_000, GROUP_BYTES // 110_000),
}
