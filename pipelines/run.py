"""`gristmill.run`: a pipeline file or model in, a published version out; the same call again resumes or finds nothing to do."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill import __version__
from gristmill.errors import NotADatasetError, UsageError
from gristmill.pipelines.engines.base import Engine
from gristmill.pipelines.engines.choose import choose_engine, threads_for
from gristmill.pipelines.engines.watch import WAIT
from gristmill.pipelines.gating import checked_suite, publish_gated
from gristmill.pipelines.loading import load_pipeline, naming_lines
from gristmill.pipelines.model import Pipeline
from gristmill.pipelines.plan import Planned, check_columns, ingest_key, known_columns, plan_segments, plan_sources
from gristmill.pipelines.progress import Progress
from gristmill.pipelines.published import Base, read_base
from gristmill.pipelines.report import write_report
from gristmill.pipelines.runner import Outcome, Runner
from gristmill.pipelines.sizes import parse_size
from gristmill.pipelines.steps.functions import Python
from gristmill.pipelines.work import Lock, WorkStore, key_of, open_store, scratch_of
from gristmill.storage.candidates import candidate_name, propose_version
from gristmill.storage.folder import Folder, open_folder
from gristmill.storage.gc import sweep
from gristmill.storage.tombstones import read_tombstones
from gristmill.storage.versions import publish

if TYPE_CHECKING:
    from gristmill.storage.dataset import Dataset
    from gristmill.validators.suites import Suite

BYTES_PER_CHUNK = (
    24  # a worker holds some copies of the chunk that it works on: text, edited text, sketches, compressed parts
)


@dataclass(frozen=True)
class RunResult:
    """What a run did. `counts`: rows read, created, kept, dropped, quarantined; read + created = kept + dropped + quarantined."""

    path: str
    version: int
    published: bool
    counts: dict[str, int]
    reused_items: int
    report_path: str
    fingerprint: str
    layout: str
    splits: dict[str, int]
    steps: dict[str, Any] = field(repr=False)
    seconds: dict[str, float] = field(repr=False)
    candidate: str | None = None  # the name of what waits to be published or rejected; version is then 0
    verdict: dict[str, Any] | None = (
        None  # of the pipeline's suite: suite, success, failed (texts), report, bad_rows, path; None without one
    )
    rows: dict[str, int] | None = None  # of a run that appends: before, added, after

    @property
    def dataset(self) -> Dataset:
        """The version or candidate that now holds the result, opened."""
        from gristmill.storage.dataset import open_dataset

        return open_dataset(
            self.path if self.candidate is None else f"{self.path}@{self.candidate}", version=self.version or None
        )

    def to_json_dict(self) -> dict[str, Any]:
        """The plain values, for `--json`."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def run(
    pipeline: str | Path | Mapping[str, Any] | Pipeline,
    *,
    engine: Any = "dask",
    address: str | None = None,
    conf: Mapping[str, str] | None = None,
    workers: int | None = None,
    wait: float = WAIT,
    memory: str | int | None = None,
    scratch: str | Path | None = None,
    fresh: bool = False,
    candidate: bool = False,
    settings: Sequence[str] = (),
    inputs: Mapping[str, Any] | None = None,
    in_process: bool | None = None,
    progress: str | None = None,
) -> RunResult:
    """The result of running the pipeline to a published version.

    engine: "dask" or "spark", or a running dask.distributed Client or SparkSession; small inputs run in this process. address: of an existing
    cluster's scheduler or master. conf: settings of Spark. workers: how many items are worked on at a time, as many as cores if None: threads of
    this process up to 4 GB of input and 4 workers, unless steps are Python functions, else Dask's worker processes or Spark's threads.
    wait: seconds after which a cluster that has no workers is given up. memory: bytes that all workers together may hold (`1.5GB`); the chunks that
    they work on are made to fit. scratch: the folder or URL of work files, `OUTPUT/_work` if None; with remote output and no cluster a folder of the
    user's cache. fresh: ignores finished work. candidate: publishes nothing, the result waits as a candidate (unless the newest version holds it
    already) for `gristmill validate`, `publish` or `reject`. settings: `key.path=value` texts laid over the file. inputs: the tables of `frame` sources
    by name. in_process: True works in one thread of this process, False on worker processes or a cluster; None decides. progress: bar, lines or quiet.

    The version is a function of the pipeline and the inputs: the same again publishes nothing. After a crash the same call resumes.

    Raises:
        PipelineError, InputError, ColumnError: refused before any work.
        RunError: could not finish; finished work is kept.
        CommitConflictError: another run published meanwhile; nothing of this one is visible.
    """
    start = time.monotonic()
    model = load_pipeline(pipeline, settings)
    shown = Progress(progress)
    folder = open_folder(model.output.path)
    parent = check_output(folder, model)
    store = open_store(scratch_folder(model, scratch, shared=address is not None or not isinstance(engine, str)))
    planned, cache = _plan(model, inputs or {}, store)
    base = base_of(folder, model, parent)
    suite = checked_suite(model.validate_) if model.validate_ else None
    threads = _threads(model, planned, engine, workers) if in_process is None else int(in_process)
    start_engine = choose_engine(
        engine, address=address, workers=workers, conf=conf, threads=threads, wait=wait, note=shown.note
    )
    with contextlib.ExitStack() as locked, contextlib.ExitStack() as started:
        chosen = started.enter_context(start_engine)  # a cluster comes up in the background, while columns are checked
        with naming_lines(pipeline):
            check_columns(model, planned, base, known_columns(store, model.id, read_tombstones(folder)))
        lock = locked.enter_context(store.held())
        _make_ready(store, folder, lock, fresh=fresh)
        runner = Runner(model, planned, chosen, store, folder, shown, chunk_bytes(memory, chosen.workers), base)
        outcome = runner.run()
        runner.seconds["total"] = time.monotonic() - start
        result = _publish(model, folder, chosen, runner, outcome, parent=parent, suite=suite, candidate=candidate)
        started.close()
        _tidy(runner, planned, cache, lock)
    return result


def _make_ready(store: WorkStore, folder: Folder, lock: Lock, *, fresh: bool) -> None:
    """Claims the output, removes what was left half-written and, if `fresh`, what is finished."""
    _claim(folder)
    _sweep(store, folder)
    if fresh:
        store.claim(lock, "wait for it, or leave out --fresh")
        store.prune(set())
        lock.share()


def _claim(folder: Folder) -> None:
    """Marks an output folder that has nothing yet, where work files are elsewhere: when this run is killed, the next one knows the shards for ours."""
    if not folder.exists("manifests") and not folder.exists("_work"):
        with contextlib.suppress(FileExistsError):
            folder.create("manifests/about.json", json.dumps({"made_by": f"gristmill {__version__}"}).encode())


def _tidy(runner: Runner, planned: Sequence[Planned], cache: dict[str, str], lock: Lock) -> None:
    """Notes what was run over, and removes work files that no run needs any more, unless another one is at work."""
    _remember(runner.store, runner.pipeline, planned, cache)
    if lock.alone():
        runner.store.prune(runner.used)
        runner.store.prune_frames([file for plan in planned for item in plan.items for file in item.files])
    _sweep(runner.store, runner.folder)


def _sweep(store: WorkStore, folder: Folder) -> None:
    """Removes what killed runs and workers of this machine left half-written."""
    store.sweep()
    sweep(folder)


def check_output(folder: Folder, model: Pipeline) -> int | None:
    """The newest version that the output folder holds, or None.

    Raises:
        NotADatasetError: the folder exists, isn't empty and isn't gristmill's.
    """
    from gristmill.storage.versions import newest_version

    if not folder.remote and Path(folder.base).is_file():
        raise NotADatasetError(f"output '{model.output.path}' is a file, expected a folder; choose a new or empty one")
    if not folder.exists("manifests") and not folder.exists("_work"):
        held = [name for name, *_ in folder.list("")][:5]
        if held:
            raise NotADatasetError(
                f"output '{model.output.path}' exists and is not a gristmill dataset (it holds {', '.join(held)}); choose a new or empty folder"
            )
    return newest_version(folder)


def scratch_folder(model: Pipeline, scratch: str | Path | None, *, shared: bool = False) -> str:
    """The folder of work files: given, else beside the data; for remote output that is in the store if workers are elsewhere (`shared`) or work is
    there already, else a local folder of the user's cache. It need not be there yet.

    Raises:
        UsageError: it can't be made.
    """
    output = open_folder(model.output.path)
    chosen = scratch_of(output.base, scratch, shared=shared or (output.remote and output.exists("_work/items")))
    if "://" in chosen:
        return chosen
    above = next(path for path in (Path(chosen), *Path(chosen).parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        reason = f"no permission to write in '{above}'" if above.is_dir() else f"'{above}' is a file"
        raise UsageError(f"can't make the folder for work files '{chosen}': {reason}; give another one with --scratch")
    return chosen


def base_of(folder: Folder, model: Pipeline, parent: int | None) -> Base | None:
    """The version that the run appends to; None where it makes a whole version."""
    if model.output.mode != "append" or parent is None:
        return None
    return read_base(folder, parent, by_id=model.id is not None)


def chunk_bytes(memory: str | int | None, workers: int) -> int:
    """How much raw input a worker reads at a time, so that all of them together stay within `memory`."""
    if memory is None:
        return 16 << 20
    room = parse_size(memory) // max(workers, 1) - BASE_BYTES
    if room < BYTES_PER_CHUNK << 20:
        least = workers * (BASE_BYTES + (BYTES_PER_CHUNK << 20))
        raise UsageError(
            f"--memory {memory} is too little for {workers} workers; at least {least // 10**6 + 1}MB, or fewer --workers"
        )
    return min(16 << 20, room // BYTES_PER_CHUNK)


BASE_BYTES = 200 << 20  # what a worker process holds before it has read anything


def _threads(model: Pipeline, planned: Sequence[Planned], engine: Any, workers: int | None) -> int:
    """How many threads of this process a run uses; 0: worker processes or a cluster."""
    size = sum(
        (5 if str(item).endswith((".gz", ".zst")) else 1) * item.bytes for plan in planned for item in plan.items
    )
    threads = threads_for(size, workers, functions=any(isinstance(step, Python) for step in model.steps))
    return (
        threads if threads == 1 or engine == "dask" else 0
    )  # Spark is asked for by name: it gets all but the smallest


def plan(
    pipeline: str | Path | Mapping[str, Any] | Pipeline,
    *,
    scratch: str | Path | None = None,
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """What a run would read and redo, and why: items by source with `read` or `reuse` and the reason, and the stages after them."""
    model = load_pipeline(pipeline, settings)
    folder = open_folder(model.output.path)
    parent, erased = check_output(folder, model), read_tombstones(folder)
    store = open_store(scratch_folder(model, scratch))
    planned, _ = _plan(model, {}, store)
    base = base_of(folder, model, parent)
    with naming_lines(pipeline):
        check_columns(model, planned, base, known_columns(store, model.id, erased))
    if model.validate_:
        checked_suite(model.validate_)
    last = _last(store)
    known = set(last.get("files", []))
    every = [(source_plan.source, item) for source_plan in planned for item in source_plan.items]
    done = store.summaries([ingest_key(source, item, model.id, erased) for source, item in every])
    items = [
        {
            "source": source.name,
            "item": str(item),
            "bytes": item.bytes,
            "action": "read" if summary is None else "reuse",
            "reason": "done"
            if summary is not None
            else "content or reading options changed"
            if any(file in known for file in item.files)
            else "new",
        }
        for (source, item), summary in zip(every, done, strict=True)
    ]
    now, before = _segment_texts(model), last.get("segments", [])
    gone = sorted(known - {file for p in planned for item in p.items for file in item.files}) if base is None else []
    outlook = None if base is None else base.outlook(store, [e for part in plan_segments(model) for e in part.extracts])
    fresh = any(item["action"] == "read" for item in items) or bool(gone) or bool(outlook and outlook["read"])
    steps = [
        {"segment": number + 1, "steps": text["names"], "action": action, "reason": reason}
        for number, (text, (action, reason)) in enumerate(zip(now, _actions(now, before, fresh=fresh), strict=True))
    ]
    return {
        "pipeline": model.name,
        "output": model.output.path,
        "newest_version": parent,
        "appends_to": outlook,
        "items": items,
        "removed_files": gone,
        "segments": steps,
    }


def _plan(model: Pipeline, inputs: Mapping[str, Any], store: WorkStore) -> tuple[list[Planned], dict[str, str]]:
    cache: dict[str, str] = store.noted("hashes.json") or {}
    return plan_sources(model, inputs, store, cache), cache


def _publish(
    model: Pipeline,
    folder: Folder,
    engine: Engine,
    runner: Runner,
    outcome: Outcome,
    *,
    parent: int | None,
    suite: Suite | None,
    candidate: bool,
) -> RunResult:
    facts: dict[str, Any] = {
        "files": outcome.files,
        "schema": outcome.schema,
        "expected_parent": parent,
        "pipeline": json.loads(model.model_dump_json(by_alias=True)),
        "engine": engine.name,
        "counts": outcome.counts,
        "ledger": outcome.ledger,
        "splits": outcome.splits,
    }
    if runner.base is not None:
        facts.update(runner.base.account(outcome.counts))
    verdict = None
    if model.validate_ is None or suite is None:
        published = (propose_version if candidate else publish)(folder, **facts)
    else:
        began = time.monotonic()
        gated = publish_gated(folder, model.validate_, suite, candidate=candidate, **facts)
        published, verdict = gated.published, gated.summary()
        runner.seconds["validate"] = time.monotonic() - began
    manifest = published.manifest
    report = write_report(folder, model, outcome, runner.seconds, runner.reused_items, manifest)
    return RunResult(
        path=model.output.path,
        version=manifest.version,
        published=published.published,
        counts=outcome.counts,
        reused_items=runner.reused_items,
        report_path=report,
        fingerprint=manifest.fingerprint,
        layout=manifest.layout,
        splits=dict(manifest.splits),
        steps=outcome.steps,
        seconds=runner.seconds,
        candidate=None if manifest.version else candidate_name(manifest),
        verdict=verdict,
        rows=outcome.rows,
    )


def _actions(
    now: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]], *, fresh: bool
) -> Iterator[tuple[str, str]]:
    """For each segment what is done with it, and why. fresh: whether there is new input."""
    some = "new items, and rows whose decisions change"
    rows_change = decisions_change = False
    for text, old in itertools.zip_longest(now, before[: len(now)]):
        if rows_change or old is None or text["rows"] != old.get("rows"):
            rows_change = True
            yield "redo", "new" if not before else "a step in it or before it changed"
        elif text["wide"] != old["wide"]:
            decisions_change = True
            yield "compare again", "a step that compares rows changed; what it compares is there"
        elif decisions_change:
            yield some, "a step before it that compares rows changed"
        else:
            yield (some, "the input changed") if fresh else ("reuse", "done")


def _segment_texts(model: Pipeline) -> list[dict[str, Any]]:
    """names: of the steps of each segment. rows, wide: what its rows, and what the decisions behind them depend on."""
    texts = []
    for part in plan_segments(model):
        names = [name for name, _ in part.steps] + [name for name, _ in part.wide]
        models = [[name, type(step).VERSION, step.model_dump(mode="json")] for name, step in part.wide]
        texts.append({"names": names, "rows": key_of(part.identity()), "wide": models})
    return texts


def _remember(store: WorkStore, model: Pipeline, planned: Sequence[Planned], cache: dict[str, str]) -> None:
    files = sorted({file for plan in planned for item in plan.items for file in item.files})
    for name, content in (
        ("last_run.json", {"files": files, "segments": _segment_texts(model)}),
        ("hashes.json", cache),
    ):
        store.note(name, content)


def _last(store: WorkStore) -> dict[str, Any]:
    return store.noted("last_run.json") or {}
