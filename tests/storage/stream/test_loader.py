"""The loader: the same global batches for any ranks, exactly once, resumed from anywhere with anything changed."""

import json
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gristmill.storage.stream as gs
from gristmill.storage.stream import reader, running
from gristmill.storage.stream.layout import open_layout
from tests.storage.stream.helpers import ids_of, run_ranks, write_rows

from gristmill.errors import ColumnError, DataChangedError, InputError, InputNotFoundError, StateError, UsageError

ROWS = 1003
SMALL = 40 * 10 * 40  # about 40 row groups


def make(folder, **changes):
    return gs.stream(
        folder, **{"global_batch_size": 48, "seed": 5, "shuffle_bytes": SMALL, "threads": 0, "epochs": 2, **changes}
    )


@pytest.fixture(scope="module")
def reference(folder):
    return [ids_of(batch) for batch in make(folder)]


def test_an_epoch_has_every_row_once_and_epochs_differ(reference):
    flat = sum(reference, [])
    assert len(flat) == 2 * ROWS
    for epoch in (flat[:ROWS], flat[ROWS:]):
        assert sorted(epoch) == list(range(ROWS)) != epoch
    assert flat[:ROWS] != flat[ROWS:]


@pytest.mark.parametrize(("world_size", "threads"), [(2, 0), (3, 0), (8, 0), (2, 3), (5, 1)])
def test_ranks_together_make_the_same_ordered_batches(folder, reference, world_size, threads):
    parts = run_ranks(lambda rank: make(folder, rank=rank, world_size=world_size, threads=threads), world_size)
    assert {len(part) for part in parts} == {len(reference)}
    assert [sum(batch, []) for batch in zip(*parts)] == reference


@pytest.mark.parametrize("tail", ["carry", "drop", "pad"])
def test_tails_and_length(folder, tail):
    for world_size in (1, 4):
        parts = run_ranks(
            lambda rank: make(folder, rank=rank, world_size=world_size, tail=tail, global_batch_size=60),
            world_size,
            keep=True,
        )
        loader = make(folder, tail=tail, global_batch_size=60)
        assert {len(part) for part in parts} == {len(loader)} == {{"carry": 34, "drop": 32, "pad": 34}[tail]}
        if tail == "pad":
            good = [
                i
                for part in parts
                for batch in part
                for i, ok in zip(batch["id"].tolist(), batch["_valid"].tolist())
                if ok
            ]
            assert all(len(batch["id"]) == 60 // world_size for part in parts for batch in part)
        else:
            good = [i for part in parts for batch in part for i in batch["id"].tolist()]
        if tail == "drop":
            assert len(good) == 2 * (ROWS // 60) * 60
            assert max(np.bincount(good)) == 2
        else:
            assert sorted(good) == sorted(list(range(ROWS)) * 2)
        if tail == "carry":
            assert {len(part[-1]["id"]) for part in parts} <= {26 // world_size, -(-26 // world_size)}


def test_a_last_batch_smaller_than_the_world_gives_some_ranks_nothing(folder):
    parts = run_ranks(
        lambda rank: make(folder, epochs=1, rank=rank, world_size=8, global_batch_size=1000), 8, keep=True
    )
    sizes = [len(part[-1]["id"]) for part in parts]
    assert sorted(sizes) == [0, 0, 0, 0, 0, 1, 1, 1]
    empty = next(part[-1] for part in parts if not len(part[-1]["id"]))
    full = parts[0][0]
    assert {name: (type(value), getattr(value, "dtype", None)) for name, value in empty.items()} == {
        name: (type(value), getattr(value, "dtype", None)) for name, value in full.items()
    }


@settings(max_examples=15)
@given(st.data())
def test_resumed_from_any_state_with_anything_changed(folder, data):
    """Runs in legs of random length, each with its own ranks and batch size; all legs together are every row once an epoch."""
    epochs = data.draw(st.integers(1, 3))
    state, seen, lanes = None, [], []
    while True:
        world, batch = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 200))
        steps = data.draw(st.integers(0, 12))
        loaders = [
            make(folder, epochs=epochs, global_batch_size=batch, rank=rank, world_size=world) for rank in range(world)
        ]
        for loader in loaders:
            if state is not None:
                loader.load_state_dict(json.loads(json.dumps(state)))
        iterators = [iter(loader) for loader in loaders]
        for _ in range(steps):
            parts = [next(it, None) for it in iterators]
            assert len({part is None for part in parts}) == 1
            if parts[0] is None:
                break
            seen += [i for part in parts for i in ids_of(part)]
        states = [loader.state_dict() for loader in loaders]
        assert all(one == states[0] for one in states)
        state = states[0]
        assert state["position"] == len(seen)
        assert len(json.dumps(state)) < 1000 or len(state["history"]) > 8
        if state["position"] == epochs * ROWS:
            break
        if len(lanes := [*lanes, steps]) > 8:
            seen += [i for batch in _resumed(folder, epochs, state) for i in ids_of(batch)]
            break
    for epoch in range(epochs):
        assert sorted(seen[epoch * ROWS : (epoch + 1) * ROWS]) == list(range(ROWS))
    assert sorted(seen) == sorted(list(range(ROWS)) * epochs)


def _resumed(folder, epochs, state):
    loader = make(folder, epochs=epochs, global_batch_size=64)
    loader.load_state_dict(state)
    return loader


def test_the_same_batches_follow_a_resume(folder, reference):
    for stop in (0, 1, 20, 21, len(reference) - 1, len(reference)):
        loader = make(folder, threads=2)
        iterator = iter(loader)
        for _ in range(stop):
            next(iterator)
        state = loader.state_dict()
        assert loader.state_dict() == state
        loader.close()
        other = make(folder, seed=99, shuffle_bytes=10)  # the state's win
        other.load_state_dict(state)
        assert len(other) == len(reference)
        assert [ids_of(batch) for batch in other] == reference[stop:]
        assert other.state_dict()["position"] == 2 * ROWS


def test_reading_ahead_never_gets_into_the_state(folder):
    loader = make(folder, threads=3, global_batch_size=10)
    for n, batch in enumerate(loader):
        assert loader.state_dict()["position"] == 10 * (n + 1) == batch.next_position
        assert loader.position == loader.state_dict(batch)["position"]
        if n == 5:
            break
    assert [ids_of(b) for b in loader][0] == ids_of(list(make(folder, global_batch_size=10))[6])


def test_an_exhausted_loader_yields_nothing_and_says_so(folder, caplog):
    loader = make(folder, epochs=1)
    assert len(list(loader)) == len(loader) == 21
    assert list(loader) == []
    assert "epochs= is the total" in caplog.text
    more = make(folder, epochs=2)
    more.load_state_dict(loader.state_dict())
    assert len(sum((ids_of(b) for b in more), [])) == ROWS


def test_a_state_loaded_inside_a_loop_ends_it(folder):
    loader = make(folder)
    with pytest.raises(StateError, match="leave the old loop"):
        for _ in loader:
            loader.load_state_dict(loader.state_dict())


def test_without_shuffle_rows_come_as_they_lie(folder):
    flat = [i for batch in make(folder, shuffle=False, epochs=1) for i in ids_of(batch)]
    assert flat == list(range(ROWS))


def test_small_shuffle_holds_few_row_groups_and_large_mixes_all(folder):
    def spread(size):
        batch = next(iter(make(folder, shuffle_bytes=size)))
        return len({i // 10 for i in ids_of(batch)})

    assert spread(10) <= 48 // 10 + 2
    assert spread(2**30) > 30


def test_threads_hold_no_more_than_the_budget(folder):
    loader = make(folder, threads=2, shuffle_bytes=2**30)
    assert len(list(loader)) == len(loader)
    import threading

    assert not [t for t in threading.enumerate() if t.name.startswith("gristmill")]


def test_skipped_rows_and_steps_are_left_out_exactly(folder, reference):
    loader = make(folder)
    iterator = iter(loader)
    for _ in range(10):
        next(iterator)
    state = loader.state_dict()
    gone_rows = [f"u{i}" for i in reference[12][:5]] + [f"u{reference[3][0]}"]
    skipping = make(folder, skip=[*gone_rows, 15])
    skipping.load_state_dict(state)
    rest = [ids_of(batch) for batch in skipping]
    assert all(len(batch) == 48 for batch in rest[:-1])
    flat = [i for batch in reference[10:] for i in batch]
    dropped = {int(uid[1:]) for uid in gone_rows}
    step_15 = set(range(15 * 48, 16 * 48))
    expected = [i for at, i in enumerate(flat, start=480) if i not in dropped and not in_step(at, step_15)]
    assert sorted(sum(rest, [])) == sorted(expected)
    resumed = make(folder)
    resumed.load_state_dict(skipping.state_dict() | {"position": state["position"], "step": 10})
    assert [ids_of(batch) for batch in resumed] == rest
    assert len(skipping) == 10 + len(rest)
    for step in (3, 9, 10, 20, len(skipping) - 1):
        expected = reference[step] if step < 10 else rest[step - 10]
        assert skipping.rows_at(step) == [f"u{i}" for i in expected]


def in_step(at, positions):
    return at in positions


def test_rows_of_any_step_and_steps_of_any_row(folder, reference):
    loader = make(folder)
    for step in (0, 7, 20, 21, len(reference) - 1):
        assert loader.rows_at(step) == [f"u{i}" for i in reference[step]]
    for row in (0, 500, ROWS - 1):
        expected = [step for step, batch in enumerate(reference) if row in batch]
        assert loader.steps_of(f"u{row}") == expected
    with pytest.raises(UsageError, match="step 42 is not in this run"):
        loader.rows_at(42)
    with pytest.raises(InputError, match="'nobody'"):
        loader.steps_of("nobody")


def test_trace_follows_batch_sizes_that_changed_on_the_way(folder, reference):
    loader = make(folder)
    iterator = iter(loader)
    for _ in range(4):
        next(iterator)
    wider = make(folder, global_batch_size=100)
    wider.load_state_dict(loader.state_dict())
    seen = [ids_of(batch) for batch in wider]
    for step in (0, 3):
        assert wider.rows_at(step) == [f"u{i}" for i in reference[step]]
    for step in (4, 5, 3 + len(seen)):
        assert wider.rows_at(step) == [f"u{i}" for i in seen[step - 4]]
    assert wider.steps_of(f"u{reference[2][0]}")[0] == 2


def test_plain_files_have_uids_by_place(tmp_path):
    write_rows(tmp_path / "sub" / "a.parquet", range(25), uid=False)
    write_rows(tmp_path / "b.parquet", range(25, 40), uid=False)
    loader = gs.stream(tmp_path, global_batch_size=7, threads=0)
    batches = [ids_of(batch) for batch in loader]
    names = {**{i: f"sub/a.parquet:{i}" for i in range(25)}, **{i: f"b.parquet:{i - 25}" for i in range(25, 40)}}
    assert loader.rows_at(2) == [names[i] for i in batches[2]]
    assert loader.steps_of("b.parquet:3") == [next(k for k, b in enumerate(batches) if 28 in b)]
    assert gs.stream(str(tmp_path / "*.parquet"), threads=0).rows_at(0)
    assert len(gs.stream([tmp_path / "b.parquet"], threads=0, global_batch_size=4)) == 4


def test_changed_data_is_refused_and_appended_data_is_taken_at_an_epochs_end(tmp_path):
    write_rows(tmp_path / "a.parquet", range(100))
    loader = gs.stream(tmp_path, global_batch_size=30, threads=0, tail="drop")
    iterator = iter(loader)
    next(iterator)
    inside = loader.state_dict()
    list(iterator)
    done = loader.state_dict()
    assert done["position"] == 100
    write_rows(tmp_path / "b.parquet", range(100, 150))
    grown = gs.stream(tmp_path, global_batch_size=30, threads=0, tail="drop", epochs=2)
    with pytest.raises(DataChangedError, match=r"1 files, 100 rows.*2 files, 150 rows.*on_change='extend'"):
        grown.load_state_dict(done)
    taking = gs.stream(tmp_path, global_batch_size=30, threads=0, tail="drop", epochs=2, on_change="extend")
    with pytest.raises(DataChangedError, match="inside epoch 0"):
        taking.load_state_dict(inside)
    taking.load_state_dict(done)
    flat = [i for batch in taking for i in ids_of(batch)]
    assert sorted(flat) == list(range(150))
    write_rows(tmp_path / "a.parquet", range(99))
    with pytest.raises(DataChangedError, match="Only files added"):
        gs.stream(tmp_path, threads=0, on_change="extend").load_state_dict(done)


def test_a_file_replaced_while_it_is_streamed_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "BLOCK_ROWS", 10)
    monkeypatch.setattr(running, "MIN_LOOK_AHEAD", 0)
    write_rows(tmp_path / "a.parquet", range(1000))
    loader = gs.stream(tmp_path, global_batch_size=10, threads=0, shuffle_bytes=1000)
    iterator = iter(loader)
    next(iterator)
    write_rows(tmp_path / "a.parquet", range(1000, 2000))
    with pytest.raises(DataChangedError, match="a.parquet' was replaced"):
        list(iterator)


def test_a_file_replaced_long_after_it_was_read_is_an_error(tmp_path, monkeypatch):
    """Its footer is not in memory any more; what it was like is."""
    monkeypatch.setattr(reader, "FOOTERS_KEPT", 1)
    for i, name in enumerate("abc"):
        write_rows(tmp_path / f"{name}.parquet", range(i * 100, i * 100 + 100), group=100)
    rows = reader.Reader(open_layout(tmp_path)[0])
    for group in range(3):
        rows.read(group)
    rows.read(0)
    rows.read(2)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    (tmp_path / "new").write_bytes(content)
    (tmp_path / "new").replace(tmp_path / "a.parquet")
    with pytest.raises(DataChangedError, match="a.parquet' was replaced"):
        rows.read(0)


def test_bad_usage_is_refused_at_once(folder, tmp_path):
    for changes, error, text in [
        ({"tail": "cary"}, UsageError, "Did you mean 'carry'"),
        ({"columns": ["idd"]}, ColumnError, "Did you mean 'id'"),
        ({"rank": 1}, UsageError, "belong together"),
        ({"rank": 2, "world_size": 2}, UsageError, "not below"),
        ({"global_batch_size": 0}, UsageError, "at least 1"),
        ({"tail": "drop", "global_batch_size": 5000}, UsageError, "leaves no step"),
        ({"split": "train"}, UsageError, "no splits"),
        ({"on_change": "x"}, UsageError, "on_change"),
        ({"decode": {"text": "rgbb"}}, UsageError, "Did you mean 'rgb'"),
        ({"require_verdict": True}, UsageError, "no verdicts"),
        ({"on_bad_row": "substitut"}, UsageError, "Did you mean 'substitute'"),
        ({"global_batch_size": 8.0}, UsageError, "global_batch_size=8.0: a whole number"),
        ({"epochs": True}, UsageError, "epochs=True: a whole number"),
        ({"threads": -1}, UsageError, "threads=-1"),
        ({"shuffle_bytes": 0}, UsageError, "shuffle_bytes=0"),
        ({"seed": "a"}, UsageError, "seed='a'"),
        ({"columns": "id"}, UsageError, r"columns=\['id'\]"),
        ({"skip": "u1"}, UsageError, r"skip=\['u1'\]"),
        ({"skip": [1.5]}, UsageError, "neither a uid nor the number"),
        ({"decode": {"id": "rgb"}}, UsageError, "column 'id' has neither bytes"),
        ({"pad": {"id": 0}}, UsageError, "column 'id' is no list of numbers"),
        ({"pad": {"idd": 0}}, ColumnError, "Did you mean 'id'"),
    ]:
        with pytest.raises(error, match=text):
            make(folder, **changes)
    with pytest.raises(InputNotFoundError, match="no Parquet file"):
        gs.stream(tmp_path / "none")
    with pytest.raises(StateError, match="not the state"):
        make(folder).load_state_dict({"a": 1})
    for damage in ({"position": -5}, {"step": "x"}, {"history": [["a", 0, 1, "carry"]]}):
        with pytest.raises(StateError, match="damaged"):
            make(folder).load_state_dict(make(folder).state_dict() | damage)
    with pytest.raises(StateError, match="version 2"):
        make(folder).load_state_dict(make(folder).state_dict() | {"version": 2})


def test_ranks_from_the_environment_and_a_mesh(folder, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert tuple(make(folder)._feed.ranks) == (1, 4)

    class Mesh:
        mesh_dim_names, ndim = ("dp_replicate", "dp_shard", "tp"), 3

        def size(self, dim):
            return (2, 3, 4)[dim]

        def get_coordinate(self):
            return [1, 2, self.tp]

    for tp in range(4):
        mesh = Mesh()
        mesh.tp = tp
        assert tuple(make(folder, mesh=mesh)._feed.ranks) == (5, 6)


@pytest.mark.parametrize("workers", [1, 3])
def test_inside_a_plain_dataloader_order_stays(folder, reference, workers):
    loader = make(folder)
    batches = list(torch.utils.data.DataLoader(loader, batch_size=None, num_workers=workers, collate_fn=_same))
    assert [ids_of(batch) for batch in batches] == reference
    other = make(folder)
    other.load_state_dict(loader.state_dict(batches[6]))
    assert [
        ids_of(b) for b in torch.utils.data.DataLoader(other, batch_size=None, num_workers=2, collate_fn=_same)
    ] == reference[7:]


def _same(batch):
    return batch


def test_inside_stateful_dataloader(folder, reference):
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    for workers in (0, 2):
        loader = stateful.StatefulDataLoader(make(folder), batch_size=None, num_workers=workers)
        iterator = iter(loader)
        head = [ids_of(next(iterator)) for _ in range(7)]
        state = loader.state_dict()
        other = stateful.StatefulDataLoader(make(folder), batch_size=None, num_workers=workers)
        other.load_state_dict(state)
        assert head + [ids_of(batch) for batch in other] == reference


def test_distributed_checkpoint(folder, reference, tmp_path):
    import torch.distributed.checkpoint as dcp

    loader = make(folder)
    iterator = iter(loader)
    for _ in range(9):
        next(iterator)
    dcp.save({"loader": loader}, checkpoint_id=tmp_path / "ckpt", no_dist=True)
    loader.close()
    other = make(folder, global_batch_size=48)
    dcp.load({"loader": other}, checkpoint_id=tmp_path / "ckpt", no_dist=True)
    assert [ids_of(batch) for batch in other] == reference[9:]


def test_pickled_loader_goes_on(folder, reference):
    loader = make(folder)
    iterator = iter(loader)
    for _ in range(3):
        next(iterator)
    assert [ids_of(batch) for batch in pickle.loads(pickle.dumps(loader))] == reference[3:]


def test_seeds_are_not_the_order_of_anything_global(folder, reference):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert [ids_of(batch) for batch in make(folder)] == reference
