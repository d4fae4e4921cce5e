"""`select_columns`, `rename_columns`, `cast`: the shape of the table; what can't be cast is quarantined, row by row."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from gristmill.errors import PipelineError, UsageError
from gristmill.pipelines.frames import check_step

TABLE = pa.table(
    {
        "_uid": ["a", "b", "c"],
        "_source": ["s"] * 3,
        "text": ["x", "y", None],
        "n": ["1", "two", None],
        "x": [1.0, 2.5, None],
    }
)


def applied(step: dict[str, Any], table: pa.Table = TABLE) -> tuple[pa.Table, list[tuple[str, str, str]]]:
    after, found = check_step(step).apply(table)
    return after, [(entry["uid"], entry["action"], entry["rule"]) for entry in found.to_pylist()]


def test_select_keeps_the_order_asked_for_and_the_identity():
    after, found = applied({"step": "select_columns", "columns": ["x", "text"]})
    assert after.column_names == ["x", "text", "_uid", "_source"] and found == []
    assert applied({"step": "select_columns", "columns": ["_source", "x"]})[0].column_names == ["_source", "x", "_uid"]


def test_rename():
    after, found = applied({"step": "rename_columns", "columns": {"text": "x", "x": "text"}})
    assert (
        after.column_names == ["_uid", "_source", "x", "n", "text"]
        and after["x"].to_pylist() == ["x", "y", None]
        and found == []
    )
    with pytest.raises(PipelineError, match="column 'n' would exist twice"):
        applied({"step": "rename_columns", "columns": {"text": "n"}})
    for columns, text in (
        ({"text": "_mine"}, "kept for the row's identity"),
        ({"_uid": "uid"}, "kept for the row's identity"),
        ({"a": "c", "b": "c"}, "same name"),
    ):
        with pytest.raises(UsageError, match=text):
            check_step({"step": "rename_columns", "columns": columns})


@pytest.mark.parametrize(
    ("column", "kind", "values", "gone"),
    [
        ("n", "int64", [1, None], ["b"]),
        ("n", "double", [1.0, None], ["b"]),
        ("x", "int64", [1, None], ["b"]),  # 2.5 is no integer
        ("x", "string", ["1", "2.5", None], []),
        ("x", "float32", [1.0, 2.5, None], []),
        ("text", "large_string", ["x", "y", None], []),
        ("text", "binary", [b"x", b"y", None], []),
        ("text", "timestamp[us]", [None], ["a", "b"]),
        ("n", "decimal(5, 2)", None, ["b"]),
    ],
)
def test_cast(column, kind, values, gone):
    after, found = applied({"step": "cast", "columns": {column: kind}})
    assert found == [(uid, "quarantine", f"cast:{column}") for uid in gone]
    assert (
        after["_uid"].to_pylist() == [uid for uid in "abc" if uid not in gone]
        and after.column_names == TABLE.column_names
    )
    assert values is None or after[column].to_pylist() == values


def test_several_casts_and_many_misfits():
    n = 1000
    table = pa.table(
        {
            "_uid": [f"{i}" for i in range(n)],
            "a": [str(i) if i % 7 else "bad" for i in range(n)],
            "b": [300 if i % 11 == 0 else i % 100 for i in range(n)],
        }
    )
    after, found = applied({"step": "cast", "columns": {"a": "int32", "b": "uint8"}}, table)
    assert after["a"].to_pylist() == [i for i in range(n) if i % 7 and i % 11]
    assert {rule for _, _, rule in found} == {"cast:a", "cast:b"} and after.num_rows + len(found) == n, (
        "a row that is gone already isn't counted again"
    )
    assert after.schema.field("a").type == pa.int32() and after.schema.field("b").type == pa.uint8()


def test_casts_that_cannot_be_meant():
    with pytest.raises(UsageError, match="no type 'int46'. Did you mean 'int"):
        check_step({"step": "cast", "columns": {"n": "int46"}})
    with pytest.raises(UsageError, match="can't cast '_uid'"):
        check_step({"step": "cast", "columns": {"_uid": "int64"}})
    with pytest.raises(
        PipelineError, match="cast: column 'x' is double, and no double can be cast to list<item: int32>"
    ):
        applied({"step": "cast", "columns": {"x": "list<int32>"}})
    with pytest.raises(PipelineError, match="columns"):
        check_step({"step": "cast", "columns": {}})
