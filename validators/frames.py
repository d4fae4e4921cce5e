"""The one user of pandas, Dask and Spark: frames as shards, types by pandas' names, and conditions in pandas' own language."""

from __future__ import annotations

import datetime
import importlib
import pickle
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pandas.api.types import pandas_dtype

from gristmill.errors import SchemaMismatchError
from gristmill.validators.columns import Mask, View, _is_missing
from gristmill.validators.inputs import Data, of_tables
from gristmill.validators.remote import Partitions

SINGLE = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64(), datetime.date: pa.date32()}


def open_pandas(frame: pd.DataFrame) -> Data:
    """The frame as one shard; rows are called by its index. Columns of objects become Arrow columns if all values have one type that Arrow has."""
    columns: dict[str, pa.Array] = {}
    objects: dict[str, npt.NDArray[Any]] = {}
    dtypes: dict[str, str] = {}
    for place, label in enumerate(frame.columns):
        name, series = str(label), frame.iloc[:, place]
        if name in dtypes:
            raise SchemaMismatchError(f"frame: several columns are called '{name}'; rename all but one")
        dtypes[name] = str(series.dtype)
        array = _of_objects(series.to_numpy()) if series.dtype == object else _of_series(series)
        if array is None:
            objects[name] = series.to_numpy(object)
        else:
            columns[name] = array
    table = pa.table(columns) if columns else pa.table({"": pa.nulls(len(frame))})
    if not columns:
        table = table.select([]) if len(frame) == 0 else table
    plain = isinstance(frame.index, pd.RangeIndex) and frame.index.start == 0 and frame.index.step == 1
    index = None if plain and frame.index.name is None else list(frame.index)
    return of_tables([table], "frame", [objects], columns=list(dtypes), dtypes=dtypes, index=index)


def _of_series(series: pd.Series) -> pa.Array | None:
    try:
        array = pa.Array.from_pandas(series)
    except (pa.ArrowException, TypeError, ValueError):
        return None
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _of_objects(values: npt.NDArray[Any]) -> pa.Array | None:
    """An Arrow array of values that all have one exact Python type, None if there is none."""
    kinds = {type(value) for value in values if not _is_missing(value)}
    if len(kinds) != 1:
        return None if kinds else pa.nulls(len(values))
    kind = kinds.pop()
    clean = [None if _is_missing(value) else value for value in values]
    try:
        if kind in SINGLE:
            return pa.array(clean, SINGLE[kind])
        if kind is datetime.datetime and len({value.tzinfo for value in clean if value is not None}) == 1:
            return pa.array(clean)
    except (pa.ArrowException, OverflowError):
        return None
    return None


def open_dask(frame: Any) -> Data:
    """A Dask frame, evaluated by its scheduler."""
    import dask

    parts = frame.to_delayed()

    def each(function: Callable[[Any], Any]) -> list[Any]:
        return list(dask.compute(*[dask.delayed(function)(part) for part in parts]))

    return Partitions(each, lambda i: parts[i].compute(), "frame").open()


def open_spark(frame: Any) -> Data:
    """A Spark frame, evaluated by its executors, in the order of its partitions. It is persisted meanwhile: computed anew, rows could lie elsewhere."""
    frame = frame.persist()

    def each(function: Callable[[Any], Any]) -> list[Any]:
        rows = frame.mapInArrow(_in_spark(function), "place int, found binary").collect()
        found = {row.place: pickle.loads(row.found) for row in rows}  # noqa: S301  from our own executors
        places[:] = sorted(found)
        return [found[place] for place in places]

    places: list[int] = []  # of partitions that have rows

    def fetch(number: int) -> pa.Table:
        return frame.mapInArrow(_only(places[number]), frame.schema).toArrow()

    partitions = Partitions(each, fetch, "frame")
    weakref.finalize(partitions, frame.unpersist)
    return partitions.open()


def _in_spark(function: Callable[[Any], Any]) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        some = list(batches)
        if some:
            place, found = TaskContext.get().partitionId(), pickle.dumps(function(pa.Table.from_batches(some)))
            yield pa.record_batch([pa.array([place], pa.int32()), pa.array([found], pa.binary())], ["place", "found"])

    return run


def _only(number: int) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        if TaskContext.get().partitionId() == number:
            yield from batches

    return run


def dtype_name(data: Data, column: str) -> str:
    """The column's pandas dtype: of the frame it comes from, else what Arrow makes of its type."""
    return str(_dtype(data, column))


def _dtype(data: Data, column: str) -> Any:
    if column in data.dtypes:
        name = data.dtypes[column]
        try:
            return pandas_dtype(name)
        except TypeError:
            return pd.CategoricalDtype() if name == "category" else np.dtype(object)
    if column not in data.schema.names:
        return np.dtype(object)
    return pa.array([], data.schema.field(column).type).to_pandas().dtype


def python_types(names: Sequence[str]) -> tuple[type, ...]:
    """The classes that numpy, pandas or Python know by these names.

    Raises:
        ValueError: none of them is known.
    """
    found = [kind for name in names for kind in _types(name)]
    if not found:
        raise ValueError(
            f"Unrecognized numpy/python type: {names[0]}"
            if len(names) == 1
            else f"No recognized numpy/python type in list: {list(names)}"
        )
    return tuple(found)


def _types(name: str) -> list[type]:
    found: list[type] = []
    try:
        found.append(np.dtype(name).type)
    except TypeError:
        for module in (pd, importlib.import_module("pandas.core.dtypes.dtypes")):
            kind = getattr(module, name, None)
            if isinstance(kind, type):
                found.append(kind)
    natives = {
        "none": type(None),
        "bool": bool,
        "int": int,
        "long": int,
        "float": float,
        "bytes": bytes,
        "complex": complex,
    }
    natives |= {"str": str, "string_types": str, "list": list, "dict": dict}
    return [*found, natives[name.lower()]] if name.lower() in natives else found


def compare_type(data: Data, column: str, names: Sequence[str] | None) -> tuple[bool, str]:
    """(whether the column's type is one of those named, the name of its type), as Great Expectations compares them on pandas."""
    dtype = _dtype(data, column)
    if names is None:
        return True, dtype.type.__name__
    kinds: list[Any] = [kind for name in names for kind in _types(name)]
    for name in names:
        try:
            kinds.append(pandas_dtype(name))
        except TypeError:
            kind = getattr(pd, name, None)
            if isinstance(kind, type) and issubclass(kind, pd.api.extensions.ExtensionDtype):
                kinds.append(kind())
    return dtype.type in kinds or any(
        isinstance(kind, (np.dtype, pd.api.extensions.ExtensionDtype)) and dtype == kind for kind in kinds
    ), dtype.type.__name__


def is_dtype(data: Data, column: str, name: str) -> tuple[bool, str]:
    """(whether the column has the dtype that pandas knows by this name, its own name). A datetime64 without a unit is one of any.

    Raises:
        ValueError: pandas knows no such dtype.
    """
    try:
        wanted: Any = pandas_dtype(name)
    except Exception as error:
        raise ValueError(f"Unrecognized pandas type: {name} ({error})") from error
    dtype = _dtype(data, column)
    shown = data.dtypes.get(column, str(dtype))
    if isinstance(wanted, np.dtype) and wanted.kind in "mM" and np.datetime_data(wanted)[0] == "generic":
        return isinstance(dtype, np.dtype) and dtype.kind == wanted.kind, shown
    if isinstance(dtype, pd.StringDtype) and isinstance(wanted, pd.StringDtype):
        return shown == str(wanted), shown
    return dtype in (wanted, name), shown


def query(view: View, text: str) -> Mask:
    """(rows,) bool: the rows that `DataFrame.query(text)` keeps."""
    frame = to_frame(view)
    frame.index = pd.RangeIndex(len(frame))
    found = np.zeros(len(frame), bool)
    found[frame.query(text, local_dict={"datetime": datetime}).index.to_numpy()] = True
    return found


def to_frame(view: View) -> pd.DataFrame:
    """The rows as a pandas frame."""
    columns = {}
    for name in view.names:
        column = view.column(name)
        columns[name] = column.array.to_pandas() if column.array is not None else column.raw_objects
    return pd.DataFrame(columns)
