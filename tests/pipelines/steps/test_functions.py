"""`python` and `pandas`: the user's own function is held to the same accounting as every step."""

from __future__ import annotations

import pickle
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from gristmill.errors import GristmillError, PipelineError, RunError
from gristmill.pipelines.frames import check_step
from gristmill.pipelines.steps.functions import accounted, load

TABLE = pa.table({"_uid": ["a", "b", "c"], "text": ["x", "y", None], "n": pa.array([1, None, 3], pa.int32())})
HERE = "tests.pipelines.steps.test_functions"


def only_first(table: pa.Table) -> pa.Table:
    return table.slice(0, 1)


def louder(table: pa.Table, by: str = "!") -> pa.Table:
    return table.set_column(1, "text", pc.binary_join_element_wise(table["text"], by, ""))


def with_length(table: pa.Table) -> pa.Table:
    return table.append_column("length", pc.utf8_length(table["text"]))


def backward(table: pa.Table) -> pa.Table:
    return table.take(list(range(table.num_rows - 1, -1, -1)))


def no_uid(table: pa.Table) -> pa.Table:
    return table.drop_columns(["_uid"])


def one_uid(table: pa.Table) -> pa.Table:
    return table.set_column(0, "_uid", pa.repeat("a", table.num_rows))


def orphans(table: pa.Table) -> pa.Table:
    return table.set_column(0, "_uid", pa.array([f"new-{i}" for i in range(table.num_rows)]))


def nothing(table: pa.Table) -> None:
    return None


def fails(table: pa.Table) -> pa.Table:
    raise ZeroDivisionError("of my own making")


def doubled(frame: pd.DataFrame, times: int = 2) -> pd.DataFrame:
    return frame.assign(n=frame["n"] * times)


def odd_only(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["n"] == 1]


def applied(kind: str, name: str, **options: Any) -> tuple[pa.Table, list[tuple[str, str, str]]]:
    after, found = check_step({"step": kind, "function": f"{HERE}:{name}", "options": options}).apply(TABLE)
    return after, [(entry["uid"], entry["action"], entry["rule"]) for entry in found.to_pylist()]


@pytest.mark.parametrize(
    ("kind", "name", "decisions"),
    [
        ("python", "only_first", [("b", "drop"), ("c", "drop")]),
        ("python", "louder", [("a", "edit"), ("b", "edit")]),
        ("python", "with_length", []),
        ("python", "backward", []),
        ("pandas", "doubled", [("a", "edit"), ("c", "edit")]),
        ("pandas", "odd_only", [("b", "drop"), ("c", "drop")]),
    ],
)
def test_every_difference_has_a_decision(kind, name, decisions):
    after, found = applied(kind, name)
    assert found == [(uid, action, f"{HERE}:{name}") for uid, action in decisions]
    assert after.num_rows == 3 - sum(action == "drop" for _, action in decisions)


def test_options_are_passed():
    assert applied("python", "louder", by="?")[0]["text"].to_pylist() == ["x?", "y?", None]
    assert applied("pandas", "doubled", times=10)[0]["n"].to_pylist() == [10, None, 30]


def same(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


def halved(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(n=frame["n"] / 2, flag=frame["flag"].astype(str))


def test_pandas_loses_nothing_of_what_it_is_given():
    """Integers beyond 2^53 beside nulls, NaN beside null, and types whose pandas form is another one."""
    columns = {
        "_uid": pa.array(["a", "b", "c"]),
        "n": pa.array([2**53 + 1, None, 3], pa.int64()),
        "u": pa.array([2**64 - 1, None, 0], pa.uint64()),
        "x": [float("nan"), None, 1.5],
        "single": pa.array([None, float("nan"), 1.5], pa.float32()),
        "flag": [True, None, False],
        "price": pa.array(["1.10", None, "2.00"]).cast(pa.decimal128(10, 2)),
        "day": pa.array([1, None, 2], pa.date32()),
        "tags": [["p"], None, []],
        "nothing": pa.nulls(3),
    }
    table = pa.table(columns)
    after, found = check_step({"step": "pandas", "function": f"{HERE}:same"}).apply(table)
    assert after.schema == table.schema and found.num_rows == 0
    assert repr(after.to_pylist()) == repr(table.to_pylist())


def test_pandas_may_change_a_columns_type():
    table = pa.table({"_uid": ["a", "b"], "n": [1, 2], "flag": [True, None]})
    after, _ = check_step({"step": "pandas", "function": f"{HERE}:halved"}).apply(table)
    assert after["n"].to_pylist() == [0.5, 1.0] and pa.types.is_large_string(after["flag"].type)


def test_pandas_keeps_arrows_types_where_there_are_nulls():
    after, _ = applied("pandas", "doubled")
    assert after.schema == TABLE.schema and after["n"].to_pylist() == [2, None, 6]


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("python", "no_uid", "the result has no column '_uid'"),
        ("python", "one_uid", "repeated or null '_uid'"),
        ("python", "orphans", "'_parent_uid'"),
        ("python", "nothing", "returned NoneType, expected a pyarrow.Table"),
        ("pandas", "nothing", "returned NoneType, expected a pandas DataFrame"),
    ],
)
def test_rows_that_cannot_be_accounted_for_fail_the_run(kind, name, text):
    with pytest.raises(RunError, match=text):
        applied(kind, name)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (f"{HERE}:only_frist", "has no function 'only_frist'. Did you mean 'only_first'"),
        (f"{HERE}:TABLE", "has no function 'TABLE'"),
        ("no.such.module:f", "can't import module 'no.such.module'"),
        (HERE, "write 'module:function'"),
    ],
)
def test_functions_that_are_not_there(function, text):
    with pytest.raises(PipelineError, match=text):
        check_step({"step": "python", "function": function})


def test_made_rows_name_their_parents():
    made = pa.concat_tables(
        [
            TABLE.append_column("_parent_uid", pa.nulls(3, pa.string())),
            pa.table({"_uid": ["a2"], "text": ["x"], "n": pa.array([1], pa.int32()), "_parent_uid": ["a"]}),
        ]
    )
    after, found = accounted(TABLE, made, "rule")
    assert after is made and [(e["uid"], e["action"], e["other_uid"]) for e in found.to_pylist()] == [
        ("a2", "create", "a")
    ]


def test_an_error_of_the_function_names_the_item_and_the_error(run, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(GristmillError, match=r"steps of .*in\.jsonl.*ZeroDivisionError: of my own making"):
        run(tmp_path / "in.jsonl", steps=[{"step": "python", "function": f"{HERE}:fails"}])


def test_an_edited_function_runs_again(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "in.jsonl").write_text('{"text": "x"}\n')
    module = tmp_path / "edited_step_of_a_test.py"
    step = [{"step": "python", "function": "edited_step_of_a_test:f"}]
    module.write_text("def f(table):\n    return table\n")
    assert run(tmp_path / "in.jsonl", steps=step).counts["kept"] == 1
    again = run(tmp_path / "in.jsonl", steps=step)
    assert not again.published
    import importlib
    import sys

    module.write_text("def f(table):\n    return table.slice(0, 0)\n")
    from gristmill.pipelines.steps.functions import load

    load.cache_clear()
    importlib.invalidate_caches()
    sys.modules.pop("edited_step_of_a_test")
    assert run(tmp_path / "in.jsonl", steps=step).counts["kept"] == 0


def test_a_module_that_was_edited_is_loaded_anew_and_another_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "edited_meanwhile.py"
    path.write_text("def step(table):\n    return table.slice(0, 1)\n")
    block = {"step": "python", "function": "edited_meanwhile:step"}
    first = check_step(block)
    assert first.apply(TABLE)[0].num_rows == 1
    path.write_text("def step(table):\n    return table.slice(0, 2)  # two\n")
    assert check_step(block).apply(TABLE)[0].num_rows == 2
    sent = pickle.loads(pickle.dumps(check_step(block)))
    path.write_text("def step(table):\n    return table.slice(0, 0)  # on another machine\n")
    load.cache_clear()
    assert sent.apply(TABLE)[0].num_rows == 2, "what is loaded is what the run was started with"
    check_step(block).apply(TABLE)
    load.cache_clear()
    with pytest.raises(RunError, match="'.*edited_meanwhile.py' on .* is not the module that the run was started with"):
        sent.apply(TABLE)
