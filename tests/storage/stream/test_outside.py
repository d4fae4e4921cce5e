"""Situations in which other loaders' own tests and order functions are tried, with this loader.

torchdata: what its state-dict tests ask of a dataset inside a StatefulDataLoader. That another number of workers is refused is torchdata's own
rule and not tested. Mosaic and litdata: changes of ranks where their order functions repeat or lose rows (benchmarks/stream/elastic.py);
those functions themselves run where GRISTMILL_PEERS names the Python of an environment with benchmarks/peers.txt.
"""

import json
import os

import pytest

import gristmill
from benchmarks.stream import elastic
from tests.storage.stream.helpers import ids_of, write_rows

stateful = pytest.importorskip(
    "torchdata.stateful_dataloader", reason="torchdata isn't installed: pip install torchdata"
)
ROWS, BATCH = 203, 10
STEPS = -(-ROWS * 2 // BATCH)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder / "a.parquet", range(ROWS))
    return folder


@pytest.fixture(scope="module")
def reference(rows):
    return [ids_of(batch) for batch in stream(rows)]


def stream(rows):
    return gristmill.stream(rows, columns=["id"], global_batch_size=BATCH, seed=2, epochs=2, threads=0)


def loader_of(rows, workers):
    return stateful.StatefulDataLoader(stream(rows), batch_size=None, num_workers=workers)


def resumed(rows, workers, state):
    """The ids of all steps after a state that went through JSON."""
    loader = loader_of(rows, workers)
    loader.load_state_dict(json.loads(json.dumps(state)))
    return [ids_of(batch) for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
class TestTorchdata:
    def test_state_before_the_first_batch(self, rows, reference, workers):
        assert resumed(rows, workers, loader_of(rows, workers).state_dict()) == reference
        loader = loader_of(rows, workers)
        iter(loader)
        assert resumed(rows, workers, loader.state_dict()) == reference

    @pytest.mark.parametrize("stop", [1, 20, 21, STEPS - 1])
    def test_state_after_any_step_once_and_twice(self, rows, reference, workers, stop):
        loader = loader_of(rows, workers)
        iterator = iter(loader)
        assert [ids_of(next(iterator)) for _ in range(stop)] == reference[:stop]
        state = loader.state_dict()
        assert json.dumps(loader.state_dict()) == json.dumps(state)
        assert resumed(rows, workers, state) == reference[stop:]

    def test_the_loader_goes_on_after_a_state_was_taken(self, rows, reference, workers):
        loader = loader_of(rows, workers)
        seen = []
        for batch in loader:
            seen.append(ids_of(batch))
            loader.state_dict()
        assert seen == reference

    def test_resumed_from_a_resumed_state(self, rows, reference, workers):
        first = loader_of(rows, workers)
        iterator = iter(first)
        for _ in range(7):
            next(iterator)
        second = loader_of(rows, workers)
        second.load_state_dict(first.state_dict())
        iterator = iter(second)
        assert [ids_of(next(iterator)) for _ in range(9)] == reference[7:16]
        assert resumed(rows, workers, second.state_dict()) == reference[16:]

    def test_a_new_dataset_and_loader_are_not_shared(self, rows, reference, workers):
        one, two = iter(loader_of(rows, workers)), iter(loader_of(rows, workers))
        next(one)
        assert ids_of(next(two)) == reference[0]
        assert ids_of(next(one)) == reference[1]


def test_nothing_comes_after_the_end(rows):
    """Without worker processes. With them torchdata starts each iteration from its own copy of the dataset: a finished loader gives the whole run again."""
    loader = loader_of(rows, 0)
    assert sum(1 for _ in loader) == STEPS
    assert list(loader) == []
    assert resumed(rows, 0, loader.state_dict()) == []


@pytest.mark.parametrize("case", elastic.CASES, ids=lambda case: case.what)
def test_no_row_twice_and_none_lost_where_others_do(case):
    assert elastic.gristmill_counts(case) == {"repeated": 0, "lost": 0}


@pytest.mark.slow
def test_others_repeat_and_lose_rows_there():
    peers = os.environ.get("GRISTMILL_PEERS")
    if not peers:
        pytest.skip("GRISTMILL_PEERS doesn't name the Python of an environment with benchmarks/peers.txt")
    found = elastic.baselines(peers, [[case.what, *case.peer] for case in elastic.CASES])
    assert all(each["repeated"] + each["lost"] > 0 for each in found.values()), found
