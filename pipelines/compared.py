"""What the run before found out by comparing rows, for the run after it: of rows that are as they were then, it isn't worked out again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.pipelines import parts
from gristmill.pipelines.exchange import Part
from gristmill.pipelines.extracts import ROW_BITS, ExtractOf, catalog, digests_of
from gristmill.pipelines.work import WorkStore, key_of

Task = TypeVar("Task")
I64 = npt.NDArray[np.int64]
COMPARED = "compared.json"  # beside the work: `Compared.now` of the last run


@dataclass
class Compared:
    """The keys of work that compared rows, partition by partition, by all that it depended on but the rows: of the run before, and of this one."""

    before: Mapping[str, Sequence[str]] = field(default_factory=dict)
    now: dict[str, Sequence[str]] = field(default_factory=dict)

    def tasks(
        self,
        name: str,
        sources: Sequence[ExtractOf],
        listed: str,
        pieces: Sequence[Part],
        columns: Sequence[str],
        make: Callable[[str, Part, tuple[str, ...]], Task],
    ) -> list[Task]:
        """One for each piece, by partition, that has rows: `make` of its key, the piece and the earlier work. Noted for the run after this one.

        name: what the work depends on but the rows; listed: the key of the sources' catalog; columns: those of a piece that hold rows of the sources.
        """
        tasks, keys = [], [""] * len(pieces)
        for number, piece in enumerate(pieces):
            if piece.rows:
                held = piece.held
                facts = [listed] if held is None else digests_of(sources, *[held[column] for column in columns])
                keys[number] = key_of("compared", name, piece.digest, facts)
                tasks.append(make(keys[number], piece, self.earlier(name, number, len(pieces))))
        self.now[name] = keys
        return tasks

    def earlier(self, name: str, number: int, partitions: int) -> tuple[str, ...]:
        """The earlier work on rows of the partition with this number. Then as now the number of partitions is a power of two."""
        keys = self.before.get(name, ())
        if len(keys) < partitions:
            return (keys[number % len(keys)],) if keys else ()
        return tuple(keys[number::partitions])


def asked_before(store: WorkStore, earlier: Sequence[str], extracts: str) -> pa.Table | None:
    """What the earlier work wrote to asked.arrow, whose first two columns are rows; None if nothing is there.

    `same` says whether both rows are of items that are as they were. extracts: the key of the catalog of now.
    """
    found = []
    for key in earlier:
        done = store.done(key)
        if done is not None and store.done(done["extracts"]) is not None:
            table = parts.read(store.folder(key) / "asked.arrow")
            items = _same_items(store, done["extracts"], extracts)
            one, other = (np.isin(column.to_numpy() >> ROW_BITS, items) for column in table.columns[:2])
            found.append(table.append_column("same", pa.array(one & other)))
    return pa.concat_tables(found) if found else None


@functools.lru_cache(maxsize=8)
def _same_items(store: WorkStore, then: str, now: str) -> I64:
    """The items whose extract was written by the same stage in both catalogs."""
    old, new = catalog(store, then), catalog(store, now)
    return np.array([i for i in new if i in old and (old[i].key, old[i].name) == (new[i].key, new[i].name)], np.int64)
