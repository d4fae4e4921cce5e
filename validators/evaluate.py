"""The evaluator: what is known without reading, one pass over the rest, a second where an expectation needs it, then the results."""

from __future__ import annotations

import datetime
import os
import time
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.errors import DamagedStateError
from gristmill.validators.bundles import remove
from gristmill.validators.columns import View
from gristmill.validators.expectations.base import Found, Outcome, Setting
from gristmill.validators.footers import from_footer
from gristmill.validators.formats import ResultFormat
from gristmill.validators.handover import evaluate_with_gx
from gristmill.validators.inputs import BATCH_ROWS, FEW_ROWS, Data, Piece
from gristmill.validators.passes import States, merge, scan
from gristmill.validators.plan import Key, Planned, Task, exception_info, plan_suite, tasks_of
from gristmill.validators.remote import scan_remotely
from gristmill.validators.rows import RowSet
from gristmill.validators.spill import DEFAULT_MEMORY, Spill
from gristmill.validators.states import StateStore, store_of
from gristmill.validators.suites import Suite
from gristmill.validators.verdict import Verdict, exception_message

FOOTER, STATE, ONE, TWO = "footer", "state", "one pass", "two passes"


def evaluate(
    data: Data,
    suite: Suite,
    form: ResultFormat,
    *,
    states: bool = True,
    threads: int | None = None,
    memory: int = DEFAULT_MEMORY,
    approximate: bool = False,
) -> Verdict:
    """The verdict on the data. Arguments are those of `api.validate`.

    Raises:
        SuiteError: a suite that can't be evaluated as written.
    """
    started = time.perf_counter()
    while True:
        setting = Setting(data, form, Spill(memory), threads or len(os.sched_getaffinity(0)), _again(data), approximate)
        try:
            results, failing = _results(suite, setting, states=states)
        except DamagedStateError as error:
            assert data.dataset is not None
            states = remove(data.dataset.folder, error.context["path"])
        else:
            return _verdict(data, suite, results, failing, time.perf_counter() - started)


def _results(suite: Suite, setting: Setting, *, states: bool) -> tuple[list[dict[str, Any]], dict[str, RowSet]]:
    """(the result of each expectation, {id: its failing rows})."""
    data, threads = setting.data, setting.threads
    planned = plan_suite(suite, data)
    first = tasks_of(planned, setting, lambda one: one.model.needs(setting) if one.model else {})
    store = store_of(data, first) if states else None
    if data.partitions is not None:
        known: States = scan_remotely(data, suite, setting, first)
        sources = {task.key: {ONE} for task in first}
    else:
        known = {task.key: task.make() for task in first}
        sources = _first_pass(data, first, threads, store, known)
    kept = dict(known)
    for one in planned:
        _take_errors(one, one.keys.values(), known)
    second = tasks_of(
        planned,
        setting,
        lambda one: one.model.needs_again(setting, _found(one, known)) if one.model else {},
        again=True,
    )
    if second:
        known |= {task.key: task.make() for task in second}
        _merged(scan(data, second, _pieces(data, range(len(data.shards)), threads), threads), known)
        for one in planned:
            _take_errors(one, one.again.values(), known)
    results, failing = [], {}
    for one in planned:
        result, rows = _result(one, setting, known, sources)
        results.append(result)
        if rows is not None:
            failing[one.entry.id] = rows
    if store is not None:
        store.conclude(data.shards, kept, threads)
    return results, failing


def _again(data: Data) -> Any:
    def again(rows: npt.NDArray[np.int64], columns: Sequence[str]) -> View:
        return View.of(data.take(rows, columns))

    return again


def _first_pass(
    data: Data, tasks: Sequence[Task], threads: int, store: StateStore | None, known: States
) -> dict[Key, set[str]]:
    """Takes all rows into the states, shard by shard: from the store, the footer, or the rows. {key: where they came from}."""
    sources: dict[Key, set[str]] = {task.key: set() for task in tasks}
    todo: dict[int, list[Task]] = {}
    ready: dict[int, States] = {}
    first = 0
    together = store.together(data.shards, known) if store else {}
    for key in together:
        sources[key].add(STATE)
    for number, shard in enumerate(data.shards):
        alone = [task for task in tasks if task.key not in together or number not in together[task.key].shards]
        found: States = store.load(shard, alone, first) if store and alone else {}
        for key in found:
            sources[key].add(STATE)
        found |= {key: one.state for key, one in together.items() if one.state and number == min(one.shards)}
        for task in alone:
            state = None if task.key in found or task.condition else from_footer(task.make(), shard)
            if state is not None:
                found[task.key] = state
                sources[task.key].add(FOOTER)
        ready[number] = found
        todo[number] = [task for task in alone if task.key not in found]
        first += shard.rows
    for numbers, left in _runs(todo):
        for task in left:
            sources[task.key].add(ONE)
        scanned = scan(data, left, _pieces(data, numbers, threads), threads) if left else iter(())
        _merge_shards(data, numbers, ready, scanned, known, store)
    return sources


def _pieces(data: Data, shards: Sequence[int], threads: int) -> list[Piece]:
    """The pieces of some shards, of which there is one for each thread if they have rows enough."""
    rows = sum(data.shards[number].rows for number in shards)
    return data.pieces(shards, rows=min(max(-(-rows // threads), FEW_ROWS), BATCH_ROWS))


def _runs(todo: dict[int, list[Task]]) -> list[tuple[list[int], list[Task]]]:
    """Shards in order, those that follow each other and need the same work together."""
    runs: list[tuple[list[int], list[Task]]] = []
    for number, tasks in todo.items():
        if runs and runs[-1][1] == tasks:
            runs[-1][0].append(number)
        else:
            runs.append(([number], tasks))
    return runs


def _merge_shards(
    data: Data, numbers: Sequence[int], ready: dict[int, States], scanned: Any, known: States, store: StateStore | None
) -> None:
    """Merges what was known of these shards and what was scanned, shard after shard, and keeps what is new."""
    waiting = None
    for number in numbers:
        shard: States = {}
        while True:
            waiting = waiting or next(scanned, None)
            if waiting is None or waiting[0].shard != number:
                break
            merge(shard, waiting[1])
            first, waiting = waiting[0].first - waiting[0].offset, None
        if shard and store:
            store.save(data.shards[number], shard, first)
        merge(known, ready[number])
        merge(known, shard)


def _merged(scanned: Any, known: States) -> None:
    for _, states in scanned:
        merge(known, states)


def _take_errors(one: Planned, keys: Any, known: States) -> None:
    for key in keys:
        state = known[key]
        if isinstance(state, BaseException):
            one.fail(state)


def _found(one: Planned, known: States) -> Found:
    return {name: known[key] for name, key in {**one.keys, **one.again}.items()}


def _result(
    one: Planned, setting: Setting, known: States, sources: dict[Key, set[str]]
) -> tuple[dict[str, Any], RowSet | None]:
    """(the result of an expectation, its failing rows)."""
    config = one.entry.config()
    if one.model is None:
        return evaluate_with_gx(one.entry, setting), None
    outcome = Outcome(False, {})
    if one.error is None:
        try:
            outcome = one.model.outcome(setting, _found(one, known))
        except DamagedStateError:
            raise
        except Exception as error:  # noqa: BLE001  an error while evaluating is a failure, shown as such
            one.fail(error, flat=True)
    result = {} if setting.form.boolean_only and not setting.form.return_unexpected_index_query else outcome.result
    made = {
        "success": bool(outcome.success),
        "expectation_config": config,
        "result": result,
        "meta": {},
        "exception_info": exception_info(one),
        "evaluated": _how(one, sources),
    }
    if outcome.approximate is not None:
        made["approximate"] = outcome.approximate
    return made, outcome.rows


def _how(one: Planned, sources: dict[Key, set[str]]) -> str:
    if one.again:
        return TWO
    every = {source for key in one.keys.values() for source in sources[key]}
    if ONE in every:
        return ONE
    return STATE if STATE in every else FOOTER


def _only_reported(result: dict[str, Any]) -> bool:
    """Whether a failure doesn't count: it isn't critical, and what it is about was evaluated."""
    return result["expectation_config"]["severity"] != "critical" and not exception_message(result)


def _verdict(
    data: Data, suite: Suite, results: list[dict[str, Any]], failing: dict[str, RowSet], seconds: float
) -> Verdict:
    good = sum(result["success"] for result in results)
    statistics = {
        "evaluated_expectations": len(results),
        "successful_expectations": good,
        "unsuccessful_expectations": len(results) - good,
        "success_percent": good / len(results) * 100 if results else None,
    }
    now = datetime.datetime.now(tz=datetime.UTC).isoformat()
    return Verdict(
        success=all(result["success"] or _only_reported(result) for result in results),
        results=results,
        statistics=statistics,
        suite_name=suite.name,
        suite_hash=suite.hash,
        data_name=data.name,
        num_rows=data.num_rows,
        shards=[(shard.name, shard.rows) for shard in data.shards],
        fingerprint=data.fingerprint,
        seconds=seconds,
        meta={"run_id": {"run_name": str(uuid.uuid4()), "run_time": now}, "validation_time": now},
        failing=failing,
    )
