"""Quarantine: every row is in good or in bad, bad ones with all that they failed."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.errors import UsageError
from gristmill.validators.api import validate
from gristmill.validators.inputs import of_tables, open_data
from gristmill.validators.quarantine import write_quarantine

SUITE = [
    {
        "id": "small",
        "type": "expect_column_values_to_be_between",
        "kwargs": {"column": "x", "max_value": 3, "mostly": 0.5},
    },
    {"id": "there", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "x"}},
    {
        "id": "short",
        "type": "expect_column_value_lengths_to_be_between",
        "kwargs": {"column": "t", "max_value": 2},
        "severity": "warning",
    },
    {"id": "once", "type": "expect_column_values_to_be_unique", "kwargs": {"column": "k"}},
    {"id": "rows", "type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 10_000}},
]
ROWS = st.lists(
    st.tuples(st.none() | st.integers(0, 6), st.text("ab", max_size=4), st.integers(0, 30)), min_size=1, max_size=60
)


def failed(row, rows):
    """The ids of the expectations that a row fails, in plain Python."""
    x, text, key = row
    found = {"there"} if x is None else {"small"} if x > 3 else set()
    found |= {"short"} if len(text) > 2 else set()
    return found | ({"once"} if sum(other[2] == key for other in rows) > 1 else set())


@given(ROWS, st.integers(1, 7))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_is_in_one_of_both_with_all_that_it_failed(tmp_path_factory, rows, shards):
    target = tmp_path_factory.mktemp("q") / "out"
    table = pa.table(
        {
            "x": pa.array([row[0] for row in rows], pa.int64()),
            "t": [row[1] for row in rows],
            "k": [row[2] for row in rows],
        }
    )
    step = -(-len(rows) // shards)
    data = of_tables([table.slice(i, step) for i in range(0, len(rows), step)], "t")
    counts = write_quarantine(validate(data, SUITE), data, target)
    expected = [failed(row, rows) for row in rows]
    good = pa.concat_tables(pq.read_table(path) for path in sorted((target / "good").glob("*.parquet")))
    assert good.to_pylist() == [row for row, bad in zip(table.to_pylist(), expected, strict=True) if not bad]
    bad = pq.read_table(target / "bad" / "part-00000.parquet").to_pylist() if counts["bad"] else []
    assert [row["_row"] for row in bad] == [i for i, found in enumerate(expected) if found]
    for row in bad:
        assert (
            set(row["_expectations"]) == expected[row["_row"]]
            and {name: row[name] for name in table.column_names} == table.to_pylist()[row["_row"]]
        )
        assert int(row["_shard"].partition("[")[2].strip("]") or 0) * step + row["_shard_row"] == row["_row"]
    assert counts == {"good": good.num_rows, "bad": len(bad)}
    facts = json.loads((target / "quarantine.json").read_text())
    assert facts["bad"] == len(bad) and facts["expectations"]["small"]["kwargs"]["max_value"] == 3


def test_many_bad_rows_have_no_cap(tmp_path):
    table = pa.table({"x": list(range(5000)), "t": ["a"] * 5000, "k": list(range(5000))})
    pq.write_table(table, tmp_path / "data.parquet", row_group_size=700)
    data = open_data(str(tmp_path / "data.parquet"))
    assert write_quarantine(validate(data, SUITE), data, tmp_path / "out") == {"good": 4, "bad": 4996}
    assert pq.read_table(tmp_path / "out" / "bad")["_row"].to_pylist() == list(range(4, 5000))


def test_the_command_writes_both(tmp_path, monkeypatch, capsys):
    import sys

    from gristmill.cli.main import main

    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"x": [1, 9, None], "t": ["a", "b", "c"], "k": [1, 2, 3]}), "data.parquet")
    (tmp_path / "s.json").write_text(json.dumps({"name": "s", "expectations": SUITE[:4]}))
    monkeypatch.setattr(
        sys, "argv", ["gristmill", "validate", "data.parquet", "--suite", "s.json", "--quarantine", "q"]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1 and "bad rows: q" in capsys.readouterr().out
    assert json.loads((tmp_path / "q" / "quarantine.json").read_text())["bad"] == 2


def test_what_can_t_be_written_is_told(tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    table = pa.table({"x": [1], "t": ["a"], "k": [1]})
    data = open_data(table)
    with pytest.raises(UsageError, match="holds something already"):
        write_quarantine(validate(data, SUITE), data, tmp_path / "used")
    mixed = open_data(pd.DataFrame({"x": [1, 2], "t": pd.Series([1, "a"], dtype=object), "k": [1, 2]}))
    with pytest.raises(UsageError, match="'t' holds values of several types"):
        write_quarantine(validate(mixed, SUITE[:2]), mixed, tmp_path / "out")
