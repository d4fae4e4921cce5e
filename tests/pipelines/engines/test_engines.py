"""What every engine promises for `map`: results in order, each reported once, retries, errors that name the item after the others are done."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gristmill.errors import ColumnError, RunError, WorkItemError
from gristmill.pipelines.engines.base import ENOUGH, TRIES, InProcess
from gristmill.pipelines.engines.choose import MOST_THREADS, SMALL_BYTES, THREADED_BYTES, threads_for
from gristmill.pipelines.engines.dask import DaskEngine


@dataclass(frozen=True)
class Item:
    """A work item of a test."""

    folder: str
    number: int
    fails: int = 0  # how often it fails before it succeeds
    kind: str = "ordinary"

    def __str__(self) -> str:
        return f"item number {self.number}"


def work(item: Item) -> dict[str, Any]:
    tries = Path(item.folder) / f"tries-{item.number}"
    with tries.open("a") as out:
        out.write("x")
    if item.kind == "long":
        time.sleep(ENOUGH)
    if item.kind == "kills":
        os.kill(os.getpid(), signal.SIGKILL)
    if item.kind == "usage":
        raise ColumnError("step filter: no column 'txt'.", column="txt")
    if tries.stat().st_size <= item.fails:
        raise OSError("the disk hiccuped")
    return {"number": item.number}


@pytest.fixture(scope="module")
def dask_engine():
    with DaskEngine(2) as engine:
        yield engine


@pytest.fixture(params=["in process", "threads", "dask"])
def engine(request):
    here = {"in process": InProcess(), "threads": InProcess(workers=3)}
    return here.get(request.param) or request.getfixturevalue("dask_engine")


def tries(folder: Path) -> list[int]:
    return [path.stat().st_size for path in sorted(folder.glob("tries-*"))]


def test_results_are_in_order_and_each_is_reported_once(engine, tmp_path):
    reported: list[dict[str, Any]] = []
    results = engine.map(work, [Item(str(tmp_path), i) for i in range(20)], reported.append)
    assert [result["number"] for result in results] == list(range(20))
    assert sorted(result["number"] for result in reported) == list(range(20)) and set(tries(tmp_path)) == {1}


def test_nothing_to_do(engine):
    assert engine.map(work, [], lambda _: None) == []


def test_an_item_that_fails_is_tried_again(engine, tmp_path):
    results = engine.map(
        work, [Item(str(tmp_path), i, fails=TRIES - 1 if i == 2 else 0) for i in range(4)], lambda _: None
    )
    assert [result["number"] for result in results] == [0, 1, 2, 3] and tries(tmp_path) == [1, 1, TRIES, 1]


def test_an_item_that_always_fails_is_named_after_the_others_are_done(engine, tmp_path):
    reported: list[dict[str, Any]] = []
    with pytest.raises(
        WorkItemError,
        match=rf"item number 1 failed {TRIES} times: OSError: the disk hiccuped \(1 more items failed too\)",
    ) as caught:
        engine.map(work, [Item(str(tmp_path), i, fails=99 if i in (1, 4) else 0) for i in range(6)], reported.append)
    assert sorted(result["number"] for result in reported) == [0, 2, 3, 5] and tries(tmp_path) == [
        1,
        TRIES,
        1,
        1,
        TRIES,
        1,
    ]
    assert isinstance(caught.value.__cause__, OSError) and caught.value.exit_status == 3


def test_wrong_use_is_not_tried_again_and_keeps_its_facts(engine, tmp_path):
    with pytest.raises(ColumnError, match="no column 'txt'") as caught:
        engine.map(work, [Item(str(tmp_path), 0), Item(str(tmp_path), 1, kind="usage")], lambda _: None)
    assert tries(tmp_path) == [1, 1] and caught.value.context == {"column": "txt"}


def test_short_items_are_sent_to_dask_together(dask_engine, tmp_path, monkeypatch):
    from gristmill.pipelines.engines.watch import Watch

    groups: list[range] = []
    monkeypatch.setattr(Watch, "group", lambda _, found: groups.extend(found))
    results = dask_engine.map(work, [Item(str(tmp_path), i, fails=i == 50) for i in range(100)], lambda _: None)
    assert [result["number"] for result in results] == list(range(100))
    assert sorted(tries(tmp_path)) == [*[1] * 99, 2]
    assert [number for group in groups for number in group] == list(range(4, 100)) and max(map(len, groups)) > 1


def test_items_that_are_long_after_all_go_on_one_by_one(dask_engine, tmp_path, monkeypatch):
    """The first of them say that a hundredth of a second is enough for many."""
    from gristmill.pipelines.engines.watch import Watch

    again: list[int] = []
    monkeypatch.setattr(Watch, "again", lambda _, numbers: again.extend(numbers))
    items = [Item(str(tmp_path), i, kind="long" if 10 <= i < 13 else "ordinary") for i in range(60)]
    results = dask_engine.map(work, items, lambda _: None)
    assert [result["number"] for result in results] == list(range(60)) and tries(tmp_path) == [1] * 60
    assert again and min(again) > 10 and again == sorted(set(again)), "what follows the first long one is sent anew"


@pytest.mark.slow
def test_of_items_that_were_sent_together_the_one_that_kills_workers_is_named(tmp_path):
    """The others are done, though some were at work beside it."""
    reported: list[dict[str, Any]] = []
    with DaskEngine(2) as engine, pytest.raises(WorkItemError, match="item number 30 failed .*KilledWorker"):
        items = [Item(str(tmp_path), i, kind="kills" if i == 30 else "ordinary") for i in range(60)]
        engine.map(work, items, reported.append)
    assert sorted(result["number"] for result in reported) == [i for i in range(60) if i != 30]


ENVIRONMENTS = """
import os
from gristmill.pipelines.engines.dask import DaskEngine

def found(name):
    return {name: os.environ.get(name)}

for name in ("FIRST", "SECOND"):
    os.environ[name] = "set"
    with DaskEngine(1) as engine:
        print(engine.map(found, ["FIRST", "SECOND"], lambda _: None))
    del os.environ[name]
"""


LOADING = """
import os, signal
from gristmill.kernels import warm

warm.warm = lambda: os.kill(os.getpid(), signal.SIGINT)
import gristmill.pipelines.engines.preload
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_workers_have_the_environment_of_their_run_and_no_more():
    said = subprocess.run(
        [sys.executable, "-c", ENVIRONMENTS], capture_output=True, text=True, timeout=120, check=False
    )
    assert said.stdout.splitlines() == [
        "[{'FIRST': 'set'}, {'SECOND': None}]",
        "[{'FIRST': None}, {'SECOND': 'set'}]",
    ], said.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_ctrl_c_is_not_for_the_process_that_workers_are_forked_from():
    """From a terminal it comes to it too, also while it loads what workers need; to those it goes on to come."""
    said = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True, timeout=120, check=False)
    assert said.stdout == "True\n", said.stderr


def test_where_the_work_is_done():
    """One thread for small inputs, threads up to some GB, worker processes beyond, for many workers and for Python functions."""
    assert threads_for(SMALL_BYTES, 8, functions=True) == 1
    assert threads_for(SMALL_BYTES + 1, 3, functions=False) == 3
    assert threads_for(SMALL_BYTES + 1, 3, functions=True) == 0
    assert threads_for(SMALL_BYTES + 1, MOST_THREADS + 1, functions=False) == 0
    assert threads_for(THREADED_BYTES + 1, 2, functions=False) == 0


def test_threads_begin_no_further_item_after_an_interrupt(tmp_path):
    engine = InProcess(workers=2)

    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.map(work, [Item(str(tmp_path), i) for i in range(500)], interrupted)
    assert len(tries(tmp_path)) < 500


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own handling of SIGINT: a shell that starts tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_a_kernel_swallows_ends_the_run_after_the_item(tmp_path, interruptible):
    before = signal.getsignal(signal.SIGINT)

    def swallowing(task):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return work(task)

    with pytest.raises(KeyboardInterrupt):
        InProcess().map(swallowing, [Item(str(tmp_path), i) for i in range(5)], print)
    assert len(tries(tmp_path)) == 1 and signal.getsignal(signal.SIGINT) is before


def test_a_dask_worker_without_the_package_says_so(tmp_path):
    from distributed import Client, LocalCluster

    hiding = tmp_path / "hiding.py"
    hiding.write_text("import sys\nsys.modules['gristmill'] = None\n")
    with (
        LocalCluster(
            1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, preload=[str(hiding)]
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
        DaskEngine(client=client, wait=20) as engine,
        pytest.raises(RunError, match=r"gristmill.* in .*python.* of the worker on .*Workers need this package"),
    ):
        engine.map(work, [Item(str(tmp_path), number) for number in range(3)], lambda _: None)
