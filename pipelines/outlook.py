"""What a run has to do, seen beforehand: `gristmill.plan` says what it would read and redo, and why; how many bytes that is; what a run notes for both."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gristmill.pipelines.engines.choose import SMALL_BYTES, THREADED_BYTES
from gristmill.pipelines.job import HASHES, Job, prepare
from gristmill.pipelines.model import Pipeline
from gristmill.pipelines.plan import ingest_key, plan_segments
from gristmill.pipelines.sources import Source, WorkItem
from gristmill.pipelines.work import key_of

COMPARED = 20  # a row that is only compared takes about so many times less than one that is read
LAST = "last_run.json"  # beside the work: files and segments of the last run


def plan(
    pipeline: str | Path | Mapping[str, Any] | Pipeline,
    *,
    scratch: str | Path | None = None,
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """What a run would read and redo, and why: items by source with `read` or `reuse` and the reason, and the stages after them."""
    job = prepare(pipeline, settings, {}, scratch)
    job.check()
    model, store, base = job.model, job.store, job.base
    last = store.noted(LAST) or {}
    known = set(last.get("files", []))
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
        for source, item, summary in _items(job)
    ]
    now, before = _segment_texts(model), last.get("segments", [])
    gone = sorted(known - set(job.files)) if base is None else []
    outlook = None if base is None else base.outlook(store, [e for part in plan_segments(model) for e in part.extracts])
    fresh = any(item["action"] == "read" for item in items) or bool(gone) or bool(outlook and outlook["read"])
    steps = [
        {"segment": number + 1, "steps": text["names"], "action": action, "reason": reason}
        for number, (text, (action, reason)) in enumerate(zip(now, _actions(now, before, fresh=fresh), strict=True))
    ]
    return {
        "pipeline": model.name,
        "output": model.output.path,
        "newest_version": job.parent,
        "appends_to": outlook,
        "items": items,
        "removed_files": gone,
        "segments": steps,
    }


def bytes_of_work(job: Job, *, fresh: bool) -> int:
    """About the bytes of input that are to be read or gone through: items that are only compared with new ones count little."""
    sizes = [
        (5 if str(item).endswith((".gz", ".zst")) else 1) * item.bytes for plan in job.planned for item in plan.items
    ]
    last = job.store.noted(LAST) or {}
    redone = any(
        action == "redo" for action, _ in _actions(_segment_texts(job.model), last.get("segments", []), fresh=True)
    )
    if fresh or redone or not SMALL_BYTES < sum(sizes) < THREADED_BYTES * COMPARED:  # they need not be looked up
        return sum(sizes)
    through = set(last.get("files", []))  # of what a run that was killed has read, the steps may be still to do
    known = [summary is not None and through.issuperset(item.files) for _, item, summary in _items(job)]
    return sum(size // COMPARED if old else size for size, old in zip(sizes, known, strict=True))


def _items(job: Job) -> Iterator[tuple[Source, WorkItem, dict[str, Any] | None]]:
    """Each work item with its source and, if it was read before, the summary of that."""
    every = [(plan.source, item) for plan in job.planned for item in plan.items]
    done = job.store.summaries([ingest_key(source, item, job.model.id, job.erased) for source, item in every])
    for (source, item), summary in zip(every, done, strict=True):
        yield source, item, summary


def remember(job: Job) -> None:
    """Notes what was run over."""
    job.store.note(LAST, {"files": sorted(set(job.files)), "segments": _segment_texts(job.model)})
    job.store.note(HASHES, job.hashes)


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
