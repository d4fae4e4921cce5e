"""One run, stage by stage: ingest, identity, segments and wide steps, split, shards, ledger. What is finished already is found again."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.errors import BalanceError, CommitConflictError, UsageError
from gristmill.pipelines import duplicates, identity
from gristmill.pipelines.assign import Assign, assign, cluster_splits, to_items
from gristmill.pipelines.bridges import join_published
from gristmill.pipelines.compared import COMPARED, Compared
from gristmill.pipelines.engines.base import Engine
from gristmill.pipelines.exchange import Part, exchange
from gristmill.pipelines.extracts import ExtractOf, GroupKey, Sketch, UidKey
from gristmill.pipelines.ledger import ITEMS, ItemLedger, Ledger, write_ledger
from gristmill.pipelines.model import Pipeline, Split
from gristmill.pipelines.near import near_duplicates
from gristmill.pipelines.output import Assigned, Shard, cut, pack, write_shard
from gristmill.pipelines.plan import Planned, SegmentPlan, ingest_key, plan_segments, split_sketch, walk_columns
from gristmill.pipelines.progress import Progress
from gristmill.pipelines.published import Base, already_published, fitted, read_shard, uid_view
from gristmill.pipelines.shuffled import Form, Kept, shuffled_shards, write_shuffled
from gristmill.pipelines.slices import route
from gristmill.pipelines.sources import unify_schemas
from gristmill.pipelines.splits import clusters
from gristmill.pipelines.stages import Ingest, Segment, identified, ingest, segment, stored_schema
from gristmill.pipelines.steps.dedupe import DropExactDuplicates, DropNearDuplicates
from gristmill.pipelines.steps.functions import Python
from gristmill.pipelines.work import WorkStore, finish, key_of
from gristmill.storage.folder import Folder
from gristmill.storage.manifest import FileEntry, FileList
from gristmill.storage.parquet import ParquetSettings
from gristmill.storage.tombstones import Tombstones, read_tombstones


@dataclass
class ItemState:
    """Where one work item stands: the stage whose rows are current, and the slices that are still to be applied to them."""

    number: int
    source: str
    label: str
    ingested: str
    rows: str
    identity: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    schemas: Sequence[str] = ()  # the work keys of those of the current rows


@dataclass
class Outcome:
    """What the stages produced, ready to be published."""

    files: FileList
    schema: pa.Schema
    counts: dict[str, int]
    steps: dict[str, Any]
    ledger: str
    splits: list[str]
    rows: dict[str, int] | None = None  # where the run appends: before, added, after


@dataclass
class Runner:
    """Carries a run through its stages. `used` collects every work key, so that the rest can be pruned."""

    pipeline: Pipeline
    planned: Sequence[Planned]
    engine: Engine
    store: WorkStore
    folder: Folder
    progress: Progress
    chunk_bytes: int
    base: Base | None = None  # the version that is appended to
    used: set[str] = field(default_factory=set)
    reused_items: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    steps: dict[str, Any] = field(default_factory=dict)
    erased: Tombstones = field(init=False)
    compared: Compared = field(init=False)

    def __post_init__(self) -> None:
        self.erased = read_tombstones(self.folder)
        self.compared = Compared(self.store.noted(COMPARED) or {})

    def run(self) -> Outcome:
        """Every stage in order.

        Raises:
            BalanceError: rows that can't be accounted for.
            CommitConflictError: rows were erased meanwhile.
        """
        items, read, bad = self._ingest()
        schema = self._unify(items)
        plan = self._plan(schema, read - bad)
        self._read_published(plan)
        self._identify(items)
        for number, part in enumerate(plan):
            name, last = f"steps {number + 1}/{len(plan)}", number + 1 == len(plan)
            self._segment(items, part, schema if number == 0 else None, name, last=last)
            self._wide(items, part)
        self._drop_published(items, plan[-1])
        files, final = self._shards(items, self._split(items, plan[-1]))
        ledger = self._ledger(items)
        self.store.note(COMPARED, self.compared.now)
        counts = self._balance(read, bad, files.num_rows)
        if read_tombstones(self.folder) != self.erased:
            raise CommitConflictError(
                f"'{self.folder.base}': rows were erased while this run was at work. Nothing of it is visible. Run the same command again: it leaves them out."
            )
        if self.base is None:
            return Outcome(files, final, counts, self.steps, ledger, self._split_names())
        every = FileList(pa.concat_tables([self.base.files.table, files.table]))
        rows = {"before": self.base.files.num_rows, "added": files.num_rows, "after": every.num_rows}
        splits = self._split_names() if files.num_rows else self.base.splits
        return Outcome(every, final, counts, self.steps, ledger, splits, rows)

    def map(self, name: str, function: Callable[[Any], dict[str, Any]], tasks: Sequence[Any]) -> list[dict[str, Any]]:
        """The summaries of the tasks, in order; those that are done already aren't run."""
        start = time.monotonic()
        found = self.store.summaries([task.key for task in tasks])
        self.reused_items += len(tasks) - found.count(None)
        self.used.update(task.key for task in tasks)
        with self.progress.stage(name, found.count(None)) as stage:
            summaries = finish(self.engine, function, tasks, found, stage.advance)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start
        return summaries

    def _ingest(self) -> tuple[list[ItemState], int, int]:
        tasks: list[Ingest] = []
        items: list[ItemState] = []
        for plan in self.planned:
            for item in plan.items:
                key = ingest_key(plan.source, item, self.pipeline.id, self.erased)
                tasks.append(
                    Ingest(self.store, key, plan.source, item, self.pipeline.id, self.chunk_bytes, self.erased)
                )
                items.append(ItemState(len(items), plan.source.name, str(item), key, key))
        summaries = self.map("ingest", ingest, tasks)
        rules: dict[str, int] = {}
        for summary in summaries:
            for reason, count in summary["reasons"].items():
                rules[reason] = rules.get(reason, 0) + count
        for state, summary in zip(items, summaries, strict=True):
            state.schemas = summary["schemas"]
        bad, null = sum(s["bad"] for s in summaries), sum(s.get("null_ids", 0) for s in summaries)
        if erased := sum(s["erased"] for s in summaries):
            self._count("erase", dropped=erased, rules={"erased": erased})
        self._count("ingest", quarantined=bad, rules=rules)
        self._count("id", quarantined=null, rules={"null_id": null} if null else {})
        return items, sum(s["rows"] for s in summaries) + bad, bad

    def _unify(self, items: Sequence[ItemState]) -> pa.Schema:
        """The schema that the current rows of all items can be cast to."""
        first: dict[str, str] = {}
        for item in items:
            for key in item.schemas:
                first.setdefault(key, item.label)
        self.used.update(first)
        found = [(stored_schema(self.store, key), label) for key, label in first.items()]
        return identified(unify_schemas(found) if found else pa.schema([]))

    def _plan(self, schema: pa.Schema, rows: int) -> list[SegmentPlan]:
        """The segments; without rows and the columns that steps need there is nothing for them to do."""
        if not rows:
            try:
                walk_columns(self.pipeline, schema)
            except UsageError:
                return [SegmentPlan((), (), ())]
        made = self.base is not None and any(isinstance(step, Python) for step in self.pipeline.steps)
        return plan_segments(self.pipeline, [self.base.uids] if self.base is not None and made else [])

    def _read_published(self, plan: Sequence[SegmentPlan]) -> None:
        """Has of the published rows what the steps compare; of a shard that an earlier run has read nothing is read again."""
        if self.base is not None:
            extracts = [self.base.uids, *[extract for part in plan for extract in part.extracts]]
            self.map("published", read_shard, self.base.tasks(self.store, extracts))

    def _identify(self, items: Sequence[ItemState]) -> None:
        start = time.monotonic()
        sources = [identity.IdentityOf(item.number, item.ingested, item.source) for item in items]
        if self.base is not None:
            sources += [identity.IdentityOf(found.item, found.key, "") for found in self.base.sources(self.base.uids)]
        found = self.store.summaries([source.key for source in sources])
        size = sum(int((summary or {}).get("rows", 0)) for summary in found) * 80
        reduce = identity.resolver(by_id=self.pipeline.id is not None)
        names = exchange(
            self.engine, self.store, identity.in_order(sources), identity.view, reduce, size=size, name="identity"
        )
        self.used.update(names.used)
        for item in self._take_away(items, "id", names.parts):
            item.identity = item.pending
        self.seconds["identity"] = time.monotonic() - start

    def _segment(
        self, items: Sequence[ItemState], part: SegmentPlan, schema: pa.Schema | None, name: str, *, last: bool
    ) -> None:
        tasks = []
        for item in items:
            text = schema.serialize().to_pybytes() if schema is not None else None
            key = key_of("segment", item.rows, item.pending, text, part.identity())
            tasks.append(
                Segment(self.store, key, item.rows, item.pending, schema, part.steps, part.extracts, item.label, last)
            )
        summaries = self.map(name, segment, tasks)
        for item, task, summary in zip(items, tasks, summaries, strict=True):
            item.rows, item.pending, item.stages = task.key, (), (*item.stages, task.key)
            item.schemas = summary["schemas"]
            for step, totals in summary["steps"].items():
                self._count(step, **totals)

    def _wide(self, items: Sequence[ItemState], part: SegmentPlan) -> None:
        for number, (name, step) in enumerate(part.wide):
            start = time.monotonic()
            sources = self._extracts(items, part, number)
            if isinstance(step, DropExactDuplicates):
                found = duplicates.exact_duplicates(self.engine, self.store, step, sources)
            else:
                assert isinstance(step, DropNearDuplicates)
                found = near_duplicates(self.engine, self.store, step, sources, self.compared)
            self._take_away(items, name, found.decided)
            self.used.update(found.used)
            self.steps[name].update(found.counts)
            self.seconds[name] = time.monotonic() - start
            self.progress.note(f"{name}: {self.steps[name]['dropped']:,} dropped, {self.seconds[name]:.1f} s")

    def _take_away(self, items: Sequence[ItemState], name: str, decided: Sequence[Part]) -> list[ItemState]:
        """The items whose rows the decisions (ROUTED) of the step are about: these rows leave with the next stage. Counts them."""
        slices, used = route(self.engine, self.store, decided, name)
        self.used.update(used)
        self._count(name)
        for number, one in slices.items():
            items[number].pending = (*items[number].pending, one.key)
            left, rules = one.leaving - one.quarantined, json.loads(one.rules)
            self._count(name, dropped=left, quarantined=one.quarantined, rules=rules)
        return [items[number] for number in slices]

    def _extracts(self, items: Sequence[ItemState], part: SegmentPlan, number: int) -> list[ExtractOf]:
        """The segment's extract with this number: of the items, and of the published shards."""
        own = [ExtractOf(item.number, item.rows, f"extract-{number}", item.pending) for item in items]
        return own if self.base is None else [*own, *self.base.sources(part.extracts[number])]

    def _drop_published(self, items: Sequence[ItemState], part: SegmentPlan) -> None:
        """Drops rows that steps have made under the name of a published one; those that were read under it have left before."""
        for number, extract in enumerate(part.extracts):
            if isinstance(extract, UidKey):
                sources = self._extracts(items, part, number)
                size = duplicates.rows_of(self.store, sources) * 80
                found = exchange(self.engine, self.store, sources, uid_view, already_published, size=size, name="names")
                self.used.update(found.used)
                self._take_away(items, "output", found.parts)

    def _split(self, items: Sequence[ItemState], part: SegmentPlan) -> list[Assigned]:
        """For each item the key of its assignment, and its totals by split."""
        start = time.monotonic()
        clustered = {} if self.pipeline.split is None else self._clustered(self.pipeline.split, items, part)
        self.seconds["clusters"] = time.monotonic() - start
        shares = dict(self.pipeline.split.shares) if self.pipeline.split else None
        splits = max(1, len(self._split_names()))
        tasks = []
        for item in items:
            facts = (item.rows, item.pending, clustered.get(item.number), shares, splits)
            tasks.append(Assign(self.store, key_of("assignment", facts), *facts))
        summaries = self.map("split", assign, tasks)
        return [(task.key, summary["totals"]) for task, summary in zip(tasks, summaries, strict=True)]

    def _clustered(self, split: Split, items: Sequence[ItemState], part: SegmentPlan) -> dict[int, str]:
        """The keys of the items' slices of rows whose split is not their own hash's."""
        sketches, groups = self._split_sources(items, part)
        if self.base is not None:
            known = self._split_names()
            shards = np.array([known.index(name) for name in self.base.files.table["split"].to_pylist()], np.int8)
            joined = join_published(self.engine, self.store, split, sketches, groups, shards, compared=self.compared)
            self._take_away(items, "split", joined.decided)
            self.used.update(joined.used)
            self.steps["split"].update(joined.counts)
            clustered, used = to_items(self.engine, self.store, joined.coded)
        else:
            linked = clusters(self.engine, self.store, split, sketches, groups, self.compared)
            self.used.update(linked.used)
            self.steps["split"] = dict(linked.counts)
            rows = [item.rows for item in items]
            clustered, used = cluster_splits(self.engine, self.store, linked.stars, rows, split.shares)
        self.used.update(used, clustered.values())
        return clustered

    def _split_names(self) -> list[str]:
        """The pipeline's splits, then those that only the published version has."""
        own = list(self.pipeline.split.shares) if self.pipeline.split else []
        return [*own, *[name for name in (self.base.splits if self.base else []) if name not in own]]

    def _split_sources(self, items: Sequence[ItemState], part: SegmentPlan) -> tuple[list[ExtractOf], list[ExtractOf]]:
        split = self.pipeline.split
        assert split is not None
        wanted = split_sketch(self.pipeline, split)
        sketches: list[ExtractOf] = []
        groups: list[ExtractOf] = []
        for number, extract in enumerate(part.extracts):
            sources = self._extracts(items, part, number)
            if isinstance(extract, Sketch) and split.similarity is not None and extract.serves(wanted):
                sketches = sources
            elif isinstance(extract, GroupKey):
                groups = sources
        return sketches, groups

    def _shards(self, items: Sequence[ItemState], assigned: Sequence[Assigned]) -> tuple[FileList, pa.Schema]:
        output = self.pipeline.output
        schema = self._unify(items)
        schema = schema if self.base is None else fitted(self.base, schema)
        settings = ParquetSettings(row_group_bytes=output.row_group_bytes, row_group_rows=output.row_group_rows)
        names: list[str | None] = [*self._split_names()] or [None]
        rows = [item.rows for item in items]
        form = Form(self.folder, schema, settings)
        if output.order == "shuffled":
            sizes = [sum(totals[code]["bytes"] for _, totals in assigned) for code in range(len(names))]
            kept = [Kept(stage, key) for stage, (key, _) in zip(rows, assigned, strict=True)]
            splits = list(zip(names, sizes, strict=True))
            summaries = self._shuffled(kept, splits, form)
        else:
            summaries = self.map("shards", write_shard, self._with_files(self._packed(names, rows, assigned, form)))
        return FileList.of([FileEntry.from_dict(entry) for summary in summaries for entry in summary["files"]]), schema

    def _packed(
        self, names: Sequence[str | None], rows: Sequence[str], assigned: Sequence[Assigned], form: Form
    ) -> list[Shard]:
        """Shards of the rows in item order."""
        cuts = functools.partial(self.map, "cuts", cut)
        packed = pack(cuts, self.store, rows, assigned, self.pipeline.output.shard_bytes)
        schema = form.schema.serialize().to_pybytes()
        tasks = []
        for code, (split, shards) in enumerate(zip(names, packed, strict=False)):  # without items nothing is packed
            for pieces in shards:
                facts = [[piece.rows, piece.assignment, piece.start, piece.stop] for piece in pieces]
                key = key_of("shard", self.folder.url(""), split, code, facts, schema, repr(form.settings))
                tasks.append(Shard(self.store, key, self.folder, split, code, pieces, form.schema, form.settings))
        return tasks

    def _shuffled(
        self, kept: Sequence[Kept], splits: Sequence[tuple[str | None, int]], form: Form
    ) -> list[dict[str, Any]]:
        """The summaries of shards of the rows in one random order."""
        start, output = time.monotonic(), self.pipeline.output
        tasks, used = shuffled_shards(
            self.engine, self.store, kept, splits, form, seed=output.seed, shard_bytes=output.shard_bytes
        )
        self.used.update(used)
        self.seconds["shuffle"] = time.monotonic() - start
        return self.map("shards", write_shuffled, self._with_files(tasks))

    def _with_files(self, tasks: Sequence[Any]) -> list[Any]:
        """Forgets finished shards whose file is gone from the dataset, so that they are written again."""
        found = self.store.summaries([task.key for task in tasks])
        held = [
            (task.key, entry["path"])
            for task, summary in zip(tasks, found, strict=True)
            for entry in (summary or {"files": ()})["files"]
        ]
        self._forget_lost(held)
        return list(tasks)

    def _forget_lost(self, held: Sequence[tuple[str, str]]) -> None:
        """Forgets the work of each key whose file is gone from the dataset."""
        sizes = self.folder.sizes([path for _, path in held])
        for key in {key for (key, _), size in zip(held, sizes, strict=True) if size is None}:
            self.store.forget(key)

    def _ledger(self, items: Sequence[ItemState]) -> str:
        facts = [[item.ingested, item.identity, item.stages, item.pending] for item in items]
        appended = None if self.base is None else self.base.manifest.version
        base = f"ledger/{key_of('ledger', ITEMS, facts, appended)[:20]}"
        every = [ItemLedger(item.source, item.ingested, item.identity, item.stages, item.pending) for item in items]
        tasks = []
        for start in range(0, len(items), ITEMS):
            content = key_of("ledger of items", self.folder.url(""), facts[start : start + ITEMS], appended)
            key, some = key_of("ledger", base, start, content), tuple(every[start : start + ITEMS])
            tasks.append(Ledger(self.store, key, content, self.folder, base, start, some, appended))
        found = self.store.summaries([task.key for task in tasks])
        self._forget_lost([(t.key, t.path("origin")) for t, s in zip(tasks, found, strict=True) if s is not None])
        self.used.update(task.content for task in tasks)
        self.map("ledger", write_ledger, tasks)
        return base

    def _count(
        self,
        step: str,
        *,
        dropped: int = 0,
        quarantined: int = 0,
        created: int = 0,
        rules: dict[str, int] | None = None,
    ) -> None:
        totals = self.steps.setdefault(step, {"dropped": 0, "quarantined": 0, "created": 0, "rules": {}})
        totals["dropped"] += dropped
        totals["quarantined"] += quarantined
        totals["created"] += created
        for rule, count in (rules or {}).items():
            totals["rules"][rule] = totals["rules"].get(rule, 0) + count

    def _balance(self, read: int, bad: int, kept: int) -> dict[str, int]:
        counted = [totals for totals in self.steps.values() if "dropped" in totals]
        counts = {
            "read": read,
            "created": sum(totals["created"] for totals in counted),
            "kept": kept,
            "dropped": sum(totals["dropped"] for totals in counted),
            "quarantined": sum(totals["quarantined"] for totals in counted),
        }
        if counts["read"] + counts["created"] != counts["kept"] + counts["dropped"] + counts["quarantined"]:
            raise BalanceError(
                f"rows that can't be accounted for: {counts}, of which {bad} could not be read. Nothing was published.",
                **counts,
            )
        return counts
