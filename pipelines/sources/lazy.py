"""Frames of a cluster (Spark, Dask) as sources: written to Parquet in the scratch folder by the cluster itself, never gathered by the driver."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import xxhash

from gristmill.pipelines.sources.base import FrameSource, ParquetSource
from gristmill.storage.folder import temporary_name


def is_lazy(frame: Any) -> bool:
    """Whether it is a Spark or Dask DataFrame."""
    return type(frame).__module__.split(".")[0] in ("pyspark", "dask")


def store_lazy(source: FrameSource, frame: Any, folder: Path) -> ParquetSource:
    """The source as Parquet files under the hash of their content in the folder, which every worker must reach."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(temporary_name(f"{folder}/{source.name}"))
    try:
        if type(frame).__module__.startswith("pyspark"):
            frame.write.parquet(f"file://{temporary.resolve()}")
        else:
            frame.to_parquet(str(temporary), write_index=False)
        final = folder / f"{source.name}-{_number(temporary)}"
        if not final.exists():
            temporary.rename(final)
        os.utime(final)  # in use from now on
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return ParquetSource(name=source.name, path=str(final), schema=source.schema_)


def _number(folder: Path) -> str:
    """The hash of the folder's Parquet files, which are numbered in their order; all else in it is removed."""
    digest = xxhash.xxh3_128()
    parts = sorted(folder.rglob("*.parquet"))
    for number, part in enumerate(parts):
        with part.open("rb") as content:
            while block := content.read(4 << 20):
                digest.update(block)
        part.rename(folder / f"part-{number:06d}.parquet")
    for other in folder.iterdir():
        if not other.name.startswith("part-") or other.suffix != ".parquet":
            other.unlink()
    return digest.hexdigest()
