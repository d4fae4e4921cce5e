"""Good and bad rows, apart: bad ones with their place and every expectation that they failed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from gristmill.errors import InputError, UsageError
from gristmill.storage.folder import Folder, open_folder
from gristmill.storage.parquet import ParquetSettings
from gristmill.validators.inputs import Data
from gristmill.validators.verdict import BAD_ROWS, Verdict


def write_quarantine(verdict: Verdict, data: Data, path: str | os.PathLike[str]) -> dict[str, int]:
    """{"good": rows, "bad": rows}, written to a new or empty folder: good/ and bad/ as Parquet, and quarantine.json with the counts, last.

    Bad is every row that some expectation about single rows does not expect, whatever its `mostly` and severity. Bad rows have four more
    columns: `_row` (its number in the data), `_shard`, `_shard_row`, `_expectations` (the ids of all that it failed). good/ has a file for each
    shard, with its rows in order. The data is read once for good rows, and again where bad ones are.

    Raises:
        UsageError: the folder holds something; a column of mixed Python values, which Parquet can't hold.
    """
    folder = open_folder(path)
    if folder.exists("") and folder.list(""):
        raise UsageError(f"--quarantine {path}: the folder holds something already; choose a new or empty one")
    mixed = [name for name in data.columns if name not in data.schema.names]
    if mixed:
        raise UsageError(
            f"{data.name}: column '{mixed[0]}' holds values of several types, which Parquet can't; cast it first",
            column=mixed[0],
        )
    counts = {
        "good": _write_good(verdict, data, folder),
        "bad": write_bad_rows(verdict, data, folder, "bad/part-00000.parquet"),
    }
    if sum(counts.values()) != verdict.num_rows:
        raise InputError(f"{data.name} has changed while it was read: {counts} of {verdict.num_rows} rows")
    expectations = {result["expectation_config"]["id"]: result["expectation_config"] for result in verdict.results}
    facts = {
        **counts,
        "data": data.name,
        "suite": verdict.suite_name,
        "suite_hash": verdict.suite_hash,
        "expectations": expectations,
    }
    folder.write_atomic("quarantine.json", json.dumps(facts, indent=1, default=str).encode())
    return counts


def write_bad_rows(verdict: Verdict, data: Data, folder: Folder, path: str) -> int:
    """How many bad rows there are, written to one Parquet file; none is made for none."""
    schema = pa.schema([*data.schema, *[each.with_name(f"_{each.name}") for each in BAD_ROWS]])
    tables = _bad_tables(verdict, data, schema)
    first = next(tables, None)
    if first is None:
        return 0
    count = first.num_rows
    with folder.writer(path) as target, ParquetSettings().writer(target.sink, schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)
            count += table.num_rows
    return count


def _bad_tables(verdict: Verdict, data: Data, schema: pa.Schema) -> Iterator[pa.Table]:
    for places in verdict.bad_rows():
        rows = data.take(places["row"].to_numpy(), data.columns).table
        yield pa.table([*rows.columns, *places.columns], schema=schema)


def _write_good(verdict: Verdict, data: Data, folder: Folder) -> int:
    bad = verdict.bad_row_numbers()
    count = 0
    for number in range(len(data.shards)):
        with (
            folder.writer(f"good/part-{number:05d}.parquet") as target,
            ParquetSettings().writer(target.sink, data.schema) as writer,
        ):
            for batch in data.batches(data.columns, [number]):
                keep = np.ones(batch.table.num_rows, bool)
                keep[bad.within(batch.first, batch.first + len(keep)) - batch.first] = False
                good = batch.table.filter(pa.array(keep))
                writer.write_table(good)
                count += good.num_rows
    return count
