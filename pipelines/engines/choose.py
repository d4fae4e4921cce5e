"""Which engine a run uses: this process for a small input, else the one that was named, or the cluster that was handed in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gristmill.errors import UsageError, did_you_mean
from gristmill.pipelines.engines.base import Engine, InProcess

IN_PROCESS_BYTES = 48_000_000  # inputs up to this size (compressed ones count five-fold) are done before worker processes would have started
ENGINES = ("dask", "spark")


@contextlib.contextmanager
def choose_engine(
    engine: Any,
    *,
    address: str | None = None,
    workers: int | None = None,
    conf: Mapping[str, str] | None = None,
    small: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> Iterator[Engine]:
    """The engine, started: "dask" or "spark", or a running dask.distributed Client or SparkSession, which stays open.

    small: the work is done in this process, unless a cluster was named or handed in. conf: settings of Spark. note: is told what was chosen.

    Raises:
        UsageError: no such engine, or options that it doesn't have. MissingDependencyError: what the engine needs is not installed.
    """
    name, running = (engine, None) if isinstance(engine, str) else (_kind(engine), engine)
    if name not in ENGINES:
        raise UsageError(f"no engine '{name}'.{did_you_mean(str(name), ENGINES)}")
    if conf and (name != "spark" or running is not None):
        raise UsageError(
            "conf holds settings of a Spark session that gristmill starts: use it with engine='spark' (--engine spark)"
        )
    if running is not None and address is not None:
        raise UsageError(f"give a running cluster or address={address!r}, not both")
    if small and address is None and running is None:
        with InProcess(name) as chosen:
            yield chosen
        return
    with _start(name, workers, address, conf, running) as chosen:
        where = (
            f"at {address}"
            if address
            else "that is running"
            if running is not None
            else f"with {chosen.workers} workers on this machine"
        )
        note(f"{name}: {where}")
        yield chosen


def _kind(running: Any) -> str:
    module = type(running).__module__
    return next(
        (name for name, package in (("dask", "distributed"), ("spark", "pyspark")) if module.split(".")[0] == package),
        repr(running),
    )


def _start(name: str, workers: int | None, address: str | None, conf: Mapping[str, str] | None, running: Any) -> Any:
    if name == "spark":
        from gristmill.pipelines.engines.spark import SparkEngine

        return SparkEngine(workers, address, conf=conf, session=running)
    from gristmill.pipelines.engines.dask import DaskEngine

    return DaskEngine(workers, address, client=running)
