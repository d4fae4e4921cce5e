"""Mixing: exact ratios, every dataset in its own epochs, elastic and resumable like one."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gristmill.storage.stream as gs
from gristmill.errors import (
    ColumnError,
    InputError,
    InputNotFoundError,
    SchemaMismatchError,
    StateError,
    UsageError,
)
from gristmill.storage.stream.mixture import BLOCK, Mixture, quotas
from gristmill.storage.stream.order import Order, Shuffle
from gristmill.storage.stream.sources import Mix
from tests.storage.stream.helpers import ids_of, run_ranks, write_rows


def test_quotas():
    assert quotas([0.7, 0.3]) == (7000, 3000)
    assert quotas([1, 1, 1]) == (3334, 3333, 3333)
    assert quotas([1, 0]) == (BLOCK, 0)
    assert quotas([1, 1e-9]) == (BLOCK - 1, 1)
    for bad in ([0, 0], [1, -1]):
        with pytest.raises(UsageError, match="weights"):
            quotas(bad)


@settings(max_examples=15)
@given(st.data())
def test_a_position_and_its_row_find_each_other_in_any_schedule(data):
    sizes = data.draw(st.lists(st.lists(st.integers(50, 500), min_size=1, max_size=6), min_size=2, max_size=4))
    orders = [Order(rows, i, Shuffle(2, 1)) for i, rows in enumerate(sizes)]
    starts = sorted({0, *data.draw(st.lists(st.integers(1, 20_000), max_size=2))})
    weights = [
        (start, quotas(data.draw(st.lists(st.integers(1, 9), min_size=len(sizes), max_size=len(sizes)))))
        for start in starts
    ]
    mix = Mixture(orders, weights, 3)
    positions = np.arange(30_000)
    source, own = mix.split(positions)
    for i in range(len(sizes)):
        assert (
            own[source == i] == np.arange((source == i).sum())
        ).all()  # each dataset's own stream, in order, without a gap
    for start, quota in weights:
        first = source[start : start + BLOCK]
        if len(first) == BLOCK and not any(start < s < start + BLOCK for s in starts):
            assert tuple(np.bincount(first, minlength=len(sizes))) == quota
    places = mix.locate(positions)
    some = np.array(data.draw(st.lists(st.integers(0, 29_999), min_size=1, max_size=5, unique=True)))
    rows = list(dict.fromkeys(zip(places.group[some].tolist(), places.row[some].tolist())))
    group, row = (np.array(values) for values in zip(*rows))
    low, high = sorted(data.draw(st.lists(st.integers(0, 30_000), min_size=2, max_size=2)))
    which, found = mix.occurrences(group, row, low, high)
    for i in range(len(rows)):
        expected = np.flatnonzero((places.group == group[i]) & (places.row == row[i]))
        assert sorted(found[which == i]) == expected[(expected >= low) & (expected < high)].tolist()


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    base = tmp_path_factory.mktemp("three")
    for i, count in enumerate((3000, 900, 120)):
        write_rows(base / f"d{i}" / "a.parquet", range(i * 10_000, i * 10_000 + count), group=50)
    return [str(base / f"d{i}") for i in range(3)]


def make(three, weights=(0.5, 0.3, 0.2), **changes):
    return gs.stream(Mix(three, weights), **{"global_batch_size": 250, "seed": 1, "threads": 0, "epochs": 5, **changes})


def test_ratios_are_exact_and_each_dataset_has_its_own_epochs(three):
    loader = make(three)
    flat = np.array([i for batch in loader for i in ids_of(batch)])
    assert len(flat) == 5 * 4020
    sources = flat // 10_000
    for start in range(0, len(flat) - BLOCK + 1, BLOCK):
        assert np.bincount(sources[start : start + BLOCK]).tolist() == [5000, 3000, 2000]
    for i, count in enumerate((3000, 900, 120)):
        own = flat[sources == i] - i * 10_000
        whole = own[: len(own) // count * count]
        assert abs(np.bincount(whole, minlength=count) - len(whole) // count).max() <= 1  # batches are sorted by lane
    assert loader.epochs == pytest.approx([len(flat[sources == i]) / count for i, count in enumerate((3000, 900, 120))])


def test_a_mix_is_elastic_and_resumes_and_traces(three):
    reference = [ids_of(batch) for batch in make(three)]
    parts = run_ranks(lambda rank: make(three, rank=rank, world_size=3, threads=1), 3)
    assert [sum(batch, []) for batch in zip(*parts)] == reference
    loader = make(three)
    iterator = iter(loader)
    for _ in range(9):
        next(iterator)
    state = json.loads(json.dumps(loader.state_dict()))
    resumed = make(three, seed=7)
    resumed.load_state_dict(state)
    assert resumed.rows_at(4) == [f"u{i}" for i in reference[4]]
    assert resumed.rows_at(70) == [f"u{i}" for i in reference[70]]
    assert resumed.steps_of("u20005") == [step for step, batch in enumerate(reference) if 20_005 in batch]
    assert [ids_of(batch) for batch in resumed] == reference[9:]
    skipping = make(three, skip=["u20005"])
    skipping.load_state_dict(state)
    assert 20_005 not in {i for batch in skipping for i in ids_of(batch)}


def test_weights_change_at_a_position_or_on_resume(three):
    flat = np.array([i for batch in make(three, [(0, [1, 0, 0]), (5000, [0, 1, 1])]) for i in ids_of(batch)]) // 10_000
    assert (flat[:5000] == 0).all() and (flat[5000:] > 0).all()
    loader = make(three)
    iterator = iter(loader)
    for _ in range(8):
        next(iterator)
    before = [loader.rows_at(step) for step in range(8)]
    changed = make(three, (0, 0, 1))
    changed.load_state_dict(loader.state_dict())
    assert {i // 10_000 for i in ids_of(next(iter(changed)))} == {2}
    assert [changed.rows_at(step) for step in range(8)] == before
    with pytest.raises(StateError, match="another number"):
        gs.stream(three[0], threads=0).load_state_dict(
            loader.state_dict() | {"layout": gs.stream(three[0])._feed.layout.digest}
        )


def test_mix_files_and_mappings(three, tmp_path):
    path = tmp_path / "mix.json"
    path.write_text(json.dumps({"datasets": [{"data": three[0], "weight": 3}, {"data": three[1], "weight": 1}]}))
    options = {"global_batch_size": 100, "threads": 0}
    assert ids_of(next(iter(gs.stream(path, **options)))) == ids_of(
        next(iter(gs.stream({three[0]: 0.75, three[1]: 0.25}, **options)))
    )
    path.write_text("{}")
    with pytest.raises(UsageError, match="not a mix file"):
        gs.stream(path)
    path.write_text("{")
    with pytest.raises(InputError, match="mix.json' can't be read"):
        gs.stream(path)
    with pytest.raises(InputNotFoundError, match="no.json': No such file"):
        gs.stream(tmp_path / "no.json")
    for weights in (
        [1, 2],
        [(5, [1, 1, 1])],
        [(0, [1, 1])],
        [1, 2, float("nan")],
        [1, 2, float("inf")],
        ["1", 2, 3],
        [(0,)],
        [],
    ):
        with pytest.raises(UsageError, match="weights"):
            gs.stream(Mix(three, weights))


def test_a_uid_in_two_datasets_is_found_and_left_out_in_both(three):
    loader = gs.stream(Mix([three[1], three[1]], [1, 1]), global_batch_size=50, epochs=2, threads=0)
    batches = [ids_of(batch) for batch in loader]
    assert loader.steps_of("u10003") == [step for step, ids in enumerate(batches) if 10_003 in ids]
    rest = [
        ids_of(batch)
        for batch in gs.stream(
            Mix([three[1], three[1]], [1, 1]), global_batch_size=50, epochs=2, threads=0, skip=["u10003"]
        )
    ]
    assert sorted(sum(rest, [])) == sorted(i for ids in batches for i in ids if i != 10_003)


def test_rows_of_plain_files_have_names_of_their_own_in_a_mix(tmp_path):
    for i in range(2):
        write_rows(tmp_path / f"d{i}" / "a.parquet", range(i * 100, i * 100 + 40), uid=False)
    loader = gs.stream({str(tmp_path / "d0"): 1, str(tmp_path / "d1"): 1}, global_batch_size=10, threads=0)
    batches = [ids_of(batch) for batch in loader]
    for step, ids in enumerate(batches):
        assert loader.rows_at(step) == [f"{i // 100}/a.parquet:{i % 100}" for i in ids]
    assert loader.steps_of("1/a.parquet:7") == [step for step, ids in enumerate(batches) if 107 in ids]


def test_only_chosen_columns_need_be_alike(tmp_path):
    one, two = tmp_path / "one/a.parquet", tmp_path / "two/a.parquet"
    for path in (one, two):
        write_rows(path, range(20))
    table = pq.read_table(two)
    other = table.drop_columns("_uid").set_column(1, "x", table["x"].cast(pa.float64()))
    pq.write_table(other, two)

    def opened(**options):
        return gs.stream({str(one.parent): 1, str(two.parent): 1}, global_batch_size=10, threads=0, **options)

    assert sum(len(batch["text"]) for batch in opened(columns=["id", "text"])) == 40
    for columns, said in (
        (["x"], "column 'x' is double in .*two' and float in .*one'"),
        (["id", "_uid"], "two' has no column '_uid', which .*one' has"),
        (None, "column 'x'|no column '_uid'"),
    ):
        with pytest.raises(SchemaMismatchError, match=said):
            opened(columns=columns)
    with pytest.raises(ColumnError, match="no column 'txet'.*'text'"):
        opened(columns=["txet"])
