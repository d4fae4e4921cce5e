"""Spark with executors in processes of their own: the same version, over many inputs too, also when one is killed. Apart from the tests that
share a session: Spark allows one a process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.pipelines.engines.spark import SparkEngine
from tests.pipelines.conftest import corpus, write_jsonl
from tests.pipelines.engines.test_same_answer import COVERED, check_appended, check_same, inputs
from tests.pipelines.engines.test_spark import SPLIT, Square, square


@pytest.mark.slow
def test_executors_of_their_own_give_the_same_version_and_survive_a_kill(java, tmp_path, run):
    write_jsonl(tmp_path / "in", corpus(40), files=8)
    one = run(tmp_path / "in", split=SPLIT, out="one", in_process=True)
    spark = run(tmp_path / "in", split=SPLIT, out="cluster", engine="spark", address="local-cluster[2,1,1024]")
    assert (spark.fingerprint, spark.layout) == (one.fingerprint, one.layout)
    conf = {"spark.executorEnv.PYTHONPATH": str(Path(__file__).resolve().parents[3])}  # this module, for the executors
    with SparkEngine(address="local-cluster[2,1,1024]", conf=conf) as engine:
        found = engine.map(kill_the_executor, [Square(n, str(tmp_path)) for n in range(6)], lambda _: None)
    assert (tmp_path / "killed").exists()
    assert [result["square"] for result in found] == [n**2 for n in range(6)]


def kill_the_executor(task: Square) -> dict[str, int]:
    """Kills the JVM that runs the worker, the first time that it gets number 3."""
    mark = Path(task.folder) / "killed"
    if task.number == 3 and not mark.exists():
        mark.touch()
        daemon = os.getppid()
        jvm = int(
            next(
                line for line in Path(f"/proc/{daemon}/status").read_text().splitlines() if line.startswith("PPid")
            ).split()[1]
        )
        os.kill(jvm, signal.SIGKILL)
    return square(task)


@pytest.mark.parametrize("address", ["local[1]", pytest.param("local-cluster[1,1,1024]", marks=pytest.mark.slow)])
def test_workers_of_this_machine_have_the_environment_of_now(java, monkeypatch, address):
    """Spark's JVM stays as long as the process, with the environment of when it began: credentials that were set since must reach the workers."""

    def seen(task: tuple[str]) -> dict[str, str | None]:
        import os

        return {name: os.environ.get(name) for name in ("GRISTMILL_LATER", "GRISTMILL_GIVEN")}

    monkeypatch.setenv("GRISTMILL_GIVEN", "here")
    with SparkEngine(1, address) as engine:
        assert engine.map(seen, [("a",)], lambda _: None) == [{"GRISTMILL_LATER": None, "GRISTMILL_GIVEN": "here"}]
    monkeypatch.setenv("GRISTMILL_LATER", "now")
    with SparkEngine(1, address, conf={"spark.executorEnv.GRISTMILL_GIVEN": "for workers"}) as engine:
        found = engine.map(seen, [("a",)], lambda _: None)
    assert found == [{"GRISTMILL_LATER": "now", "GRISTMILL_GIVEN": "for workers"}]


@pytest.mark.slow
def test_all_engines_over_many_inputs(java, processes, threads):
    from pyspark.sql import SparkSession

    for address in ("local[2,4]", "local-cluster[2,1,1024]"):
        conf = {"spark.executorEnv.PYTHONPATH": str(Path(__file__).resolve().parents[3])}
        with SparkEngine(address=address, conf=conf) as engine:
            engines = {
                "spark": {"engine": SparkSession(engine._context.result())},
                "processes": {"engine": processes},
                "threads": {"engine": threads},
            }

            @settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
            @given(inputs(), st.sampled_from(sorted(COVERED)))
            def same(sources, steps):
                check_same(engines, sources, COVERED[steps])

            @settings(max_examples=1, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
            @given(inputs().filter(lambda sources: min(map(len, sources)) > 9))
            def same_appended(sources):
                check_appended({"spark": engines["spark"]["engine"]}, sources)

            same()
            same_appended()
