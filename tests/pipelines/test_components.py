"""Components by rounds of exchange are those that the driver finds, whatever the graph and however it is cut."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import RunError
from gristmill.pipelines import components as module
from gristmill.pipelines import exchange as exchanges
from gristmill.pipelines.components import EDGES, components
from gristmill.pipelines.engines.base import InProcess
from gristmill.pipelines.exchange import Part
from gristmill.pipelines.work import WorkStore


def stars(folder, edges: list[tuple[int, int]], *, cuts: int, limits: tuple[int, int, int]) -> list[tuple[int, int]]:
    """The stars of a graph whose edges come in so many parts, with other limits for driver, partition and chunk."""
    store = WorkStore(str(folder))
    pieces = [edges[number::cuts] for number in range(cuts)]
    held = [pa.table([[a for a, _ in part], [b for _, b in part]], schema=EDGES) for part in pieces]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in zip(("DRIVER_BYTES", "PARTITION_BYTES", "CHUNK_BYTES"), limits, strict=True):
            patch.setattr(exchanges, name, value)
        found, used = components(InProcess(), store, [Part(part.num_rows, held=part) for part in held], "t")
    assert all(store.done(key) is not None for key in used)
    return [(row["left"], row["right"]) for part in found for table in part.tables(store) for row in table.to_pylist()]


def expected(edges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """By plain search."""
    beside: dict[int, set[int]] = {}
    for a, b in edges:
        beside.setdefault(a, set()).add(b)
        beside.setdefault(b, set()).add(a)
    seen: set[int] = set()
    found = []
    for node in sorted(beside):
        todo = [] if node in seen else [node]
        while todo:
            at = todo.pop()
            if at not in seen:
                seen.add(at)
                todo += beside[at]
                found += [] if at == node else [(node, at)]
    return sorted(found)


HERE, FILES = (1 << 30, 1 << 20, 1 << 20), (0, 300, 100)


@settings(max_examples=40, deadline=None)
@given(
    edges=st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=40)
    | st.lists(st.tuples(st.integers(0, 2**50), st.integers(0, 2**50)), max_size=10),
    cuts=st.integers(1, 3),
)
def test_both_ways_give_what_plain_search_gives(tmp_path_factory, edges, cuts):
    folder = tmp_path_factory.mktemp("work")
    for limits in (HERE, FILES):
        assert sorted(stars(folder, edges, cuts=cuts, limits=limits)) == expected(edges)


@pytest.mark.parametrize("shape", ["chain", "shuffled chain", "star", "tree"])
def test_long_and_wide_components_take_few_rounds(tmp_path, monkeypatch, shape):
    monkeypatch.setattr(module, "ROUNDS", 9)
    n = 600
    edges = {
        "chain": [(i, i + 1) for i in range(n)],
        "shuffled chain": [
            (a, b) for a, b in zip(*(lambda p: (p[:-1], p[1:]))(np.random.default_rng(0).permutation(n)))
        ],
        "star": [(n, i) for i in range(n)],
        "tree": [(i, (i - 1) // 2) for i in range(1, n)],
    }[shape]
    edges = [(int(a), int(b)) for a, b in edges]
    limits = (0, 8000, 500)
    assert sorted(stars(tmp_path, edges, cuts=4, limits=limits)) == expected(edges)


def test_rounds_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROUNDS", 1)
    with pytest.raises(RunError, match="after 1 rounds"):
        stars(tmp_path, [(i, i + 1) for i in range(100)], cuts=3, limits=(0, 500, 100))
