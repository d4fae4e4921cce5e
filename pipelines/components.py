"""Connected components of a graph whose edges lie in files: in the driver while they are few, else by rounds of `exchange`; both give the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.errors import RunError
from gristmill.kernels.resolve import components as union
from gristmill.pipelines import exchange as exchanges
from gristmill.pipelines.engines.base import Engine
from gristmill.pipelines.exchange import Chunks, Exchanged, Part, coalesced, exchange, spread
from gristmill.pipelines.grouped import distinct_pairs, least
from gristmill.pipelines.work import WorkStore

I64 = npt.NDArray[np.int64]

EDGES = pa.schema([("left", pa.int64()), ("right", pa.int64())])
"""Two rows that belong together, by their ids."""

EDGE_BYTES = 16
ROUNDS = 100  # log2 of the rows, squared, is the proven bound; a chain of 10^6 rows takes 8


def components(engine: Engine, store: WorkStore, edges: Sequence[Part], name: str) -> tuple[list[Part], list[str]]:
    """(stars: EDGES from the smallest id of each component to each other id of it, once; the keys of the work files used).

    Edges of up to DRIVER_BYTES are joined here. More are joined by rounds of large-star and small-star (Kiveris and others, Connected Components
    in MapReduce and Beyond, 2014): each row's neighbours are tied to the smallest one of them, until all components are stars. A round is two
    exchanges; a reduction holds two integers for each row of its partition, whatever the number of its edges.
    """
    used: list[str] = []
    for number in range(ROUNDS):
        if sum(part.rows for part in edges) * EDGE_BYTES <= exchanges.DRIVER_BYTES:
            return _joined_here(store, edges), used
        large = _star(engine, store, edges, _both_ways, large_star, f"{name} large star {number}")
        used += large.used
        small = _star(engine, store, large.parts, _downwards, small_star, f"{name} small star {number}")
        used += small.used
        if not large.notes.get("unsettled"):
            return small.parts, used
        edges = small.parts
    raise RunError(f"{name}: components are not found after {ROUNDS} rounds; this is a fault of gristmill's own")


def _star(
    engine: Engine,
    store: WorkStore,
    edges: Sequence[Part],
    view: exchanges.View,
    reduce: exchanges.Reduce,
    name: str,
) -> Exchanged:
    size = sum(part.rows for part in edges) * 2 * 24
    return exchange(engine, store, edges, view, reduce, size=max(size, exchanges.DRIVER_BYTES + 1), name=name)


def _joined_here(store: WorkStore, edges: Sequence[Part]) -> list[Part]:
    tables = [table.select(EDGES.names) for part in edges for table in part.tables(store)]
    ids, labels = join(pa.concat_tables([EDGES.empty_table(), *tables]))
    below = ids != labels
    if not below.any():
        return []
    return [Part(int(below.sum()), held=pa.table([labels[below], ids[below]], schema=EDGES))]


def join(edges: pa.Table) -> tuple[I64, I64]:
    """(the ids that have an edge, sorted; for each the smallest id of its component)."""
    left, right = edges["left"].to_numpy(), edges["right"].to_numpy()
    ids = np.unique(np.concatenate([left, right]))
    labels = union(np.searchsorted(ids, left), np.searchsorted(ids, right), len(ids))
    return ids, ids[labels]


def labelled(stars: pa.Table) -> tuple[I64, I64]:
    """(label, id) of every row of the components, the smallest one too (more than once)."""
    labels, ids = stars["left"].to_numpy(), stars["right"].to_numpy()
    smallest = np.unique(labels)
    return np.concatenate([labels, smallest]), np.concatenate([ids, smallest])


def _both_ways(store: WorkStore, part: Part) -> Iterator[pa.Table]:
    """node, other: each edge from both of its ends. What a table's own edges join is tied to its smallest row before: far fewer rounds."""
    for table in coalesced(part.tables(store)):
        ids, labels = join(table)
        below = ids != labels
        down, up = ids[below], labels[below]
        yield _ends(np.concatenate([down, up]), np.concatenate([up, down]))


def _downwards(store: WorkStore, part: Part) -> Iterator[pa.Table]:
    """node, other: each edge from its larger end."""
    for table in part.tables(store):
        left, right = table["left"].to_numpy(), table["right"].to_numpy()
        yield _ends(np.maximum(left, right), np.minimum(left, right))


def _ends(node: I64, other: I64) -> pa.Table:
    return pa.table({"key": spread(node), "node": node, "other": other})


def large_star(chunks: Chunks) -> Iterator[pa.Table]:
    """Ties the larger neighbours of each node to the smallest of its neighbours and itself.

    Notes `unsettled`: the nodes that show that components are not stars yet: those with neighbours on both sides or two smaller ones.
    """
    nodes, smallest, unsettled = _neighbours(chunks)
    chunks.note(unsettled=unsettled)
    for table in chunks:
        node, other = table["node"].to_numpy(), table["other"].to_numpy()
        centre = np.minimum(smallest[np.searchsorted(nodes, node)], node)
        larger = other > node
        yield _edges(centre[larger], other[larger])


def small_star(chunks: Chunks) -> Iterator[pa.Table]:
    """Ties each node and its smaller neighbours to the smallest of these."""
    nodes, smallest, _ = _neighbours(chunks)
    yield pa.table([smallest, nodes], schema=EDGES)
    for table in chunks:
        node, other = table["node"].to_numpy(), table["other"].to_numpy()
        centre = smallest[np.searchsorted(nodes, node)]
        beside = other != centre
        yield _edges(centre[beside], other[beside])


def _neighbours(chunks: Chunks) -> tuple[I64, I64, int]:
    """(the nodes, sorted; the smallest neighbour of each; how many are unsettled)."""
    nodes = smallest = largest = second = np.zeros(0, np.int64)
    for table in chunks:
        node, other = table["node"].to_numpy(), table["other"].to_numpy()
        every = np.concatenate([nodes, node])
        down = np.where(other < node, other, -1)  # the largest of these tells whether there is a second
        nodes, smallest, largest, second = (
            np.unique(every),
            least(every, np.concatenate([smallest, other]))[1],
            -least(every, -np.concatenate([largest, other]))[1],
            -least(every, -np.concatenate([second, down]))[1],
        )
    both = (smallest < nodes) & ((largest > nodes) | (second > smallest))
    return nodes, smallest, int(both.sum())


def _edges(left: I64, right: I64) -> pa.Table:
    """Each different edge once."""
    return pa.table(list(distinct_pairs(left, right)), schema=EDGES)
