"""`exchange`: rows of a key come together whatever the partitions, and finished halves are found again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.pipelines import exchange as module
from gristmill.pipelines.engines.base import InProcess
from gristmill.pipelines.exchange import exchange
from gristmill.pipelines.work import WorkStore


@dataclass(frozen=True)
class Source:
    """Keys of one input, by value."""

    digest: str
    keys: tuple[int, ...]

    def __str__(self) -> str:
        return self.digest


def view(store: WorkStore, source: Source) -> pa.Table:
    return pa.table(
        {"key": pa.array(source.keys, pa.uint64()), "source": pa.array([source.digest] * len(source.keys), pa.string())}
    )


def count(table: pa.Table) -> pa.Table:
    return table.group_by("key").aggregate([("source", "count"), ("source", "count_distinct")])


def keys(table: list[pa.Table]) -> list[tuple[int, int, int]]:
    return sorted(tuple(row.values()) for part in table for row in part.to_pylist())


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sources=st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), max_size=20), min_size=1, max_size=5),
    partitions=st.integers(1, 6),
)
def test_every_row_of_a_key_is_in_one_call(tmp_path_factory, sources, partitions):
    store = WorkStore(str(tmp_path_factory.mktemp("work")))
    inputs = [Source(f"s{i}", tuple(found)) for i, found in enumerate(sources)]
    results, used = exchange(
        InProcess(), store, inputs, view, count, size=partitions * module.PARTITION_BYTES, name="t"
    )
    expected: dict[int, list[int]] = {}
    for i, found in enumerate(sources):
        for key in found:
            expected.setdefault(key, []).append(i)
    assert keys(results) == sorted((key, len(places), len(set(places))) for key, places in expected.items())
    assert len(used) == (0 if partitions == 1 else len(inputs) + partitions)
    assert all(store.done(key) is not None for key in used)


def test_small_ones_are_done_here_without_files(tmp_path):
    store = WorkStore(str(tmp_path / "work"))
    results, used = exchange(
        InProcess(), store, [Source("a", (1, 2)), Source("b", (2,))], view, count, size=1000, name="t"
    )
    assert keys(results) == [(1, 1, 1), (2, 2, 2)] and used == [] and not (tmp_path / "work").exists()
    assert exchange(InProcess(), store, [], view, count, size=0, name="t") == ([], [])


def test_finished_halves_are_found_again_and_one_new_input_costs_one_half(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PARTITION_BYTES", 10)
    store = WorkStore(str(tmp_path))
    seen: list[str] = []

    def watched(function):
        def call(task):
            seen.append(f"{function.__name__} {task}")
            return function(task)

        return call

    monkeypatch.setattr(module, "_scatter", watched(module._scatter))
    monkeypatch.setattr(module, "_gather", watched(module._gather))
    inputs = [Source(f"s{i}", (i, i + 1)) for i in range(3)]
    first, _ = exchange(InProcess(), store, inputs, view, count, size=30, name="t")
    assert len(seen) == 6
    again, _ = exchange(InProcess(), store, inputs, view, count, size=30, name="t")
    assert len(seen) == 6 and keys(again) == keys(first)
    exchange(InProcess(), store, [*inputs, Source("new", (9,))], view, count, size=30, name="t")
    assert [call for call in seen[6:] if call.startswith("_scatter")] == ["_scatter exchange: rows of new"] and len(
        seen
    ) == 10
    exchange(InProcess(), store, inputs, view, count, size=30, name="other")
    assert len(seen) == 16, "another exchange is other work"


@pytest.mark.parametrize("partitions", [2, 7])
def test_rows_are_spread_over_partitions(tmp_path, partitions):
    rng = np.random.default_rng(0)
    inputs = [Source("a", tuple(rng.integers(0, 2**63, 7000).tolist()))]
    results, _ = exchange(
        InProcess(), WorkStore(str(tmp_path)), inputs, view, count, size=partitions * module.PARTITION_BYTES, name="t"
    )
    rows = [part.num_rows for part in results]
    assert len(rows) == partitions and min(rows) > 0.8 * 7000 / partitions
