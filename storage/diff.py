"""What changed between two versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import missing_column
from gristmill.kernels.digests import row_digests

if TYPE_CHECKING:
    from gristmill.storage.dataset import Dataset

SHOWN = 10


@dataclass(frozen=True)
class Difference:
    """From one version to another. Rows are matched by `_uid`; `changed` have other cells, `moved` are in another split.

    Columns that only one version has don't make a row changed; they are in `schema`. Examples are at most ten uids each.
    """

    schema: dict[str, list[str]]
    rows: dict[str, int]
    examples: dict[str, list[str]]
    same_content: bool

    def to_json_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"schema": self.schema, "rows": self.rows, "examples": self.examples, "same_content": self.same_content}


def compare(old: Dataset, new: Dataset) -> Difference:
    """The difference. Only uids, splits and row digests are held in memory: about 100 bytes a row; shards that both share are not read.

    Raises:
        ColumnError: a version without `_uid`.
    """
    was, now = _columns(old), _columns(new)
    for dataset, columns in ((old, was), (new, now)):
        if "_uid" not in columns:
            raise missing_column("_uid", columns, dataset.name)
    schema = {
        "added": sorted(set(now) - set(was)),
        "removed": sorted(set(was) - set(now)),
        "retyped": sorted(
            f"{name}: {was[name]} -> {now[name]}" for name in set(was) & set(now) if was[name] != now[name]
        ),
    }
    shared_files = {entry.path for entry in old.file_list} & {entry.path for entry in new.file_list}
    common = sorted(set(was) & set(now))
    a, b = _index(old, common, shared_files), _index(new, common, shared_files)
    place = pc.index_in(b["uid"], value_set=a["uid"].combine_chunks())
    both = b.filter(pc.is_valid(place))
    before = a.take(place.drop_null())
    changed = (before["high"].to_numpy() != both["high"].to_numpy()) | (
        before["low"].to_numpy() != both["low"].to_numpy()
    )
    moved = pc.not_equal(pc.fill_null(before["split"], ""), pc.fill_null(both["split"], "")).to_numpy()
    sets = {
        "added": b.filter(pc.is_null(place))["uid"],
        "removed": a.filter(pc.invert(pc.is_in(a["uid"], value_set=b["uid"].combine_chunks())))["uid"],
        "changed": both["uid"].filter(pa.array(changed)),
        "moved": both["uid"].filter(pa.array(np.asarray(moved, bool))),
    }
    rows = {"before": old.num_rows, "after": new.num_rows, **{name: len(uids) for name, uids in sets.items()}}
    examples = {name: sorted(uids.slice(0, 1000).to_pylist())[:SHOWN] for name, uids in sets.items()}
    return Difference(schema, rows, examples, old.fingerprint == new.fingerprint)


def _columns(dataset: Dataset) -> dict[str, str]:
    return {field.name: str(field.type) for field in dataset.schema}


def _index(dataset: Dataset, columns: list[str], skip: set[str]) -> pa.Table:
    """uid, split, high, low of every row outside the skipped files."""
    found = [
        pa.schema(
            [("uid", pa.large_string()), ("split", pa.string()), ("high", pa.uint64()), ("low", pa.uint64())]
        ).empty_table()
    ]
    for entry in dataset.file_list:
        if entry.path in skip:
            continue
        with dataset.open_file(entry) as file:
            for batch in file.iter_batches(columns=columns):
                table = pa.Table.from_batches([batch])
                digests = row_digests(table)
                split = pa.repeat(pa.scalar(entry.split, pa.string()), table.num_rows)
                uid = table["_uid"].cast(pa.large_string())
                found.append(pa.table({"uid": uid, "split": split, "high": digests[:, 0], "low": digests[:, 1]}))
    return pa.concat_tables(found)
