"""`gristmill.apply` and `gristmill.near_duplicates`: steps on a frame in memory or a lazy Dask or Spark frame, the same kind out, the pipeline's answer."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter, ValidationError

from gristmill.errors import ColumnError, PipelineError, missing_column
from gristmill.kernels.digests import row_digests
from gristmill.kernels.hashing import hex_digests
from gristmill.kernels.minhash import band_keys, bands
from gristmill.pipelines.duplicates import SURVIVOR_ORDER, exact_groups
from gristmill.pipelines.exchange import Chunks
from gristmill.pipelines.extracts import ExactHash, Sketch
from gristmill.pipelines.model import AnyStep
from gristmill.pipelines.near import decide_near
from gristmill.pipelines.plan import name_steps
from gristmill.pipelines.sketched import flat_sets, signature_matrix
from gristmill.pipelines.slices import ROUTED, STEPPED
from gristmill.pipelines.sources.text import as_arrow
from gristmill.pipelines.stages import check_balance, with_step
from gristmill.pipelines.steps.base import RowStep, Step
from gristmill.pipelines.steps.dedupe import DropExactDuplicates, DropNearDuplicates, WideStep

Steps = Sequence[Step | Mapping[str, Any]]


def apply(frame: Any, steps: Steps) -> tuple[Any, Any]:
    """(the rows that stay, the decisions), each of the frame's kind: pandas, Arrow, Polars, or a Dask frame, which stays lazy.

    steps: models or mappings as in a pipeline file, such as {"step": "filter", "where": "length(text) > 20"}. Rows keep their order and get a
    `_uid` unless they have one: the hash of their content, UID~2 and so on where it repeats. Decisions have the columns of the ledger but
    source and position. The result is that of a pipeline with these steps over these rows.

    Raises:
        PipelineError, ColumnError: a step that can't be meant, or a column that the frame lacks.
    """
    if isinstance(steps, str | Mapping):
        raise PipelineError(f"steps is a {type(steps).__name__}, expected a list of steps: [{{'step': ...}}, ...]")
    models = [check_step(step) for step in steps]
    if _is_dask(frame):
        return _apply_dask(frame, models)
    if _is_spark(frame):
        from gristmill.pipelines.engines.spark_frames import apply_spark

        return apply_spark(frame, models)
    table, found = apply_table(named(as_arrow(frame, "frame")), models)
    return like(table, frame), like(found, frame)


def near_duplicates(frame: Any, column: str = "text", threshold: float = 0.8, *, shingle: int = 5) -> Any:
    """uid, kept_uid, similarity: each row that is a near-duplicate, the kept row that it was verified against, their Jaccard similarity.

    Of the frame's kind, in order of uid; Dask and Spark frames stay lazy. Rows are named by `_uid`, else by the hash of their content.

    Raises:
        PipelineError, ColumnError: an option that can't be meant, or the frame lacks the column.
    """
    step = check_step({"step": "drop_near_duplicates", "column": column, "threshold": threshold, "shingle": shingle})
    assert isinstance(step, DropNearDuplicates)
    if _is_dask(frame):
        return _pairs_dask(frame, step)
    if _is_spark(frame):
        from gristmill.pipelines.engines.spark_frames import near_duplicates_spark

        return near_duplicates_spark(frame, step)
    return like(_pairs([named(as_arrow(frame, "frame"))], step), frame)


def apply_table(table: pa.Table, steps: Sequence[Step]) -> tuple[pa.Table, pa.Table]:
    """(kept rows, decisions as STEPPED) of a table that has `_uid`."""
    found = [STEPPED.empty_table()]
    for name, step in name_steps(steps):
        _check_columns(step, table, name)
        if isinstance(step, WideStep):
            decided = decide_wide([extract_for(step).of(_sourced(table), 0)], step)
            found.append(with_step(decided.select(STEPPED.names[:-1]), name))
            table = drop_rows(table, decided, 0)
        else:
            assert isinstance(step, RowStep)
            after, decisions = step.apply(table)
            check_balance(name, "the frame", table.num_rows, after.num_rows, decisions)
            found.append(with_step(decisions, name))
            table = after
    return table, pa.concat_tables(found)


def check_step(step: Step | Mapping[str, Any]) -> Step:
    """The step's model.

    Raises:
        PipelineError: what is wrong with it.
    """
    if isinstance(step, Step):
        return step
    try:
        return TypeAdapter(AnyStep).validate_python(dict(step))
    except ValidationError as error:
        from gristmill.pipelines.loading import describe_step_error

        raise PipelineError(describe_step_error(error, step)) from None


def extract_for(step: WideStep) -> ExactHash | Sketch:
    """What the step needs of each row."""
    if isinstance(step, DropExactDuplicates):
        return ExactHash(step)
    assert isinstance(step, DropNearDuplicates)
    return Sketch(step.column, step.shingle, step.permutations, step)


def decide_wide(extracts: Sequence[pa.Table], step: WideStep) -> pa.Table:
    """The ROUTED decisions of a wide step; item is the number of the extract."""
    numbered = [
        extract.append_column("item", pa.repeat(pa.scalar(i, pa.int64()), extract.num_rows))
        for i, extract in enumerate(extracts)
    ]
    every = pa.concat_tables(numbered)
    if isinstance(step, DropExactDuplicates):
        return pa.concat_tables([ROUTED.empty_table(), *exact_groups(Chunks(None, lambda: [every]))])
    assert isinstance(step, DropNearDuplicates)
    every = every.sort_by(SURVIVOR_ORDER)
    keys = band_keys(signature_matrix(every), *bands(step.threshold, step.permutations))
    return decide_near(every, keys, flat_sets(every), step)[0]


def drop_rows(table: pa.Table, decided: pa.Table, item: int) -> pa.Table:
    """The table without the rows that the decisions for this item take away."""
    keep = np.ones(table.num_rows, bool)
    keep[decided.filter(pc.equal(decided["item"], item))["row"].to_numpy()] = False
    return table.filter(pa.array(keep))


def named(table: pa.Table) -> pa.Table:
    """The table with `_uid`; repeated ones are numbered in the table's order.

    Raises:
        PipelineError: a `_uid` column with nulls or repeats.
    """
    return with_names(table, number_repeats([content_names(table)])[0])


def content_names(table: pa.Table) -> pa.Array:
    """The `_uid` of each row before repeats are numbered: its own, else the hash of its content."""
    if "_uid" not in table.column_names:
        return hex_digests(row_digests(table))
    uids = table["_uid"].cast(pa.large_string()).combine_chunks()
    if uids.null_count or pc.count_distinct(uids).as_py() < len(uids):
        raise PipelineError("column '_uid' has null or repeated values; every row needs one of its own")
    return pa.concat_arrays(uids.chunks) if isinstance(uids, pa.ChunkedArray) else uids


def number_repeats(names: Sequence[pa.Array]) -> list[pa.Array]:
    """The names of all tables with UID~2, UID~3, ... for the later copies."""
    every = pa.concat_arrays(names)
    order = np.asarray(pc.array_sort_indices(every))
    ordered = every.take(pa.array(order))
    same = np.zeros(len(every), bool)
    if len(every) > 1:
        same[1:] = pc.equal(ordered[1:], ordered[:-1]).to_numpy(zero_copy_only=False)
    if same.any():
        place = np.arange(len(every))
        nth = np.empty(len(every), np.int64)
        nth[order] = place - np.maximum.accumulate(
            np.where(same, 0, place)
        )  # the sort is stable: copies stay in the tables' order
        suffix = pa.array([f"~{n + 1}" if n else "" for n in nth.tolist()], pa.large_string())
        every = pc.binary_join_element_wise(every, suffix, pa.scalar("", pa.large_string()))
    ends = np.cumsum([0, *[len(part) for part in names]])
    return [every.slice(start, stop - start) for start, stop in itertools.pairwise(ends)]


def with_names(table: pa.Table, names: pa.Array) -> pa.Table:
    """The table with these names as `_uid`."""
    if "_uid" in table.column_names:
        return table
    return table.append_column("_uid", names.cast(pa.string()))


def like(table: pa.Table, frame: Any) -> Any:
    """The table as the frame's kind."""
    module = type(frame).__module__
    if module.startswith("pandas"):
        return table.to_pandas()
    if module.startswith("polars"):
        import polars as pl

        return pl.from_arrow(table)
    return table


def _sourced(table: pa.Table) -> pa.Table:
    if "_source" in table.column_names:
        return table
    return table.append_column("_source", pa.nulls(table.num_rows, pa.string()))


def _check_columns(step: Step, table: pa.Table, name: str) -> None:
    for column in step.needs():
        if column not in table.column_names:
            raise missing_column(column, table.column_names, f"step {name}")


def _pairs(tables: Sequence[pa.Table], step: DropNearDuplicates) -> pa.Table:
    for table in tables:
        _check_columns(step, table, "near_duplicates")
    decided = decide_wide([extract_for(step).of(_sourced(table), 0) for table in tables], step)
    pairs = pa.table({"uid": decided["uid"], "kept_uid": decided["other_uid"], "similarity": decided["similarity"]})
    return pairs.sort_by("uid")


def _is_dask(frame: Any) -> bool:
    return type(frame).__module__.startswith("dask")


def _is_spark(frame: Any) -> bool:
    return type(frame).__module__.startswith("pyspark.")


def _lazy_tables(frame: Any) -> list[Any]:
    """The partitions as delayed Arrow tables with `_uid`."""
    from dask import delayed

    arrow = delayed(as_arrow, pure=True)
    tables = [arrow(part, "partition") for part in frame.to_delayed()]
    names = delayed(number_repeats)([delayed(content_names)(table) for table in tables])
    return [delayed(with_names)(table, names[i]) for i, table in enumerate(tables)]


def _apply_dask(frame: Any, steps: Sequence[Step]) -> tuple[Any, Any]:
    from dask import dataframe, delayed

    sample = named(as_arrow(frame._meta, "frame"))  # noqa: SLF001  Dask's own way to say what the columns are
    shape, _ = apply_table(sample, steps)
    tables = _lazy_tables(frame)
    found: list[Any] = []
    for name, step in name_steps(steps):
        if isinstance(step, WideStep):
            extract = delayed(extract_step)
            decided = delayed(decide_wide)([extract(step, table) for table in tables], step)
            found.append(delayed(_decisions)(decided, name))
            tables = [delayed(drop_rows)(table, decided, i) for i, table in enumerate(tables)]
        else:
            pairs = [delayed(apply_table, nout=2)(table, [step]) for table in tables]
            tables = [pair[0] for pair in pairs]
            found += [delayed(_renamed)(pair[1], name) for pair in pairs]
    frames = [delayed(_pandas)(table, shape.schema) for table in tables]
    decisions = [delayed(_pandas)(part, STEPPED) for part in found]
    empty = STEPPED.empty_table().to_pandas()
    kept = dataframe.from_delayed(frames, meta=shape.to_pandas(), verify_meta=False)
    if not decisions:
        return kept, dataframe.from_pandas(empty, npartitions=1)
    return kept, dataframe.from_delayed(decisions, meta=empty, verify_meta=False)


def _pairs_dask(frame: Any, step: DropNearDuplicates) -> Any:
    from dask import dataframe, delayed

    if step.column not in frame.columns:
        raise ColumnError(f"near_duplicates: no column '{step.column}' in the frame", column=step.column)
    pairs = delayed(_pairs)(_lazy_tables(frame), step)
    schema = pa.schema([("uid", pa.large_string()), ("kept_uid", pa.large_string()), ("similarity", pa.float64())])
    return dataframe.from_delayed(
        [delayed(_pandas)(pairs, schema)], meta=schema.empty_table().to_pandas(), verify_meta=False
    )


def extract_step(step: WideStep, table: pa.Table) -> pa.Table:
    """What the step needs of the rows of a table that has `_uid`."""
    return extract_for(step).of(_sourced(table), 0)


def _decisions(decided: pa.Table, name: str) -> pa.Table:
    return with_step(decided.select(STEPPED.names[:-1]), name)


def _renamed(found: pa.Table, name: str) -> pa.Table:
    return with_step(found.drop_columns(["step"]), name)


def _pandas(table: pa.Table, schema: pa.Schema) -> Any:
    return table.select(schema.names).cast(schema).to_pandas()
