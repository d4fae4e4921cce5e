"""One answer: every step gives the same fingerprint and layout in one process, on Dask threads and processes, and on Spark, however many workers."""

from __future__ import annotations

import itertools
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gristmill
from gristmill.pipelines.model import AnyStep

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "be",
    "have",
    "with",
    "that",
    "mill",
    "grain",
    "stone",
    "été",
    "水車",
    "flour",
    "wheel",
    "sack",
    "x1",
    "n°",
]
COVERED: dict[str, list[dict[str, Any]]] = {
    "rows": [
        {"step": "normalize_text", "column": "text"},
        {"step": "rename_columns", "columns": {"n": "number"}},
        {"step": "cast", "columns": {"number": "double"}},
        {"step": "filter", "where": "number > 2 or number is None"},
        {"step": "select_columns", "columns": ["text", "number", "group"]},
        {"step": "python", "function": "tests.pipelines.engines.test_same_answer:shouted"},
        {"step": "pandas", "function": "tests.pipelines.engines.test_same_answer:without_odd"},
    ],
    "quality": [
        {
            "step": "quality_rules",
            "column": "text",
            "preset": "gopher",
            "thresholds": {"gopher_short_doc": 5},
            "keep_signals": True,
        }
    ],
    "wide": [
        {"step": "drop_exact_duplicates", "column": "text", "priority": ["b", "a"]},
        {"step": "drop_near_duplicates", "column": "text", "threshold": 0.6, "quality": "n"},
        {"step": "normalize_text", "column": "text"},
        {"step": "drop_near_duplicates", "column": "text", "threshold": 0.5, "shingle": 2},
    ],
}


def shouted(table: pa.Table) -> pa.Table:
    return table.set_column(
        table.column_names.index("text"),
        "text",
        pa.array([None if t is None else t.upper() for t in table["text"].to_pylist()], pa.string()),
    )


def without_odd(frame: Any) -> Any:
    return frame[frame["number"].isna() | (frame["number"] % 2 == 0)]


def test_every_step_is_covered():
    import typing

    union = typing.get_args(AnyStep)[0]
    names = {typing.get_args(model.model_fields["step"].annotation)[0] for model in typing.get_args(union)}
    assert names == {step["step"] for steps in COVERED.values() for step in steps}


@st.composite
def inputs(draw) -> list[list[dict[str, Any]]]:
    """Rows of two sources: families of texts that share most words, with nulls, repeats and empty texts."""
    rng = random.Random(draw(st.integers(0, 10**6)))
    rows = []
    for number in range(draw(st.integers(0, 40))):
        base = random.Random(number % 7)
        words = [base.choice(WORDS) for _ in range(30)]
        for _ in range(rng.randrange(4)):
            words[rng.randrange(30)] = rng.choice(WORDS)
        text = (
            rng.choice([" ".join(words), " ".join(words), " ".join(words) + "\r\n", None, ""])
            if number % 3
            else " ".join(words)
        )
        rows.append({"text": text, "n": rng.choice([None, rng.randrange(9)]), "group": rng.choice(["g1", "g2", None])})
    cut = draw(st.integers(0, len(rows)))
    return [rows[:cut], rows[cut:]]


def write(folder: Path, sources: list[list[dict[str, Any]]], files: int, seed: int) -> None:
    """The rows of source a and b over so many files each, in an order of their own."""
    for name, rows in zip("ab", sources, strict=True):
        rows = rows[:]
        random.Random(seed).shuffle(rows)
        (folder / name).mkdir(parents=True)
        for number in range(files):
            lines = "".join(json.dumps(row) + "\n" for row in rows[number::files])
            (folder / name / f"{seed}-{number}.jsonl").write_text(lines)


def pipeline(folder: Path, steps: list[dict[str, Any]], out: str) -> dict[str, Any]:
    schema = {"text": "string", "n": "int64", "group": "string"}
    return {
        "name": "same",
        "sources": [{"kind": "jsonl", "path": str(folder / name), "name": name, "schema": schema} for name in "ab"],
        "steps": steps,
        "split": {"train": 0.6, "test": 0.4, "similarity": 0.4, "group_by": "group"},
        "output": {"path": str(folder.parent / out), "shard_bytes": "4KB", "row_group_rows": 8},
    }


def check_same(
    engines: dict[str, dict[str, Any]], sources: list[list[dict[str, Any]]], steps: list[dict[str, Any]]
) -> None:
    """Each engine's version equals that of one process; over other cuts of the files the fingerprint does."""
    with tempfile.TemporaryDirectory() as base:
        write(Path(base) / "in", sources, 3, seed=0)
        write(Path(base) / "again", sources, 2, seed=1)
        one = gristmill.run(pipeline(Path(base) / "in", steps, "one"), in_process=True, progress="quiet")
        for name, options in engines.items():
            found = gristmill.run(
                pipeline(Path(base) / "in", steps, name), in_process=False, progress="quiet", **options
            )
            assert (found.fingerprint, found.layout, found.counts) == (one.fingerprint, one.layout, one.counts), name
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("gristmill.pipelines.run.threads_for", lambda *_, **__: 3)
            found = gristmill.run(pipeline(Path(base) / "in", steps, "3 threads"), progress="quiet")
        assert (found.fingerprint, found.layout, found.counts) == (one.fingerprint, one.layout, one.counts)
        recut = gristmill.run(pipeline(Path(base) / "again", steps, "recut"), in_process=True, progress="quiet")
        assert (recut.fingerprint, recut.counts) == (one.fingerprint, one.counts)


@pytest.mark.parametrize("steps", COVERED)
def test_dask_threads(threads, steps):
    @settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(inputs())
    def same(sources):
        check_same({"threads": {"engine": threads}}, sources, COVERED[steps])

    same()


@pytest.mark.parametrize("steps", COVERED)
def test_dask_processes_and_spark(processes, session, steps):
    @settings(max_examples=1, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(inputs().filter(lambda sources: min(map(len, sources)) > 5))
    def same(sources):
        check_same({"processes": {"engine": processes}, "spark": {"engine": session}}, sources, COVERED[steps])

    same()


def test_appended_rows(threads, processes, session):
    @settings(max_examples=1, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(inputs().filter(lambda sources: min(map(len, sources)) > 9))
    def same(sources):
        check_appended({"threads": threads, "processes": processes, "spark": session}, sources)

    same()


def check_appended(engines: dict[str, Any], sources: list[list[dict[str, Any]]]) -> None:
    """Source b appended to what source a gave is the same on each engine as in one process."""
    with tempfile.TemporaryDirectory() as base:
        write(Path(base) / "in", sources, 3, seed=0)
        one = appended(Path(base), "one", in_process=True)
        assert one[1][0].rows["before"] and one[1][0].rows["added"] and one[1][0].counts["dropped"]
        for name, engine in engines.items():
            found = appended(Path(base), name, engine=engine, in_process=False)
            assert [facts for _, *facts in found] == [facts for _, *facts in one], name


def appended(base: Path, out: str, **options: Any) -> list[tuple[Any, ...]]:
    """(result, fingerprint, layout, counts, rows) of each run."""
    found = []
    for source in (0, 1):
        model = pipeline(base / "in", COVERED["wide"], out)
        model = {**model, "sources": [model["sources"][source]], "output": {**model["output"], "mode": "append"}}
        model["steps"] = [
            {name: value for name, value in step.items() if name != "priority"} for step in model["steps"]
        ]
        result = gristmill.run(model, progress="quiet", **options)
        found.append((result, result.fingerprint, result.layout, result.counts, result.rows))
    return found


@pytest.mark.slow
def test_any_number_of_dask_workers(tmp_path):
    rows = [
        {
            "text": " ".join(random.Random(n % 50).choices(WORDS, k=40)) + (f" {n}" if n % 3 else ""),
            "n": n % 9,
            "group": f"g{n % 80}",
        }
        for n in range(600)
    ]
    write(tmp_path / "in", [rows[:200], rows[200:]], 6, seed=3)
    steps = list(itertools.chain(COVERED["wide"]))
    found = [
        gristmill.run(
            pipeline(tmp_path / "in", steps, f"w{workers}"), in_process=False, workers=workers, progress="quiet"
        )
        for workers in (1, 2, 4)
    ]
    assert len({(result.fingerprint, result.layout) for result in found}) == 1
    assert found[0].counts["dropped"] > 300
