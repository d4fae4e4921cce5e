"""Dataset versions as other libraries' frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gristmill.errors import MissingDependencyError
from gristmill.storage.parquet import read_table

if TYPE_CHECKING:
    from gristmill.storage.dataset import Dataset


def to_pandas(table: pa.Table) -> Any:
    """A pandas DataFrame."""
    _need("pandas")
    return table.to_pandas()


def to_polars(table: pa.Table) -> Any:
    """A Polars DataFrame."""
    polars = _need("polars")
    return polars.from_arrow(table)


def to_dask(dataset: Dataset, split: str | None, columns: list[str] | None) -> Any:
    """A lazy Dask DataFrame of pandas partitions, one a shard, in order."""
    _need("pandas")
    frames = _need("dask.dataframe")
    schema = dataset.schema if columns is None else pa.schema([dataset.schema.field(name) for name in columns])
    empty = schema.empty_table().to_pandas()
    files = [entry.path for entry in dataset.files(split)]
    if not files:
        return frames.from_pandas(empty, npartitions=1)
    return frames.from_map(_Partition(dataset.folder, columns), files, meta=empty)


class _Partition:
    """Reads one shard as pandas; picklable, for Dask workers."""

    def __init__(self, folder: Any, columns: list[str] | None) -> None:
        self._folder, self._columns = folder, columns

    def __call__(self, path: str) -> Any:
        return read_table(self._folder, path, self._columns).to_pandas()


def _need(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise MissingDependencyError(f"{package} is needed for this: pip install 'gristmill[pandas]' or {package}") from error
