"""What a run is going to do: the work items of every source, the segments between wide steps, and what is finished already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from gristmill.errors import GristmillError, PipelineError, did_you_mean, missing_column
from gristmill.pipelines.extracts import PUBLISHED, ExactHash, Extract, GroupKey, Sketch
from gristmill.pipelines.identity import id_texts
from gristmill.pipelines.model import Pipeline, Split
from gristmill.pipelines.published import Base, fitted
from gristmill.pipelines.sources import FrameSource, Source, WorkItem, plan_items, read_item, store_frame, unify_schemas
from gristmill.pipelines.stages import identified, stored_schema
from gristmill.pipelines.steps.base import RowStep, Step
from gristmill.pipelines.steps.dedupe import DropExactDuplicates, DropNearDuplicates, WideStep
from gristmill.pipelines.steps.expectations import quarantine_step
from gristmill.pipelines.steps.functions import Python
from gristmill.pipelines.work import WorkStore, key_of
from gristmill.storage.tombstones import Tombstones

SAMPLE_BYTES = 256 << 10  # how much of an item is read to learn its columns before any work
SAMPLED = 64  # items of a source that are read for that
Known = Callable[[Source, WorkItem], Sequence[pa.Schema] | None]
"""The schemas of an item's rows where they are known, else None."""


@dataclass(frozen=True)
class SegmentPlan:
    """Row steps with their ledger names, then the wide steps that follow them, then what the wide steps need of each row."""

    steps: tuple[tuple[str, RowStep], ...]
    wide: tuple[tuple[str, WideStep], ...]
    extracts: tuple[Extract, ...]

    def identity(self) -> list[Any]:
        """What the segment's output depends on beside its input, for its key."""
        return [
            [[name, step, _code(step)] for name, step in self.steps],
            [extract.identity() for extract in self.extracts],
        ]


@dataclass(frozen=True)
class Planned:
    """A source with its work items, in the order of the run."""

    source: Source
    items: tuple[WorkItem, ...]


def plan_segments(pipeline: Pipeline, extra: Sequence[Extract] = ()) -> list[SegmentPlan]:
    """The pipeline's steps cut after each run of wide steps. Rows that `validate` quarantines leave right before the first of those.

    The last segment has no wide steps; it takes the split's extracts and the `extra` ones, unless the wide steps before it took the same and nothing was edited
    since.
    """
    segments: list[SegmentPlan] = []
    rows: list[tuple[str, RowStep]] = []
    wide: list[tuple[str, WideStep]] = []
    for name, step in _with_quarantine(pipeline, name_steps(pipeline.steps)):
        if isinstance(step, WideStep):
            wide.append((name, step))
            continue
        if wide:
            segments.append(_segment(rows, wide, []))
            rows, wide = [], []
        assert isinstance(step, RowStep)
        rows.append((name, step))
    wanted = [*_split_extracts(pipeline), *extra]
    if wide:
        # the last rows are edited no more: the split can be decided on what the wide steps read
        return [*segments, _segment(rows, wide, wanted)]
    return [*segments, _segment(rows, wide, wanted)]


def _with_quarantine(pipeline: Pipeline, named: list[tuple[str, Step]]) -> list[tuple[str, Step]]:
    block = pipeline.validate_
    if block is None or block.on_failure != "quarantine_rows":
        return named
    at = next((i for i, (_, step) in enumerate(named) if isinstance(step, WideStep)), len(named))
    return [*named[:at], ("validate", quarantine_step(block.suite, block.parameters)), *named[at:]]


def name_steps(steps: Sequence[Step]) -> list[tuple[str, Step]]:
    """The steps with the names that the ledger uses: the step's own, and NAME#2, NAME#3 where it comes again."""
    seen: dict[str, int] = {}
    named = []
    for step in steps:
        seen[step.step] = seen.get(step.step, 0) + 1
        named.append((step.step if seen[step.step] == 1 else f"{step.step}#{seen[step.step]}", step))
    return named


def _segment(rows: list[tuple[str, RowStep]], wide: list[tuple[str, WideStep]], wanted: list[Extract]) -> SegmentPlan:
    extracts: list[Extract] = []
    for _, step in wide:
        if isinstance(step, DropExactDuplicates):
            extracts.append(ExactHash(step))
        elif isinstance(step, DropNearDuplicates):
            extracts.append(Sketch(step.column, step.shingle, step.permutations, step))
    for extract in wanted:
        held = any(
            isinstance(extract, Sketch) and isinstance(other, Sketch) and other.serves(extract) for other in extracts
        )
        if not held:
            extracts.append(extract)
    return SegmentPlan(tuple(rows), tuple(wide), tuple(extracts))


def split_column(pipeline: Pipeline) -> str:
    """The text column that the split compares: its own, else the last one de-duplicated, else `text`."""
    assert pipeline.split is not None
    deduped = [step.column for step in pipeline.steps if isinstance(step, WideStep)]
    return pipeline.split.column or (deduped[-1] if deduped else "text")


def split_sketch(pipeline: Pipeline, split: Split) -> Sketch:
    """The sketch that the split's similarity is decided on; of the same kind as the near-duplicate step's, so that one serves both."""
    column = split_column(pipeline)
    near = [step for step in pipeline.steps if isinstance(step, DropNearDuplicates) and step.column == column]
    return Sketch(column, split.shingle, near[-1].permutations if near else 112)


def _split_extracts(pipeline: Pipeline) -> list[Extract]:
    split = pipeline.split
    if split is None:
        return []
    found: list[Extract] = [] if split.similarity is None else [split_sketch(pipeline, split)]
    return found if split.group_by is None else [*found, GroupKey(split.group_by)]


def _code(step: Step) -> str:
    return step.code() if isinstance(step, Python) else ""


def plan_sources(
    pipeline: Pipeline, frames: Mapping[str, Any], store: WorkStore, cache: dict[str, str]
) -> list[Planned]:
    """The work items of every source. `frames` are the tables of `frame` sources by name, written into the store for the workers; `cache` holds
    content hashes known from before.

    Raises:
        InputNotFoundError: a path that matches nothing.
        PipelineError: a frame that wasn't passed, or one that no source takes; an output inside an input; more items than a run can number.
    """
    wanted = {source.name for source in pipeline.sources if isinstance(source, FrameSource)}
    for name in frames:
        if name not in wanted:
            raise PipelineError(f"inputs: no source of kind frame is named '{name}' in pipeline '{pipeline.name}'")
    planned = []
    for source in pipeline.sources:
        if isinstance(source, FrameSource):
            if source.name not in frames:
                raise PipelineError(
                    f"source '{source.name}' is a frame: pass it as run(..., inputs={{'{source.name}': table}})"
                )
            source = store_frame(source, frames[source.name], store)  # noqa: PLW2901
        planned.append(Planned(source, tuple(plan_items(source, cache=cache))))
    _output_apart(
        pipeline,
        [plan for plan, source in zip(planned, pipeline.sources, strict=True) if not isinstance(source, FrameSource)],
    )
    items = sum(len(plan.items) for plan in planned)
    if items >= PUBLISHED:
        raise PipelineError(
            f"the sources have {items:,} work items, more than the {PUBLISHED - 1:,} that a run can number; put small files together"
        )
    return planned


def _output_apart(pipeline: Pipeline, planned: list[Planned]) -> None:
    """The output may not lie in a folder that is read, nor may a file that is read lie in the output."""
    output = pipeline.output.path
    for plan in planned:
        for file in (file for item in plan.items for file in item.files):
            if _lies_in(file, output):
                raise PipelineError(
                    f"output '{output}' holds the input file '{file}' of source '{plan.source.name}'; use another folder"
                )
        for root in plan.source.paths:
            if ("://" in root or Path(root).is_dir()) and _lies_in(output, root):
                raise PipelineError(
                    f"output '{output}' lies inside the input folder '{root}' of source '{plan.source.name}'; the next run would read it"
                )


def _lies_in(path: str, folder: str) -> bool:
    """Whether a path or URL is the folder or is inside it."""
    inner, outer = (place.rstrip("/") if "://" in place else str(Path(place).resolve()) for place in (path, folder))
    return inner == outer or inner.startswith(f"{outer.rstrip('/')}/")


def check_columns(
    pipeline: Pipeline,
    planned: list[Planned],
    base: Base | None = None,
    known: Known = lambda *_: None,
) -> None:
    """Refuses a column that no input has, or a source that isn't there, before any work: the start of every item (of the first 64 of a source) is read
    for its columns, unless they are known from an earlier run.

    Raises:
        ColumnError, PipelineError: naming the step, with its `location` in the pipeline; also a `priority` that names no source.
        SchemaMismatchError: rows that don't fit the version that is appended to.
    """
    _check_priorities(pipeline)
    if base is not None:
        _check_base(pipeline, base)
    schema = _sampled_schema(planned, known)
    if schema is not None:
        last = walk_columns(pipeline, schema)
        if base is not None and last is not None:
            fitted(base, last)


def _check_base(pipeline: Pipeline, base: Base) -> None:
    """Refuses a version whose rows can't be compared with new ones."""
    made_by, name = base.manifest.pipeline or {}, f"version {base.manifest.version} of {base.folder.base}"
    if made_by and made_by.get("id") != pipeline.id:
        was, now = (f"the id '{one}'" if one else "their content" for one in (made_by.get("id"), pipeline.id))
        text = f"output.mode append: rows of {name} are named by {was}, those of this pipeline by {now}; a row could come in twice"
        raise _located(PipelineError(text), "id" if pipeline.id else "output")
    if not len(base.files):
        return
    if bool(base.splits) != (pipeline.split is not None):
        has, lacks = (name, "this pipeline") if base.splits else ("this pipeline", name)
        text = f"output.mode append: {has} has splits and {lacks} has none; give the pipeline the same `split` as that of the version"
        raise _located(PipelineError(text), "split" if pipeline.split else "output")
    compared = [
        *[
            (step.column, f"step {i + 1} ({step.step})", ("steps", i))
            for i, step in enumerate(pipeline.steps)
            if isinstance(step, WideStep)
        ],
        *[
            (extract.column, "split", ("split",))
            for extract in _split_extracts(pipeline)
            if isinstance(extract, Sketch | GroupKey)
        ],
    ]
    for column, what, location in compared:
        if column not in base.manifest.schema.names:
            error = missing_column(column, base.manifest.schema.names, name)
            error = type(error)(f"{what} compares new rows with published ones: {error}", **error.context)
            raise _located(error, *location)


def _check_priorities(pipeline: Pipeline) -> None:
    names = [source.name for source in pipeline.sources]
    for i, (step_name, step) in enumerate(name_steps(pipeline.steps)):
        for name in step.priority if isinstance(step, WideStep) else ():
            if name not in names:
                error = PipelineError(
                    f"step {i + 1} ({step_name}): priority names no source '{name}'.{did_you_mean(name, names)}"
                )
                raise _located(error, "steps", i)


def walk_columns(pipeline: Pipeline, schema: pa.Schema) -> pa.Schema | None:
    """The schema after the steps, given that of the rows that come in. After a `python` or `pandas` step the columns are the function's affair: None.

    Raises:
        ColumnError, PipelineError: a step that can't work, named.
    """
    schema = identified(schema)
    columns: list[str] | None = schema.names
    if pipeline.id is not None and pipeline.id not in schema.names:
        raise _located(missing_column(pipeline.id, schema.names, "id"), "id")
    if pipeline.id is not None:
        try:
            id_texts(pipeline.id, pa.array([], schema.field(pipeline.id).type))
        except PipelineError as error:
            raise _located(error, "id") from None
    table: pa.Table | None = schema.empty_table()
    for i, (name, step) in enumerate(name_steps(pipeline.steps)):
        where = f"step {i + 1} ({name})"
        if columns is None or table is None:
            break
        for column in step.needs():
            if column not in columns:
                raise _located(missing_column(column, columns, where), "steps", i)
        if isinstance(step, Python):
            columns = table = None
            break
        columns = step.output_columns(columns)
        if isinstance(step, RowStep):
            table = _tried(step, table, where, i)
    if pipeline.split is not None and columns is not None:
        split = pipeline.split
        for column in [
            *([split_column(pipeline)] if split.similarity is not None else []),
            *([split.group_by] if split.group_by else []),
        ]:
            if column not in columns:
                raise _located(missing_column(column, columns, "split"), "split")
    return None if table is None else table.schema


def _tried(step: RowStep, table: pa.Table, where: str, place: int) -> pa.Table:
    """The step on an empty table: types that can't work are found before any work."""
    try:
        return step.apply(table)[0]
    except GristmillError as error:
        raise _located(type(error)(f"{where}: {error}", **error.context), "steps", place) from None


def _located(error: GristmillError, *location: str | int) -> GristmillError:
    """The error with its place in the pipeline."""
    error.context["location"] = location
    return error


def _sampled_schema(planned: list[Planned], known: Known) -> pa.Schema | None:
    found: list[tuple[pa.Schema, str]] = []
    for plan in planned:
        for item in plan.items[:SAMPLED]:
            schemas = known(plan.source, item)
            found += [
                (schema, str(item)) for schema in (_columns_of(plan.source, item) if schemas is None else schemas)
            ]
    return unify_schemas(found) if found else None


def _columns_of(source: Source, item: WorkItem) -> list[pa.Schema]:
    """The schema of an item's first rows; none where it has no rows."""
    chunk = next(iter(read_item(source, item, chunk_bytes=SAMPLE_BYTES)), None)
    return [chunk.table.schema] if chunk is not None and (chunk.table.num_rows or chunk.table.num_columns) else []


def known_columns(store: WorkStore, id_column: str | None, erased: Tombstones) -> Known:
    """What the ingested rows in a store say of their items' columns."""

    def known(source: Source, item: WorkItem) -> list[pa.Schema] | None:
        done = store.done(ingest_key(source, item, id_column, erased))
        if done is None:
            return None
        try:
            schemas = [stored_schema(store, key) for key in done["schemas"]]
        except FileNotFoundError:
            return None  # another run has removed it just now
        return [schema for schema in schemas if schema != identified(pa.schema([]))]  # of an item without rows

    return known


def ingest_key(source: Source, item: WorkItem, id_column: str | None, erased: Tombstones) -> str:
    """The name of an ingested item's work: what was read, as what, where from (the ledger's positions name files), and what has been erased."""
    return key_of("ingest", source.read_identity(), source.name, id_column, item.content, item.files, erased.digest)
