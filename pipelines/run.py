"""`gristmill.run`: a pipeline file or model in, a published version out; the same call again resumes or finds nothing to do."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill import __version__
from gristmill.errors import UsageError
from gristmill.pipelines.engines.choose import choose_engine, threads_for
from gristmill.pipelines.engines.watch import WAIT
from gristmill.pipelines.gating import publish_gated
from gristmill.pipelines.job import Job, prepare
from gristmill.pipelines.model import Pipeline
from gristmill.pipelines.outlook import bytes_of_work, remember
from gristmill.pipelines.progress import Progress
from gristmill.pipelines.report import write_report
from gristmill.pipelines.runner import Outcome, Runner
from gristmill.pipelines.sizes import parse_size
from gristmill.pipelines.steps.functions import Python
from gristmill.pipelines.work import Lock
from gristmill.storage.candidates import candidate_name, propose_version
from gristmill.storage.folder import Folder
from gristmill.storage.gc import sweep
from gristmill.storage.versions import publish

if TYPE_CHECKING:
    from gristmill.storage.dataset import Dataset

BASE_BYTES = 200 << 20  # what a worker process holds before it has read anything
BYTES_PER_CHUNK = 24  # copies of a chunk that a worker holds: text, edited text, sketches, compressed parts


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
    this process up to 4 GB of new input and 4 workers, unless steps are Python functions, else Dask's worker processes or Spark's threads.
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
    shown = Progress(progress)
    elsewhere = address is not None or not isinstance(engine, str)
    job = prepare(pipeline, settings, inputs or {}, scratch, shared=elsewhere)
    decide = in_process is None and not elsewhere
    threads = _threads(job, engine, workers, fresh=fresh) if decide else int(bool(in_process))
    started = choose_engine(
        engine, address=address, workers=workers, conf=conf, threads=threads, wait=wait, note=shown.note
    )
    with contextlib.ExitStack() as held:
        with started as chosen:  # a cluster comes up in the background, while columns are checked
            job.check()
            lock = held.enter_context(job.store.held())
            _make_ready(job, lock, fresh=fresh)
            room = chunk_bytes(memory, chosen.workers)
            runner = Runner(job.model, job.planned, chosen, job.store, job.folder, shown, room, job.base)
            outcome = runner.run()
            runner.seconds["total"] = time.monotonic() - start
            result = _publish(job, runner, outcome, candidate=candidate)
        _tidy(job, runner.used, lock)
    return result


def _make_ready(job: Job, lock: Lock, *, fresh: bool) -> None:
    """Claims the output, removes what was left half-written and, if `fresh`, what is finished."""
    _claim(job.folder)
    _sweep(job)
    if fresh:
        job.store.claim(lock, "wait for it, or leave out --fresh")
        job.store.prune(set())
        lock.share()


def _claim(folder: Folder) -> None:
    """Marks an output folder that has nothing yet, where work files are elsewhere: when this run is killed, the next one knows the shards for ours."""
    if not folder.exists("manifests") and not folder.exists("_work"):
        with contextlib.suppress(FileExistsError):
            folder.create("manifests/about.json", json.dumps({"made_by": f"gristmill {__version__}"}).encode())


def _tidy(job: Job, used: set[str], lock: Lock) -> None:
    """Notes what was run over, and removes work files that no run needs any more, unless another one is at work. used: the keys of those that this one needs."""
    remember(job)
    if lock.alone():
        job.store.prune(used)
        job.store.prune_frames(job.files)
    _sweep(job)


def _sweep(job: Job) -> None:
    """Removes what killed runs and workers of this machine left half-written."""
    job.store.sweep()
    sweep(job.folder)


def _publish(job: Job, runner: Runner, outcome: Outcome, *, candidate: bool) -> RunResult:
    """Publishes what the stages produced, or leaves it as a candidate, with the report beside it."""
    model, folder = job.model, job.folder
    facts: dict[str, Any] = {
        "files": outcome.files,
        "schema": outcome.schema,
        "expected_parent": job.parent,
        "pipeline": json.loads(model.model_dump_json(by_alias=True)),
        "engine": runner.engine.name,
        "counts": outcome.counts,
        "ledger": outcome.ledger,
        "splits": outcome.splits,
    }
    if job.base is not None:
        facts.update(job.base.account(outcome.counts))
    verdict = None
    if model.validate_ is None or job.suite is None:
        published = (propose_version if candidate else publish)(folder, **facts)
    else:
        began = time.monotonic()
        gated = publish_gated(folder, model.validate_, job.suite, candidate=candidate, **facts)
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


def _threads(job: Job, engine: Any, workers: int | None, *, fresh: bool) -> int:
    """How many threads of this process a run uses; 0: worker processes or a cluster."""
    size = bytes_of_work(job, fresh=fresh)
    threads = threads_for(size, workers, functions=any(isinstance(step, Python) for step in job.model.steps))
    return (
        threads if threads == 1 or engine == "dask" else 0
    )  # Spark is asked for by name: it gets all but the smallest
