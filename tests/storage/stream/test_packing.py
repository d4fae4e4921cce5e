"""Packing: every token once an epoch, documents whole where they fit, and the same order, state and trace as rows have."""

import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import gristmill.storage.stream as gs
from gristmill.errors import DataChangedError, InputError, StateError, UsageError
from gristmill.kernels.packing import best_fit
from gristmill.storage.stream import Mix, Pack, cu_seqlens
from gristmill.storage.stream.lookup import open_run
from gristmill.storage.stream.packing import plan_pieces
from tests.storage.stream.helpers import run_ranks

LENGTH = 32


def tokens_of(i, rng_length):
    return [i * 1000 + k for k in range(rng_length)]


def write(folder, count, start=0, group=25):
    lengths = np.random.default_rng(start).integers(0, 90, count)
    rows = [None if i % 17 == 5 else tokens_of(start + i, n) for i, n in enumerate(lengths.tolist())]
    table = pa.table(
        {
            "_uid": [f"u{start + i}" for i in range(count)],
            "tokens": pa.array(rows, pa.list_(pa.int32())),
            "weight": pa.array(
                [None if row is None else [float(t) for t in row] for row in rows], pa.list_(pa.float32())
            ),
            "n": pa.array([len(row or []) for row in rows], pa.int32()),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / f"{start}.parquet", row_group_size=group)
    return {start + i: row or [] for i, row in enumerate(rows)}


@pytest.fixture
def packed(tmp_path):
    return tmp_path / "d", write(tmp_path / "d", 150) | write(tmp_path / "d", 75, 1000)


def make(folder, pack=Pack("tokens", LENGTH), **changes):
    return gs.stream(
        folder, **{"global_batch_size": 8, "seed": 3, "threads": 0, "shuffle_bytes": 50_000, "pack": pack, **changes}
    )


def documents(batch):
    """(document, first token there, tokens) of every piece in a batch, as the batch's ids say."""
    for tokens, places, owners in zip(
        batch["tokens"].tolist(), batch["position_ids"].tolist(), batch["document_ids"].tolist()
    ):
        used = sum(owner >= 0 for owner in owners)
        assert owners[used:] == [-1] * (LENGTH - used) and tokens[used:] == [0] * (LENGTH - used)
        for number in range(max(owners) + 1):
            here = [k for k in range(LENGTH) if owners[k] == number]
            assert here == list(range(here[0], here[-1] + 1)) and [places[k] for k in here] == list(range(len(here)))
            piece = [tokens[k] for k in here]
            yield piece[0] // 1000, piece[0] % 1000, piece


@pytest.mark.parametrize("method", ["best_fit", "concat"])
def test_every_token_comes_once(packed, method):
    folder, rows = packed
    seen = {}
    for batch in make(folder, Pack("tokens", LENGTH, also=("weight",), method=method)):
        assert batch["tokens"].shape == batch["weight"].shape and batch["tokens"].dtype == torch.int32
        assert torch.equal(batch["tokens"].float(), batch["weight"])
        for document, first, piece in documents(batch):
            assert seen.setdefault((document, first), piece) is piece
            if method == "best_fit":
                assert first % LENGTH == 0 and (len(piece) == LENGTH or first + len(piece) == len(rows[document]))
    found = {i: [] for i in rows}
    for (document, _), piece in sorted(seen.items()):
        found[document] += piece
    assert found == rows


@given(st.lists(st.integers(0, 70), max_size=60), st.integers(1, 40), st.sampled_from(["best_fit", "concat"]))
def test_a_plan_covers_every_token_without_overlap(lengths, length, method):
    plan = plan_pieces(np.array(lengths, np.uint32), Pack("t", length, method=method))
    covered = sorted(
        (row, start + k)
        for row, start, size in zip(plan.row.tolist(), plan.start.tolist(), plan.size.tolist())
        for k in range(size)
    )
    assert covered == [(row, k) for row, n in enumerate(lengths) for k in range(n)]
    slots = [
        (pack, target + k)
        for pack, target, size in zip(plan.pack.tolist(), plan.target.tolist(), plan.size.tolist())
        for k in range(size)
    ]
    assert len(set(slots)) == len(slots) and all(0 <= place < length for _, place in slots)
    packs = plan.pack.tolist()
    assert packs == sorted(packs) and set(packs) == set(range(max(packs, default=-1) + 1))
    if method == "concat":
        assert len(set(packs)) == -(-sum(lengths) // length)
    else:
        firsts = [plan.row[packs.index(p)] for p in sorted(set(packs))]
        assert firsts == sorted(firsts)


@given(st.lists(st.integers(1, 150), min_size=1, max_size=200), st.integers(150, 300))
def test_best_fit_is_what_it_says(sizes, capacity):
    bins = best_fit(np.array(sizes), capacity)
    room: list[int] = []
    expected = np.empty(len(sizes), int)
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        fits = [r for r in room if r >= sizes[i]]
        at = max(b for b, r in enumerate(room) if r == min(fits)) if fits else len(room)
        if not fits:
            room.append(capacity)
        room[at] -= sizes[i]
        expected[i] = at
    loads = np.bincount(bins, sizes)
    assert loads.max() <= capacity
    assert sorted(loads) == sorted(np.bincount(expected, sizes))
    assert len(loads) <= -(-11 * -(-sum(sizes) // capacity) // 9) + 1  # at most 11/9 of the best (Johnson 1973)


def sequences(batch):
    return batch["tokens"].tolist()


def test_packs_are_elastic_resumable_and_traced(packed, tmp_path):
    folder, rows = packed
    loader = make(folder, epochs=2)
    reference = [sequences(batch) for batch in loader]
    assert len(loader) == len(reference)
    parts = [
        [sequences(batch) for batch in part]
        for part in run_ranks(lambda rank: make(folder, epochs=2, rank=rank, world_size=3, threads=1), 3, keep=True)
    ]
    assert [sum(batch, []) for batch in zip(*parts)] == reference
    loader = make(folder, epochs=2)
    iterator = iter(loader)
    for _ in range(7):
        next(iterator)
    state = json.loads(json.dumps(loader.state_dict()))
    other = pickle.loads(pickle.dumps(make(folder, epochs=2, seed=8)))
    other.load_state_dict(state)
    assert [sequences(batch) for batch in other] == reference[7:]
    members = [[sorted({t // 1000 for t in s if t}) for s in step] for step in reference]
    for step in (0, 7, len(reference) - 1):
        uids = other.rows_at(step)
        assert {u for u in uids} == {f"u{i}" for s in members[step] for i in s} | (
            {"u0"} if any(0 in s for s in members[step]) else set()
        )
        assert [row["uid"] for row in open_run(str(folder), state).step(step)["rows"]] == uids
    long = max(rows, key=lambda i: len(rows[i]))
    assert other.steps_of(f"u{long}") == [k for k, step in enumerate(members) if any(long in s for s in step)]
    assert other.steps_of("u5") == []  # null
    skipping = make(folder, epochs=2, skip=[f"u{long}"])
    skipping.load_state_dict(state)
    assert not any(long in {t // 1000 for t in s} for batch in skipping for s in sequences(batch))


def test_the_plan_is_kept_in_a_file_and_lengths_may_have_a_column(packed, tmp_path):
    folder, _ = packed
    expected = [sequences(batch) for batch in make(folder)]
    plan = tmp_path / "plans" / "d.plan"
    for pack in (
        Pack("tokens", LENGTH, plan=plan),
        Pack("tokens", LENGTH, lengths="n"),
        Pack("tokens", LENGTH, plan=str(plan)),
    ):
        assert [sequences(batch) for batch in make(folder, pack)] == expected
    assert plan.exists()
    other = make(folder, Pack("tokens", 48, plan=plan))  # another length needs no new lengths
    assert [sequences(b) for b in pickle.loads(pickle.dumps(other))] == [
        sequences(b) for b in make(folder, Pack("tokens", 48))
    ]
    with pytest.raises(DataChangedError, match="made for other data"):
        make(folder, Pack("weight", LENGTH, plan=plan))


def test_packs_mix_and_transform(packed, tmp_path):
    folder, _ = packed
    write(tmp_path / "e", 60, 5000)
    batches = list(make(Mix([str(folder), str(tmp_path / "e")], [3, 1]), global_batch_size=100, epochs=3))
    assert {len(batch["tokens"]) for batch in batches[:-1]} == {100}
    doubled = list(make(folder, transform=lambda row, rng: {"x": row["tokens"] * 2}))
    assert [batch["x"].tolist() for batch in doubled] == [(batch["tokens"] * 2).tolist() for batch in make(folder)]


def test_what_cant_be_packed_is_told(packed, tmp_path):
    folder, _ = packed
    for pack, error, text in [
        ({"column": "n"}, UsageError, "'n' is int32"),
        ({"column": "tokenz"}, UsageError, "Did you mean 'tokens'"),
        ({"length": 0}, UsageError, "at least 1 token"),
        ({"method": "best"}, UsageError, "Did you mean 'best_fit'"),
    ]:
        with pytest.raises(error, match=text):
            make(folder, Pack(**{"column": "tokens", "length": LENGTH, **pack}))
    with pytest.raises(UsageError, match="don't go together"):
        make(folder, columns=["tokens"])
    with pytest.raises(StateError, match="packed as"):
        gs.stream(folder, columns=["n"]).load_state_dict(make(folder).state_dict())
    table = pa.table({"t": [[1, 2, 3], [4]], "n": [3, 2], "w": [[1.0], [1.0]]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"row 1, column 't': 1 values, but the plan has 2 tokens"):
        list(make(tmp_path / "x.parquet", Pack("t", 4, lengths="n")))
    with pytest.raises(InputError, match=r"row 0, column 'w': 1 values, but the plan has 3 tokens"):
        list(make(tmp_path / "x.parquet", Pack("t", 4, also=("w",))))


def test_boundaries_for_variable_length_attention():
    ids = torch.tensor([[0, 0, 1, -1], [0, 0, 0, 0], [0, 1, 1, 2]])
    assert cu_seqlens(ids).tolist() == [0, 2, 3, 4, 8, 9, 11, 12]
