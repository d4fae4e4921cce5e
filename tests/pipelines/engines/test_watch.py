"""Which items are called slow, and what is said about them."""

from __future__ import annotations

import threading

import pytest

from gristmill.errors import RunError
from gristmill.pipelines.engines import watch as module
from gristmill.pipelines.engines.watch import Watch, Workers, quiet


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_an_item_is_slow_by_time_and_beside_the_others(clock):
    watch = Watch([f"item {n}" for n in range(6)], 2, quiet)
    assert watch.slow() == []
    clock[0] += 59
    assert watch.slow() == [], "less than a minute is never told"
    clock[0] += 1
    assert watch.slow() == [(0, 60.0), (1, 60.0)]
    assert watch.slow() == [], "once, until its time has doubled"
    watch.done(0)
    for number in (2, 3):
        clock[0] += 10
        watch.done(number)
    clock[0] += 40
    assert watch.slow() == [(1, 120.0)], "4 began 40 s ago"
    clock[0] += 20
    assert watch.slow() == [(4, 60.0)]


def test_what_took_long_with_all_is_not_slow(clock):
    watch = Watch(list(range(4)), 1, quiet)
    for number in range(3):
        clock[0] += 100
        watch.done(number)
    clock[0] += 400
    assert watch.slow() == []
    clock[0] += 100
    assert watch.slow() == [(3, 500.0)]


def test_items_that_are_sent_again_are_told_one_by_one(clock):
    watch = Watch([f"item {n}" for n in range(9)], 2, quiet)
    watch.done(0)
    watch.group([range(4, 6), range(6, 9)])
    for number in (1, 2, 3):
        watch.done(number)
    clock[0] += 5
    watch.again(range(4, 6))  # lost as a whole
    clock[0] += 55
    assert watch.slow() == [(6, 60.0)]
    clock[0] += 5
    assert watch.slow() == [(4, 60.0)]
    watch.again(range(7, 9))  # left by the group that has begun with 6
    watch.done(6)
    watch.done(4)
    clock[0] += 60
    assert watch.slow() == [(5, 60.0), (7, 60.0)]
    assert watch._named(7) == "item 7"
    for number in (5, 7, 8):
        watch.done(number)
    clock[0] += 600
    assert watch.slow() == []


def test_items_that_are_sent_together_count_as_one(clock):
    watch = Watch([f"item {n}" for n in range(9)], 2, quiet)
    watch.done(0)
    watch.group([range(4, 7), range(7, 9)])
    for number in (1, 2):
        watch.done(number)
    clock[0] += 60
    assert watch.slow() == [(3, 60.0), (4, 60.0)]
    for number in (3, 4, 5, 6):
        watch.done(number)
    clock[0] += 60
    assert watch.slow() == [(7, 60.0)], "3 ended, then 4 to 6; only 7 and 8 are left"
    assert watch._named(7) == "item 7 or one of the 1 items after it"
    assert watch._named(3) == "item 3"


def test_it_says_so_from_beside_and_says_what_all_wait_for(monkeypatch):
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.05)
    said: list[str] = []
    heard = threading.Event()

    def note(text: str) -> None:
        said.append(text)
        heard.set()

    with Watch(["ingest of a.jsonl"], 1, note):
        assert heard.wait(60)
    assert said[0].startswith("still at work after 0 s: ingest of a.jsonl")


def test_a_cluster_without_workers_is_told_rarely_and_given_up(monkeypatch):
    monkeypatch.setattr(module, "LOOK_SOON", 0.01)
    monkeypatch.setattr(module, "TOLD_AFTER", 0.05)
    said: list[str] = []
    over = threading.Event()
    workers = Workers(lambda: "workers of tcp://h:1 (0 there)", lambda: "Start some.", 1.0, over.set)
    with Watch(["ingest of a.jsonl"], 1, said.append, workers) as watch:
        watch.check()
        assert over.wait(60)
    assert set(said) == {
        "waiting for workers of tcp://h:1 (0 there), for 0 s so far",
        "waiting for workers of tcp://h:1 (0 there), for 1 s so far",
    }
    assert 2 <= len(said) <= 3, "after 0.05, 0.2 and 0.8 s"
    with pytest.raises(
        RunError, match=r"waited 1 s for workers of tcp://h:1 \(0 there\). Start some. --wait SECONDS waits longer"
    ):
        watch.check()


def test_the_wait_begins_anew_when_workers_were_there(monkeypatch):
    monkeypatch.setattr(module, "LOOK_SOON", 0.01)
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.12)
    looks: list[int] = []
    enough = threading.Event()

    def missing() -> str | None:
        looks.append(1)
        if len(looks) > 200:
            enough.set()
        return None if len(looks) % 5 == 0 else "workers"

    with Watch(["a"], 1, quiet, Workers(missing, lambda: "", 1.0)) as watch:
        assert enough.wait(60)
        watch.check()
