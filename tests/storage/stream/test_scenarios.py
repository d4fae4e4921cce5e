"""Situations in which other loaders repeat, lose or reorder rows, and the states that torchdata's loader asks for."""

import hashlib
import json

import numpy as np
import pytest

import gristmill.storage.stream as gs
from gristmill.storage.stream.mixture import Mixture, quotas
from gristmill.storage.stream.order import Order, Shuffle
from gristmill.storage.stream.packing import Pack, plan_pieces
from tests.storage.stream.helpers import ids_of, run_ranks, write_rows


def run_legs(folder, legs, **options):
    """(ids of all batches in order, how many steps each rank made): legs of (ranks, rows in a rank's batch, steps or None for to the end)."""
    state, seen = None, []
    for ranks, rows, steps in legs:
        loaders = [
            gs.stream(folder, rank=rank, world_size=ranks, global_batch_size=ranks * rows, threads=0, seed=1, **options)
            for rank in range(ranks)
        ]
        parts = []
        for loader in loaders:
            if state is not None:
                loader.load_state_dict(state)
            parts.append([ids_of(batch) for _, batch in zip(range(steps if steps is not None else 10**9), loader)])
        assert len({len(part) for part in parts}) == 1
        seen += [sum(batch, []) for batch in zip(*parts)]
        assert len({json.dumps(loader.state_dict()) for loader in loaders}) == 1
        state = json.loads(json.dumps(loaders[0].state_dict()))
    return sum(seen, [])


@pytest.mark.parametrize(
    ("rows", "legs"),
    [
        (60, [(2, 5, 4), (3, 5, None)]),  # 40 seen, then 3 ranks: re-striping by whole batches serves 10 twice
        (100, [(3, 8, 2), (2, 3, None)]),  # 48 seen
        (1003, [(8, 8, 7), (3, 20, 3), (16, 4, None)]),  # 3 ranks don't divide what came before
        (1003, [(4, 1, 33), (1, 1003, None)]),
        (37, [(5, 3, 1), (7, 2, 1), (2, 9, None)]),  # fewer row groups than ranks
        (10, [(3, 3, 1), (4, 4, None)]),  # the rest is less than a batch
    ],
)
def test_every_row_once_whatever_changes(tmp_path, rows, legs):
    write_rows(tmp_path / "a.parquet", range(rows), group=8)
    assert sorted(run_legs(tmp_path, legs)) == list(range(rows))


def test_an_epochs_length_does_not_depend_on_ranks(tmp_path):
    write_rows(tmp_path / "a.parquet", range(1003), group=50)
    for tail, expected in (("carry", 16), ("drop", 15), ("pad", 16)):
        lengths = {
            len(gs.stream(tmp_path, global_batch_size=64, tail=tail, rank=0, world_size=world))
            for world in (1, 2, 3, 4, 8, 64)
        }
        assert lengths == {expected}


def test_one_seed_and_epoch_are_never_another_seeds_epoch(tmp_path):
    """seed + epoch would make epoch 1 of seed 0 and epoch 0 of seed 1 equal."""
    write_rows(tmp_path / "a.parquet", range(400), group=10)
    second = [
        i for batch in gs.stream(tmp_path, seed=0, epochs=2, threads=0, global_batch_size=400) for i in ids_of(batch)
    ][400:]
    assert second != [
        i for batch in gs.stream(tmp_path, seed=1, threads=0, global_batch_size=400) for i in ids_of(batch)
    ]


def test_sorted_rows_are_mixed_as_well_as_open_row_groups_allow(tmp_path):
    """1,000 classes in order, 8 rows each: a batch of 256 has about as many classes as one drawn from that many row groups would."""
    write_rows(tmp_path / "a.parquet", range(8000), group=8)
    loader = gs.stream(tmp_path, global_batch_size=256, shuffle_bytes=2**30, threads=0)
    classes = [len({i // 8 for i in ids_of(batch)}) for batch in loader][:-1]
    lanes = loader.state_dict()["shuffle"][0][0]
    assert np.mean(classes) > 0.9 * 1000 * (1 - (1 - 1 / 1000) ** 256) * min(1, lanes / 125)


def test_golden_mix_and_packing():
    """Like the order, these may never change: states of last year depend on them."""
    mix = Mixture(
        [Order([50] * 9, 1, Shuffle(3, 1)), Order([7] * 40, 2, Shuffle(5, 2)), Order([100], 3)],
        [(0, quotas([0.6, 0.3, 0.1])), (12_345, quotas([1, 1, 2]))],
        77,
    )
    places = mix.locate(np.arange(30_000))
    found = np.stack([places.group, places.row]).astype("<i8")
    assert hashlib.sha256(found.tobytes()).hexdigest() == GOLDEN_MIX
    lengths = np.array([(i * 7919) % 97 for i in range(500)], np.uint32)
    for method, golden in GOLDEN_PACKS.items():
        plan = np.stack(plan_pieces(lengths, Pack("t", 64, method=method))).astype("<i8")
        assert hashlib.sha256(plan.tobytes()).hexdigest() == golden


GOLDEN_MIX = "629486dcd70af0ba97a758eb31cbd89db320b7c5f7d5ee5039960c4a636870b1"
GOLDEN_PACKS = {
    "best_fit": "ec379dd37e49305300bc4a8bd4e9f43f6d811a283e37b5fab338834b7d3d237f",
    "concat": "7140839e9846709b71131b3d64cd3032c3f05d908463ec819c80fe122ed86e00",
}


def test_batches_are_copied_to_a_device(tmp_path):
    write_rows(tmp_path / "a.parquet", range(100))
    batch = next(iter(gs.stream(tmp_path, device="meta", columns=["id", "text"])))
    assert batch["id"].device.type == "meta" and isinstance(batch["text"], list)
    assert next(iter(gs.stream(tmp_path, device="cpu")))["id"].device.type == "cpu"


@pytest.mark.parametrize(("workers", "every"), [(0, 1), (0, 3), (2, 3)])
def test_states_of_torchdatas_loader(folder, workers, every):
    """Before the first batch, in the middle, at the end, twice in a row, and of a second epoch."""
    dataloader = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def make():
        loader = gs.stream(folder, global_batch_size=128, seed=5, threads=0, epochs=2)
        return dataloader(loader, batch_size=None, num_workers=workers, snapshot_every_n_steps=every)

    reference = [ids_of(batch) for batch in make()]
    assert len(reference) == 16
    for stop in (0, 7, 16) if workers else (0, 1, 7, 8, 15, 16):
        loader = make()
        iterator = iter(loader)
        head = [ids_of(next(iterator)) for _ in range(stop)]
        state = loader.state_dict()
        other = make()
        other.load_state_dict(state)
        rest = [ids_of(batch) for batch in other]
        assert head + rest == reference or (
            stop == 16 and rest == reference
        )  # torchdata begins anew after a state of the very end
