"""Which items are called slow, and what is said about them."""

from __future__ import annotations

import threading

import pytest

from gristmill.pipelines.engines import watch as module
from gristmill.pipelines.engines.watch import Watch, quiet


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
    said.clear()
    heard.clear()
    with Watch(["ingest of a.jsonl"], 1, note, lambda: "the Dask cluster has no workers"):
        assert heard.wait(60)
    assert said[0] == "the Dask cluster has no workers; waiting for them"
