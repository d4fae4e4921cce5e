"""The order: a bijection in every epoch, invertible, the same for ever, well mixed, and cheap at a billion rows."""

import hashlib
import math
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.storage.stream.order import Order, Shuffle, fit_shuffle
from gristmill.storage.stream.permute import derive_key, derive_keys, permutation, scramble

sizes = st.lists(st.integers(0, 40), min_size=1, max_size=60).filter(lambda rows: sum(rows) > 0)
shuffles = st.none() | st.builds(Shuffle, st.integers(1, 40), st.integers(1, 8))


def numbers(order: Order, positions: np.ndarray) -> np.ndarray:
    first = np.concatenate([[0], np.cumsum(order.group_rows)])
    places = order.locate(positions)
    assert (places.row < order.group_rows[places.group]).all()
    return first[places.group] + places.row


@given(sizes, shuffles, st.integers(-(2**63), 2**64))
def test_every_epoch_has_every_row_once_and_the_inverse_finds_it(rows, shuffle, seed):
    order = Order(rows, seed, shuffle)
    for epoch in (0, 1, 7):
        positions = np.arange(epoch * order.num_rows, (epoch + 1) * order.num_rows)
        assert sorted(numbers(order, positions)) == list(range(order.num_rows))
        places = order.locate(positions)
        assert (order.position_of(places.group, places.row, epoch) == positions).all()


@given(sizes, shuffles)
def test_row_groups_are_needed_no_later_than_last_use_says(rows, shuffle):
    order = Order(rows, 5, shuffle)
    for epoch in (0, 3):
        positions = np.arange(epoch * order.num_rows, (epoch + 1) * order.num_rows)
        groups = order.locate(positions).group
        real = np.full(len(rows), -1)
        np.maximum.at(real, groups, positions)
        said = order.needed_until(positions, groups)
        assert (said >= real[groups]).all()
        assert (said < (epoch + 1) * order.num_rows).all()


@given(sizes, shuffles, st.data())
def test_a_position_does_not_depend_on_what_is_asked_beside_it(rows, shuffle, data):
    order = Order(rows, 1, shuffle)
    every = numbers(order, np.arange(3 * order.num_rows))
    some = np.array(data.draw(st.lists(st.integers(0, 3 * order.num_rows - 1), min_size=1, max_size=20)))
    assert (numbers(Order(rows, 1, shuffle), some) == every[some]).all()


def test_without_shuffle_the_order_is_that_of_the_files():
    order = Order([3, 0, 2], 9, None)
    assert numbers(order, np.arange(10)).tolist() == [0, 1, 2, 3, 4] * 2


def test_golden_order():
    """The order of a run must never change: a state of last year must resume. If this fails the state's version must go up."""
    rows = [(i * 37) % 101 for i in range(300)]
    order = Order(rows, 20240501, Shuffle(24, 2))
    found = numbers(order, np.arange(2 * order.num_rows))
    assert found[:8].tolist() == GOLDEN_FIRST
    assert hashlib.sha256(found.astype("<i8").tobytes()).hexdigest() == GOLDEN
    assert derive_key(1, 2) != derive_key(2, 1) != derive_key(3, 0)


GOLDEN_FIRST = [703, 13, 2429, 9427, 5328, 12833, 1862, 6801]
GOLDEN = "42b5b30f8fb7391496e7a6ca560c297ede081a7b39197e165cf80d0b255d2993"


def test_epochs_and_seeds_differ():
    order = Order([100] * 50, 1, Shuffle(6, 1))
    first, second = (numbers(order, np.arange(e * 5000, (e + 1) * 5000)) for e in (0, 1))
    other = numbers(Order([100] * 50, 2, Shuffle(6, 1)), np.arange(5000))
    for a, b in ((first, second), (second, other), (first, other)):
        assert (a == b).mean() < 0.01


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_small_permutations_are_uniform(count):
    """Every order is as likely as every other: a chi-square test over all of them, 5 standard deviations wide."""
    trials = 200 * math.factorial(count)
    keys = derive_keys(7, np.arange(trials))
    images = scramble(
        np.tile(np.arange(count), trials), np.full(trials * count, count), np.repeat(keys, count)
    ).reshape(trials, count)
    _, seen = np.unique(images @ count ** np.arange(count), return_counts=True)
    freedom = math.factorial(count) - 1
    chi = ((seen - 200) ** 2 / 200).sum() + 200 * (math.factorial(count) - len(seen))
    assert abs(chi - freedom) < 5 * math.sqrt(2 * freedom) + 3


@pytest.mark.parametrize("count", [1, 2, 31, 64, 65, 1000, 4097])
def test_scramble_is_a_bijection_with_an_inverse(count):
    for key in (0, 1, 2**64 - 1):
        keys, limits = np.full(count, key, np.uint64), np.full(count, count)
        images = scramble(np.arange(count), limits, keys)
        assert sorted(images) == list(range(count))
        assert (scramble(images, limits, keys, inverse=True) == np.arange(count)).all()
        assert sorted(permutation(count, key)) == list(range(count))


def test_neighbours_in_the_file_land_anywhere():
    order = Order([500] * 40, 3, fit_shuffle(np.full(40, 500), 1, 10**9))
    rows = numbers(order, np.arange(order.num_rows))
    assert abs(np.corrcoef(np.arange(len(rows)), rows)[0, 1]) < 0.05
    assert (np.abs(np.diff(rows)) == 1).mean() < 0.01


@pytest.mark.parametrize("open_groups", [8, 16, 32, 64, 100])
def test_no_more_row_groups_are_open_than_the_budget_allows(open_groups):
    rows = np.full(800, 250)
    order = Order(rows, 1, fit_shuffle(rows, 10.0, open_groups * 2500))
    groups = order.locate(np.arange(order.num_rows)).group
    _, first = np.unique(groups, return_index=True)
    _, last = np.unique(groups[::-1], return_index=True)
    change = np.zeros(len(groups) + 1, int)
    np.add.at(change, first, 1)
    np.add.at(change, len(groups) - last, -1)
    assert change.cumsum().max() <= open_groups
    batches = groups.reshape(-1, 250)
    assert np.mean([len(np.unique(batch)) for batch in batches]) > 0.85 * open_groups * (
        1 - math.exp(-250 / open_groups)
    )


@pytest.mark.parametrize("world_size", [2, 3, 4, 6, 7, 8])
def test_ranks_read_few_row_groups_twice(world_size):
    rows = np.full(2000, 64)
    order = Order(rows, 1, fit_shuffle(rows, 1.0, 64 * 64))
    seen: list[set] = [set() for _ in range(world_size)]
    for start in range(0, order.num_rows - 256, 256):
        positions = np.arange(start, start + 256)
        positions = positions[np.argsort(order.lane_of(positions), kind="stable")]
        for rank in range(world_size):
            seen[rank].update(
                order.locate(positions[256 * rank // world_size : 256 * (rank + 1) // world_size]).group.tolist()
            )
    assert sum(map(len, seen)) < 1.25 * 2000


def test_a_billion_rows_cost_milliseconds_and_no_memory_per_row():
    rows = np.full(100_000, 10_000)
    tracemalloc.start()
    started = time.perf_counter()
    order = Order(rows, 3, fit_shuffle(rows, 400.0, 2**30))
    order.locate(np.arange(987_654_321, 987_654_833))
    took = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * 2**20
    print(f"{took * 1e3:.0f} ms, {peak / 2**20:.1f} MiB")
