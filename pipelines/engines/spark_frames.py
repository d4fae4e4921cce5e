"""`gristmill.apply` and `gristmill.near_duplicates` on Spark DataFrames: lazy, Arrow batches on the executors, the pipeline's answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from gristmill.errors import missing_column
from gristmill.kernels.digests import row_digests
from gristmill.kernels.hashing import hex_digests
from gristmill.pipelines.frames import apply_table, decide_wide, extract_step, named
from gristmill.pipelines.plan import name_steps
from gristmill.pipelines.slices import STEPPED
from gristmill.pipelines.stages import with_step
from gristmill.pipelines.steps.base import Step
from gristmill.pipelines.steps.dedupe import DropNearDuplicates, WideStep

PAIRS = pa.schema([("uid", pa.string()), ("kept_uid", pa.string()), ("similarity", pa.float64())])
PACKED = pa.schema([("content", pa.binary())])


def apply_spark(frame: Any, steps: Sequence[Step]) -> tuple[Any, Any]:
    """(the rows that stay, the decisions) as lazy DataFrames. Rows are in no order, as always in Spark.

    A wide step's slim columns come together in one task; the rows themselves do not.
    """
    from pyspark.sql import functions as sql

    rows = with_uids(frame)
    decisions = []
    for name, step in name_steps(steps):
        if isinstance(step, WideStep):
            found = _decided(rows, step, name)
            leaving = found.select(sql.col("uid").alias("_leaving"))
            rows = rows.join(leaving, rows["_uid"] == leaving["_leaving"], "left_anti")
        else:
            found = _mapped(rows, _RowStep(step, name, decisions=True), STEPPED)
            rows = _mapped(rows, _RowStep(step, name, decisions=False), apply_table(_empty(rows), [step])[0].schema)
        decisions.append(found)
    if not decisions:
        return rows, _mapped(rows.limit(0), _nothing, STEPPED)
    every = decisions[0]
    for found in decisions[1:]:
        every = every.unionByName(found)
    return rows, every


def near_duplicates_spark(frame: Any, step: DropNearDuplicates) -> Any:
    """uid, kept_uid, similarity as a lazy DataFrame."""
    if step.column not in frame.columns:
        raise missing_column(step.column, frame.columns, "near_duplicates")
    found = _decided(with_uids(frame), step, step.step)
    return found.selectExpr("uid", "other_uid as kept_uid", "similarity").orderBy("uid")


def with_uids(frame: Any) -> Any:
    """The frame with `_uid`: its own, else the hash of each row's content; copies are numbered UID~2 and so on."""
    from pyspark.sql import Window
    from pyspark.sql import functions as sql

    if "_uid" in frame.columns:
        return frame
    schema = named(_empty(frame)).schema
    rows = _mapped(frame, _name_rows, schema).withColumn("_place", sql.monotonically_increasing_id())
    nth = sql.row_number().over(Window.partitionBy("_uid").orderBy("_place"))
    copies = rows.select("_uid", "_place").withColumn("_nth", nth).where("_nth > 1").select("_place", "_nth")
    number = sql.when(
        sql.col("_nth").isNotNull(), sql.concat(sql.col("_uid"), sql.lit("~"), sql.col("_nth"))
    ).otherwise(sql.col("_uid"))
    return rows.join(copies, "_place", "left").withColumn("_uid", number).drop("_place", "_nth")


def _decided(rows: Any, step: WideStep, name: str) -> Any:
    """The decisions of a wide step. Its slim columns cross as Arrow IPC: Spark has no unsigned integers."""
    for column in step.needs():
        if column not in rows.columns:
            raise missing_column(column, rows.columns, f"step {name}")
    wanted = [column for column in dict.fromkeys([*step.needs(), "_uid", "_source"]) if column in rows.columns]
    packed = _mapped(rows.select(*wanted), _Extract(step), PACKED)
    return _mapped(packed.repartition(1), _Decide(step, name), STEPPED)


def _mapped(frame: Any, function: Any, schema: pa.Schema) -> Any:
    from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

    spark_schema = from_arrow_schema(pa.schema([field.with_type(_plain(field.type)) for field in schema]))
    return frame.mapInArrow(_Typed(function, to_arrow_schema(spark_schema)), spark_schema)


def _empty(frame: Any) -> pa.Table:
    from pyspark.sql.pandas.types import to_arrow_schema

    return to_arrow_schema(frame.schema).empty_table()


def _plain(kind: pa.DataType) -> pa.DataType:
    return {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}.get(kind, kind)


class _Typed:
    """A function over batches whose tables come out with exactly the types that Spark was told."""

    def __init__(self, function: Any, schema: pa.Schema) -> None:
        self._function, self._schema = function, schema

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for table in self._function(batches):
            yield from table.select(self._schema.names).cast(self._schema).to_batches()


class _RowStep:
    """The rows that stay, or the decisions, of a row step."""

    def __init__(self, step: Step, name: str, *, decisions: bool) -> None:
        self._step, self._name, self._decisions = step, name, decisions

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
        for batch in batches:
            kept, found = apply_table(pa.Table.from_batches([batch]), [self._step])
            yield with_step(found.drop_columns(["step"]), self._name) if self._decisions else kept


class _Extract:
    """What a wide step needs of the rows, as Arrow IPC in one cell a batch."""

    def __init__(self, step: WideStep) -> None:
        self._step = step

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
        for batch in batches:
            extract = extract_step(self._step, pa.Table.from_batches([batch]))
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, extract.schema) as writer:
                writer.write_table(extract)
            yield pa.table([pa.array([sink.getvalue().to_pybytes()], pa.binary())], schema=PACKED)


class _Decide:
    """The decisions over all extracts."""

    def __init__(self, step: WideStep, name: str) -> None:
        self._step, self._name = step, name

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
        extracts = [
            pa.ipc.open_stream(content.as_buffer()).read_all() for batch in batches for content in batch.column(0)
        ]
        if extracts:
            yield with_step(decide_wide(extracts, self._step).select(STEPPED.names[:-1]), self._name)


def _name_rows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    for batch in batches:
        table = pa.Table.from_batches([batch])
        yield table.append_column("_uid", hex_digests(row_digests(table)))


def _nothing(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:  # noqa: ARG001
    return iter(())
