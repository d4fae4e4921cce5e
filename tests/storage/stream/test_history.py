"""Trace over runs of several legs: whatever changed from one to the next, every step's rows and every row's steps are those that came."""

import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gristmill.storage.stream as gs
from gristmill.storage.stream.sources import Mix
from tests.storage.stream.helpers import ids_of, write_rows

from gristmill.errors import UsageError


def uid_files(base, count, group, start=0):
    base.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table({"_uid": [f"u{i}" for i in range(start, start + count)]}), base / "a.parquet", row_group_size=group
    )
    return str(base)


def uids_of(parts):
    """The uids of a step, from what each rank got of it."""
    found = []
    for batch in parts:
        good = batch["_valid"].tolist() if "_valid" in batch else [True] * len(batch["_uid"])
        found += [uid for uid, ok in zip(batch["_uid"], good) if ok]
    return found


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_every_step_of_every_leg(tmp_path_factory, data):
    """Legs of any batch size, tail, epochs (more or fewer than before), ranks, weights and skipped rows; a leg may end anywhere, also at the end of its epochs."""
    draw, base = data.draw, tmp_path_factory.mktemp("legs")
    count, group = draw(st.integers(1, 40)), draw(st.integers(1, 9))
    one = uid_files(base / "one", count, group)
    two = uid_files(base / "two", draw(st.integers(1, 30)), group, 1000) if draw(st.booleans()) else None
    rows = pq.read_metadata(f"{one}/a.parquet").num_rows + (pq.read_metadata(f"{two}/a.parquet").num_rows if two else 0)
    schedules = st.sampled_from([[1, 1], [3, 1], [0, 1], [(0, [1, 1]), (7, [1, 0]), (20, [1, 9])]])
    fixed = {"threads": 0, "shuffle": draw(st.booleans()), "shuffle_bytes": draw(st.sampled_from([10, 300, 10**6]))}
    state, came = None, {}
    for _ in range(draw(st.integers(1, 4))):
        world, size = draw(st.integers(1, 3)), draw(st.integers(1, min(rows, 20)))
        skip = draw(st.lists(st.sampled_from([f"u{i}" for i in range(count)]), max_size=3))
        changes = {
            "global_batch_size": size,
            "tail": draw(st.sampled_from(["carry", "drop", "pad"])),
            "epochs": draw(st.integers(1, 3)),
            "skip": skip,
        }
        source = Mix([one, two], draw(schedules)) if two else one
        loaders = [gs.stream(source, rank=rank, world_size=world, **changes, **fixed) for rank in range(world)]
        for loader in loaders:
            if state is not None:
                loader.load_state_dict(state)
        first, said = loaders[0], {}
        for step in range(first.step, len(first)):
            said[step] = first.rows_at(step)
        iterators = [iter(loader) for loader in loaders]
        for _ in range(draw(st.sampled_from([0, 1, 3, 10**6]))):
            parts = [next(iterator, None) for iterator in iterators]
            if parts[0] is None:
                assert parts == [None] * world and first.step == len(first)
                break
            assert uids_of(parts) == said[parts[0].step]
            assert not set(skip) & set(uids_of(parts))
            came[parts[0].step] = uids_of(parts)
        assert len({json.dumps(loader.state_dict()) for loader in loaders}) == 1
        state = json.loads(json.dumps(first.state_dict()))
        assert {step: first.rows_at(step) for step in came} == came
        to_come = {step: first.rows_at(step) for step in range(first.step, len(first))}
        for uid in draw(st.lists(st.sampled_from([f"u{i}" for i in range(count)]), max_size=4)):
            assert first.steps_of(uid) == sorted(step for step, uids in {**came, **to_come}.items() if uid in uids)


def test_a_short_last_batch_that_was_not_the_last(tmp_path):
    """10 rows in batches of 4, one epoch; then two more are asked for."""
    write_rows(tmp_path / "a.parquet", range(10))
    done = gs.stream(tmp_path, global_batch_size=4, threads=0)
    batches = [ids_of(batch) for batch in done]
    assert list(map(len, batches)) == [4, 4, 2]
    more = gs.stream(tmp_path, global_batch_size=4, threads=0, epochs=3)
    more.load_state_dict(done.state_dict())
    batches += [ids_of(batch) for batch in more]
    assert [[f"u{i}" for i in ids] for ids in batches] == [more.rows_at(step) for step in range(8)]
    fewer = gs.stream(tmp_path, global_batch_size=4, threads=0, epochs=1)
    fewer.load_state_dict(more.state_dict())
    assert len(fewer) == 8 and list(fewer) == [] and fewer.rows_at(7) == more.rows_at(7)
    skip = ["u1", "u2", "u3"]
    first = gs.stream(tmp_path, global_batch_size=3, threads=0, epochs=2, skip=skip)
    assert sum(len(batch["id"]) for _, batch in zip(range(4), first)) == 12
    skipping = gs.stream(tmp_path, global_batch_size=3, threads=0, epochs=1, skip=skip)
    skipping.load_state_dict(first.state_dict())
    assert len(skipping) == 4 and list(skipping) == []  # in the second epoch already


def test_the_same_skip_at_every_start_leaves_out_the_same_rows(tmp_path):
    write_rows(tmp_path / "a.parquet", range(100))
    plain = [ids_of(batch) for batch in gs.stream(tmp_path, global_batch_size=10, threads=0)]

    def make():
        return gs.stream(tmp_path, global_batch_size=10, threads=0, skip=[4, 6, "u0"])

    expected = [ids_of(batch) for batch in make()]
    gone = {*plain[4], *plain[6], 0}
    assert sum(map(len, expected)) == 100 - len(gone) and not gone & set(sum(expected, []))
    loader, seen = make(), []
    for stop in (1, 1, 2, 100):
        seen += [ids_of(batch) for _, batch in zip(range(stop), loader)]
        loader.close()
        state = json.loads(json.dumps(loader.state_dict()))
        loader = make()
        loader.load_state_dict(state)
        loader = pickle.loads(pickle.dumps(loader))  # as spawned DataLoader workers get it
    assert seen == expected
    for step in (-1, 10):
        with pytest.raises(UsageError, match=f"step {step} is not in this run"):
            gs.stream(tmp_path, global_batch_size=10, threads=0, skip=[step])
