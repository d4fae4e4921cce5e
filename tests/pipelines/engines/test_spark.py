"""Spark gives the answer of one process, keeps each item's own error, survives killed workers, and takes and gives DataFrames."""

from __future__ import annotations

import gc
import os
import signal
import socket
import stat
import subprocess
import sys
import weakref
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

import gristmill
from gristmill.errors import InputError, MissingDependencyError, RunError, UsageError, WorkItemError
from gristmill.pipelines.engines.choose import choose_engine
from gristmill.pipelines.engines.spark import LOOKED_THROUGH, SparkEngine, _lost, _set_aside, check_java
from gristmill.pipelines.frames import apply, near_duplicates
from gristmill.pipelines.engines.watch import Watch
from tests.pipelines.conftest import STEPS, corpus, write_jsonl

SPLIT = {"train": 0.8, "test": 0.2, "similarity": 0.5}


@dataclass(frozen=True)
class Square:
    number: int
    folder: str

    def __str__(self) -> str:
        return f"square of {self.number}"


def square(task: Square) -> dict[str, int]:
    return {"square": task.number**2}


def fails_once_killed(task: Square) -> dict[str, int]:
    """Kills its worker process the first time that it gets number 3."""
    mark = Path(task.folder) / "killed"
    if task.number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return square(task)


def always_killed(task: Square) -> dict[str, int]:
    if task.number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(task)


def always_fails(task: Square) -> dict[str, int]:
    (Path(task.folder) / f"try-{task.number}-{len(os.listdir(task.folder))}").touch()
    if task.number == 3:
        raise ValueError("three is wrong")
    return square(task)


class TwoPartsError(Exception):
    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what}: {reason}")


def raises_two_parts(task: Square) -> dict[str, int]:
    if task.number == 3:
        raise TwoPartsError("three", "is wrong")
    return square(task)


def refuses(task: Square) -> dict[str, int]:
    raise InputError("a.txt: can't be read", file="a.txt")


@pytest.mark.parametrize("address", ["foo", "tcp://127.0.0.1:8786", "sc://127.0.0.1:15002"])
def test_an_address_that_is_no_master_is_refused(address):
    with pytest.raises(UsageError, match="spark://host:7077"), choose_engine("spark", address=address):
        pass


def test_a_master_that_does_not_answer_is_told_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"spark://127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(RunError, match=f"no Spark master answers at {address}: .*refused"),
            choose_engine("spark", address=address),
        ):
            pass


def test_results_are_in_order_and_each_is_reported_once(session, tmp_path):
    seen = []
    with SparkEngine(session=session) as engine:
        tasks = [Square(n, str(tmp_path)) for n in range(7)]
        assert [result["square"] for result in engine.map(square, tasks, seen.append)] == [n**2 for n in range(7)]
        assert sorted(result["square"] for result in seen) == [n**2 for n in range(7)]
        assert engine.map(square, [], seen.append) == []
        assert engine.workers == 2
    assert session.range(3).count() == 3, "a session that was handed in stays open"


def test_a_killed_worker_process_costs_only_its_items(session, tmp_path):
    with SparkEngine(session=session) as engine:
        found = engine.map(fails_once_killed, [Square(n, str(tmp_path)) for n in range(6)], lambda _: None)
    assert (tmp_path / "killed").exists()
    assert [result["square"] for result in found] == [n**2 for n in range(6)]


def test_an_item_that_always_fails_is_named_after_its_tries_and_the_others_are_done(session, tmp_path):
    seen = []
    with (
        SparkEngine(session=session) as engine,
        pytest.raises(WorkItemError, match="square of 3 failed 3 times: ValueError: three is wrong"),
    ):
        engine.map(always_fails, [Square(n, str(tmp_path)) for n in range(5)], seen.append)
    assert sorted(result["square"] for result in seen) == [0, 1, 4, 16]
    assert len([name for name in os.listdir(tmp_path) if name.startswith("try-3")]) == 3


def test_an_item_that_kills_every_worker_is_named(session, tmp_path):
    with SparkEngine(session=session) as engine, pytest.raises(WorkItemError, match="Spark gave up before square of 3"):
        engine.map(always_killed, [Square(n, str(tmp_path)) for n in range(5)], lambda _: None)


def test_a_python_that_executors_do_not_have_is_told():
    said = (
        "An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.\n"
        ": org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 0.0 failed 4 times, most recent failure: Lost task 0.3 "
        'in stage 0.0 (TID 3) (10.0.0.2 executor 1): java.io.IOException: Cannot run program "/opt/python": error=2, No such file or directory\n'
        "\tat java.base/java.lang.ProcessBuilder.start(ProcessBuilder.java:1143)\n"
        "Caused by: java.io.IOException: error=2, No such file or directory"
    )
    error = str(_lost(RuntimeError(said), [Square(1, "")], set()))
    assert "before square of 1 could finish: java.io.IOException: Cannot run program" in error
    assert "No such file or directory (10.0.0.2 executor 1). What is finished" in error


def test_an_error_that_does_not_pickle_ends_its_own_item_only(session, tmp_path):
    seen = []
    with (
        SparkEngine(session=session) as engine,
        pytest.raises(WorkItemError, match="square of 3 failed 3 times: TypeError: .*reason"),
    ):
        engine.map(raises_two_parts, [Square(n, str(tmp_path)) for n in range(6)], seen.append)
    assert sorted(result["square"] for result in seen) == [0, 1, 4, 16, 25]


def test_a_session_that_this_process_has_is_used_and_stays_open(session, tmp_path):
    with SparkEngine() as engine:
        assert engine.map(square, [Square(3, str(tmp_path))], lambda _: None) == [{"square": 9}]
        assert engine.workers == 2
    assert session.range(3).count() == 3
    for options in ({"address": "local[1]"}, {"conf": {"spark.app.name": "another"}}):
        with pytest.raises(UsageError, match=r"running on local\[2,4\], and Spark allows one a process: stop it first"):
            SparkEngine(**options)


def test_what_stays_in_a_worker_is_not_collected_again(java):
    cycle = [type("Some", (), {})()]
    cycle[0].cycle, gone = cycle, weakref.ref(cycle[0])
    del cycle
    kept = [[] for _ in range(LOOKED_THROUGH)]  # much
    try:
        _set_aside()
        assert len(gc.get_objects()) < LOOKED_THROUGH <= gc.get_freeze_count()
        assert gone() is None, "what was garbage is gone, not set aside"
    finally:
        gc.unfreeze()


def test_short_items_are_sent_together(session, tmp_path, monkeypatch):
    groups: list[range] = []
    monkeypatch.setattr(Watch, "group", lambda _, found: groups.extend(found))
    seen = []
    with SparkEngine(session=session) as engine:
        found = engine.map(square, [Square(n, str(tmp_path)) for n in range(100)], seen.append)
        assert [result["square"] for result in found] == [n**2 for n in range(100)]
        assert sorted(result["square"] for result in seen) == [n**2 for n in range(100)]
        assert [number for group in groups for number in group] == list(range(4, 100)) and max(map(len, groups)) > 1
        with pytest.raises(WorkItemError, match="square of 3 failed 3 times: ValueError: three is wrong"):
            engine.map(always_fails, [Square(n % 50, str(tmp_path)) for n in range(100)], seen.append)
    assert len(seen) == 198


def test_of_items_that_were_sent_together_one_that_kills_workers_is_named(session, tmp_path):
    found = {}
    with (
        SparkEngine(session=session) as engine,
        pytest.raises(WorkItemError, match="Spark gave up before square of 3 "),
    ):
        engine.map(always_killed, [Square(40 - n, str(tmp_path)) for n in range(40)], found.update)
    assert found["square"] == 1, "the last is done"


def test_wrong_input_keeps_its_own_error(session, tmp_path):
    with SparkEngine(session=session) as engine, pytest.raises(InputError, match="can't be read") as caught:
        engine.map(refuses, [Square(1, str(tmp_path))], lambda _: None)
    assert caught.value.context == {"file": "a.txt"}


def test_the_same_version_as_one_process(session, tmp_path, run):
    write_jsonl(tmp_path / "in", corpus(25), files=5)
    one = run(tmp_path / "in", split=SPLIT, out="one", in_process=True)
    spark = run(tmp_path / "in", split=SPLIT, out="spark", engine=session, in_process=False)
    assert (spark.fingerprint, spark.layout, spark.counts) == (one.fingerprint, one.layout, one.counts)
    assert spark.counts["dropped"] > 0
    assert spark.dataset.manifest.engine == "spark"


def test_apply_on_a_frame_stays_lazy_and_agrees_with_arrow(session):
    rows = corpus(15)
    table = pa.Table.from_pylist([*rows, *rows[:4]])
    frame = session.createDataFrame(
        table.to_pylist(), schema="id string, text string, family long, score long"
    ).repartition(3)
    steps = [STEPS[0], STEPS[3], {"step": "filter", "where": "score > 1"}]
    kept, decisions = apply(frame, steps)
    assert type(kept) is type(frame)
    expected, expected_decisions = apply(table, steps)
    assert sorted(row["_uid"] for row in kept.collect()) == sorted(expected["_uid"].to_pylist())
    columns = ["uid", "step", "action", "rule", "other_uid"]
    found = sorted(str([row[name] for name in columns]) for row in decisions.collect())
    assert found == sorted(str([row[name] for name in columns]) for row in expected_decisions.to_pylist())
    assert kept.columns == expected.column_names


def test_near_duplicates_of_a_frame(session):
    table = pa.Table.from_pylist(corpus(10))
    frame = session.createDataFrame(
        table.to_pylist(), schema="id string, text string, family long, score long"
    ).repartition(4)
    found = [tuple(row) for row in near_duplicates(frame, threshold=0.7).collect()]
    assert found == [tuple(row.values()) for row in near_duplicates(table, threshold=0.7).to_pylist()]
    assert found


def test_a_frame_as_a_source_and_a_version_as_a_frame(session, tmp_path):
    table = pa.Table.from_pylist(corpus(8)).select(["id", "text", "score"])
    frame = session.createDataFrame(table.to_pylist(), schema="id string, text string, score long").repartition(3)
    model = {
        "name": "t",
        "sources": [{"kind": "frame", "name": "docs"}],
        "id": "id",
        "steps": STEPS,
        "output": {"path": str(tmp_path / "out")},
    }
    result = gristmill.run(model, inputs={"docs": frame}, progress="quiet")
    plain = gristmill.run(
        {**model, "output": {"path": str(tmp_path / "plain")}}, inputs={"docs": table}, progress="quiet"
    )
    assert result.fingerprint == plain.fingerprint
    back = result.dataset.to_spark(session, columns=["_uid", "score"])
    assert sorted(map(tuple, back.collect())) == sorted(
        zip(*result.dataset.to_table(columns=["_uid", "score"]).to_pydict().values(), strict=True)
    )


LOGGED = """
from gristmill.pipelines.engines.spark import SparkEngine
with SparkEngine(1, "local[1]", conf={"spark.driver.extraJavaOptions": "-Dof.the.user=kept"}) as engine:
    print(engine.map(dict, [[("a", 1)]], lambda _: None))
    java = engine._context.result()._jvm
    print(java.java.lang.System.getProperty("of.the.user"))
    log = java.org.apache.logging.log4j.LogManager.getLogger("org.apache.spark.Some")
    log.warn("noise")
    log.error("trouble")
"""


@pytest.mark.slow
def test_spark_prints_errors_and_no_noise(java):
    clean = {name: value for name, value in os.environ.items() if name not in ("SPARK_HOME", "SPARK_CONF_DIR")}
    done = subprocess.run([sys.executable, "-c", LOGGED], capture_output=True, text=True, timeout=300, env=clean)
    assert done.stdout == "[{'a': 1}]\nkept\n", done.stderr
    lines = done.stderr.splitlines()
    assert lines[-1].endswith(" ERROR Some: trouble")
    assert [line for line in lines[:-1] if "incubator modules" not in line] == [], "that line is Java's own"


def test_java_that_is_missing_or_too_old_says_the_install_line(java, tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(
        MissingDependencyError, match=r"needs Java 17 or newer and there is none.*apt-get install openjdk-17"
    ):
        check_java()
    old = tmp_path / "bin" / "java"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_402\"' >&2\n")
    old.chmod(old.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(MissingDependencyError, match=r"needs Java 17 or newer; .*/bin/java is 8; .*apt-get install"):
        check_java()


def test_what_cant_be_meant_is_refused():
    with pytest.raises(UsageError, match="no engine 'sprak'. Did you mean 'spark'"), choose_engine("sprak"):
        pass
    with (
        pytest.raises(UsageError, match="conf holds settings of a Spark session"),
        choose_engine("dask", conf={"a": "b"}),
    ):
        pass
    with pytest.raises(UsageError, match="workers=0: at least 1"), choose_engine("dask", workers=0):
        pass
    with choose_engine("spark", threads=1) as engine:
        assert type(engine).__name__ == "InProcess"
