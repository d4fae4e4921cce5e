"""Dataset versions as other libraries' frames."""

from __future__ import annotations

import importlib
import os
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


def to_nullable_pandas(table: pa.Table) -> Any:
    """A pandas DataFrame whose integers and bools are of the nullable types: a null makes no float of a column, which would round its integers."""
    pandas = _need("pandas")
    return table.to_pandas(types_mapper=lambda kind: _nullable(pandas, kind))


def _nullable(pandas: Any, kind: pa.DataType) -> Any:
    if pa.types.is_boolean(kind):
        return pandas.BooleanDtype()
    if not pa.types.is_integer(kind):
        return None
    return getattr(pandas, f"{'U' if pa.types.is_unsigned_integer(kind) else ''}Int{kind.bit_width}Dtype")()


def to_polars(table: pa.Table) -> Any:
    """A Polars DataFrame."""
    polars = _need("polars", "polars")
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


def to_spark(dataset: Dataset, session: Any, split: str | None, columns: list[str] | None) -> Any:
    """A lazy Spark DataFrame over the version's files."""
    _need("pyspark", "gristmill[spark]")
    names = dataset.schema.names if columns is None else columns
    files = [dataset.folder.url(entry.path) for entry in dataset.files(split)]
    if not files:
        arrow = _need("pyspark.sql.pandas.types", "gristmill[spark]")
        return session.createDataFrame([], arrow.from_arrow_schema(dataset.schema)).select(*names)
    return session.read.parquet(
        *[url.replace("s3://", "s3a://", 1) if "://" in url else f"file://{os.path.abspath(url)}" for url in files]
    ).select(*names)


def to_torch(table: pa.Table) -> dict[str, Any]:
    """{column: tensor or list}. Numbers and bools without nulls are tensors of their own type, fixed-size lists of them 2-D; all else is a list."""
    torch = _need("torch", "gristmill[torch]")
    return {name: _tensor(torch, table[name].combine_chunks()) for name in table.column_names}


def _tensor(torch: Any, column: pa.Array) -> Any:
    column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    kind, shape = column.type, [len(column)]
    if pa.types.is_fixed_size_list(kind) and not column.null_count:
        column, shape = column.flatten(), [len(column), kind.list_size]
        kind = column.type
    plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if not plain or column.null_count:
        return column.to_pylist() if len(shape) == 1 else _nested(column.to_pylist(), shape[1])
    return torch.from_numpy(column.to_numpy(zero_copy_only=False).copy()).reshape(shape)


def _nested(values: list[Any], size: int) -> list[list[Any]]:
    return [values[i : i + size] for i in range(0, len(values), size)]


class _Partition:
    """Reads one shard as pandas; picklable, for Dask workers."""

    def __init__(self, folder: Any, columns: list[str] | None) -> None:
        self._folder, self._columns = folder, columns

    def __call__(self, path: str) -> Any:
        return read_table(self._folder, path, self._columns).to_pandas()


def _need(name: str, extra: str = "gristmill[pandas]") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise MissingDependencyError(f"{package} is needed for this: pip install '{extra}' or {package}") from error
