"""`exchange`: rows of a key come together whatever the partitions, and finished halves are found again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.pipelines import exchange as module
from gristmill.pipelines.engines.base import InProcess
from gristmill.pipelines.exchange import Chunks, Exchanged, exchange, power_of_two
from gristmill.pipelines.extracts import ROW_BITS
from gristmill.pipelines.work import WorkStore


@dataclass(frozen=True)
class Source:
    """Keys of one input, by value."""

    digest: str
    keys: tuple[int, ...]

    def __str__(self) -> str:
        return self.digest


def view(store: WorkStore, source: Source) -> Iterator[pa.Table]:
    yield pa.table(
        {"key": pa.array(source.keys, pa.uint64()), "source": pa.array([source.digest] * len(source.keys), pa.string())}
    )


def count(chunks: Chunks) -> Iterator[pa.Table]:
    tables = list(chunks)
    assert [table.to_pylist() for table in chunks] == [table.to_pylist() for table in tables], "twice the same"
    chunks.note(rows=sum(table.num_rows for table in tables), largest=max((t.num_rows for t in tables), default=0))
    if tables:
        yield pa.concat_tables(tables).group_by("key").aggregate([("source", "count"), ("source", "count_distinct")])


def keys(store: WorkStore, found: Exchanged) -> list[tuple[int, int, int]]:
    return sorted(
        tuple(row.values()) for part in found.parts for table in part.tables(store) for row in table.to_pylist()
    )


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sources=st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), max_size=20), min_size=1, max_size=5),
    partitions=st.integers(0, 6),
    chunk=st.sampled_from([1, 64, 1 << 20]),
)
def test_every_row_of_a_key_is_in_one_call(tmp_path_factory, sources, partitions, chunk):
    store = WorkStore(str(tmp_path_factory.mktemp("work")))
    inputs = [Source(f"s{i}", tuple(found)) for i, found in enumerate(sources)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_BYTES", chunk)
        patch.setattr(module, "DRIVER_BYTES", module.DRIVER_BYTES if not partitions else 0)
        size = partitions * module.PARTITION_BYTES
        found = exchange(InProcess(), store, inputs, view, count, size=size, name="t")
    expected: dict[int, list[int]] = {}
    for i, held in enumerate(sources):
        for key in held:
            expected.setdefault(key, []).append(i)
    assert keys(store, found) == sorted((key, len(places), len(set(places))) for key, places in expected.items())
    assert found.notes["rows"] == sum(map(len, sources)) and found.rows == len(expected)
    assert len(found.used) == (0 if not partitions else len(inputs) + 1 + power_of_two(partitions))
    assert all(store.done(key) is not None for key in found.used)


def test_small_ones_are_done_here_without_files(tmp_path):
    store = WorkStore(str(tmp_path / "work"))
    found = exchange(InProcess(), store, [Source("a", (1, 2)), Source("b", (2,))], view, count, size=1000, name="t")
    assert keys(store, found) == [(1, 1, 1), (2, 2, 2)] and found.used == [] and not (tmp_path / "work").exists()
    assert exchange(InProcess(), store, [], view, count, size=0, name="t").parts == []


def test_a_result_that_turns_out_large_goes_to_a_file(tmp_path, monkeypatch):
    """The rows are few, what is made of them isn't: as with the pairs of a full bucket."""
    monkeypatch.setattr(module, "DRIVER_BYTES", 1000)
    store = WorkStore(str(tmp_path))

    def many(chunks: Chunks) -> Iterator[pa.Table]:
        for table in chunks:
            chunks.note(seen=table.num_rows)
            for number in range(50):
                yield pa.table({"n": np.full(10, number)})

    for _ in range(2):
        found = exchange(InProcess(), store, [Source("a", (1, 2))], view, many, size=32, name="t")
        (part,) = found.parts
        assert part.held is None and found.used == [part.key] and found.notes == {"seen": 2}
        rows = [row["n"] for table in part.tables(store) for row in table.to_pylist()]
        assert rows == [n for n in range(50) for _ in range(10)] and part.rows == 500


@pytest.mark.parametrize("partitions", [1, 4, 16])
def test_what_is_held_is_cut_as_it_would_be_gathered(tmp_path, partitions):
    rng = np.random.default_rng(1)
    ids = np.sort(rng.integers(0, 2**42, 400))
    sources = [Source("a", tuple(module.block(ids).tolist()))]
    gathered = exchange(
        InProcess(), WorkStore(str(tmp_path)), sources, view, count, size=2**30, partitions=partitions, name="t"
    )
    cut = module.Part(400, held=pa.table({"id": ids})).cut("id", partitions)
    assert [len(set(module.block(part.held["id"].to_numpy()))) for part in cut] == [p.rows for p in gathered.parts]
    assert all((np.diff(part.held["id"].to_numpy()) >= 0).all() and part.rows == len(part.held) for part in cut)
    assert sum(part.rows for part in cut) == 400
    assert len(set(module.block(np.arange(128)))) == 1, "rows of one block stay together"


@pytest.mark.parametrize("rows", [1, 20, 300, 5000])
def test_rows_of_items_of_any_size_are_even_over_partitions(rows):
    """Ids have an item's number in the high bits: where items have few rows, little else differs."""
    items = np.arange(max(20, 300_000 // rows))
    ids = ((items[:, None] << ROW_BITS) | np.arange(rows)).ravel()
    for keys_of in (module.spread, module.block):
        found = np.bincount(keys_of(ids) % np.uint64(64), minlength=64)
        assert found.min() > 0.5 * found.mean() and found.max() < 2 * found.mean()


def test_numbers_of_partitions_are_powers_of_two():
    assert [power_of_two(count) for count in (0, 1, 2, 3, 4, 5, 1000)] == [1, 1, 2, 4, 4, 8, 1024]


def test_finished_halves_are_found_again_and_one_new_input_costs_one_half(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "DRIVER_BYTES", 0)
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
    first = exchange(InProcess(), store, inputs, view, count, size=40, name="t")
    assert len(seen) == 7
    again = exchange(InProcess(), store, inputs, view, count, size=40, name="t")
    assert len(seen) == 7 and keys(store, again) == keys(store, first)
    exchange(InProcess(), store, [*inputs, Source("new", (9,))], view, count, size=40, name="t")
    assert [call for call in seen[7:] if call.startswith("_scatter")] == ["_scatter exchange: rows of new"] and len(
        seen
    ) == 12
    exchange(InProcess(), store, inputs, view, count, size=40, name="other")
    assert len(seen) == 19, "another exchange is other work"


@pytest.mark.parametrize("partitions", [2, 8])
def test_rows_are_spread_over_partitions(tmp_path, partitions):
    rng = np.random.default_rng(0)
    inputs = [Source("a", tuple(rng.integers(0, 2**63, 7000).tolist()))]
    found = exchange(
        InProcess(), WorkStore(str(tmp_path)), inputs, view, count, size=2**30, partitions=partitions, name="t"
    )
    rows = [part.rows for part in found.parts]
    assert len(rows) == partitions and min(rows) > 0.8 * 7000 / partitions
