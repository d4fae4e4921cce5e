"""Which engine a run uses: this process for a small input, else the one that was named, or the cluster that was handed in."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gristmill.errors import UsageError, did_you_mean
from gristmill.pipelines.engines.base import Engine, InProcess
from gristmill.pipelines.engines.watch import WAIT

SMALL_BYTES = 48_000_000  # inputs up to this size are done by one thread before others would have helped; compressed ones count five-fold
THREADED_BYTES = 4_000_000_000  # up to this size starting worker processes costs more than it brings
MOST_THREADS = 4  # beyond, what holds the GIL makes them wait
ENGINES = ("dask", "spark")


@contextlib.contextmanager
def choose_engine(
    engine: Any,
    *,
    address: str | None = None,
    workers: int | None = None,
    conf: Mapping[str, str] | None = None,
    threads: int = 0,
    wait: float = WAIT,
    note: Callable[[str], None] = lambda _: None,
) -> Iterator[Engine]:
    """The engine, started: "dask" or "spark", or a running dask.distributed Client or SparkSession, which stays open.

    threads: the work is done by so many threads of this process, unless it is 0 or a cluster was named or handed in. conf: settings of Spark. wait: seconds after which
    a cluster without workers is given up. note: is told what was chosen.

    Raises:
        UsageError: no such engine, or options that it doesn't have. MissingDependencyError: what the engine needs is not installed.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"workers={workers}: at least 1, or None for as many as cores")
    name, running = (engine, None) if isinstance(engine, str) else (_kind(engine), engine)
    if name not in ENGINES:
        raise UsageError(f"no engine '{name}'.{did_you_mean(str(name), ENGINES)}")
    if conf and (name != "spark" or running is not None):
        raise UsageError(
            "conf holds settings of a Spark session that gristmill starts: use it with engine='spark' (--engine spark)"
        )
    if running is not None and address is not None:
        raise UsageError(f"give a running cluster or address={address!r}, not both")
    if threads and address is None and running is None:
        with InProcess(name, threads) as chosen:
            chosen.note = note
            if threads > 1 or name == "spark":
                without = ", for the input is small: Spark is not started" if name == "spark" else ""
                note(f"{name}: {threads} thread{'s' if threads > 1 else ''} of this process{without}")
            yield chosen
        return
    with _start(name, workers, address, conf, running, wait) as chosen:
        chosen.note = note
        where = (
            f"at {address}"
            if address
            else "that is running"
            if running is not None
            else f"with {chosen.workers} workers on this machine"
        )
        note(f"{name}: {where}")
        yield chosen


def threads_for(size: int, workers: int | None, *, functions: bool) -> int:
    """How many threads of this process do the work for new input of so many bytes; 0: worker processes, or Spark's.

    functions: steps are the user's own, which hold the GIL and may not bear being called by several threads.
    """
    if size <= SMALL_BYTES:
        return 1
    workers = workers or os.cpu_count() or 1
    return 0 if size > THREADED_BYTES or workers > MOST_THREADS or functions else workers


def _kind(running: Any) -> str:
    module = type(running).__module__
    return next(
        (name for name, package in (("dask", "distributed"), ("spark", "pyspark")) if module.split(".")[0] == package),
        repr(running),
    )


def _start(
    name: str, workers: int | None, address: str | None, conf: Mapping[str, str] | None, running: Any, wait: float
) -> Any:
    if name == "spark":
        from gristmill.pipelines.engines.spark import SparkEngine

        return SparkEngine(workers, address, conf=conf, session=running, wait=wait)
    from gristmill.pipelines.engines.dask import DaskEngine

    return DaskEngine(workers, address, client=running, wait=wait)
