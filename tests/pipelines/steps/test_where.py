"""`where` expressions: what they mean is what Python means with SQL's nulls; what they can't mean is refused with the part that is wrong."""

from __future__ import annotations

import operator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import ColumnError, PipelineError
from gristmill.pipelines.steps.filter import Filter
from gristmill.pipelines.steps.where import columns, conjuncts, evaluate, measured, parse

TABLE = pa.table(
    {
        "_uid": [f"u{i}" for i in range(6)],
        "text": ["short", "a longer text", "", None, "ÉTÉ", "été"],
        "n": pa.array([1, 2, None, -4, 5, 0], pa.int64()),
        "x": [0.5, None, float("nan"), -1.5, 2.0, 0.0],
        "flag": [True, False, None, True, False, None],
        "nothing": pa.nulls(6),
    }
)


def kept(where: str, table: pa.Table = TABLE) -> list[str]:
    return Filter(where=where).apply(table)[0]["_uid"].to_pylist()


@pytest.mark.parametrize(
    ("where", "uids"),
    [
        ("n > 1", ["u1", "u4"]),
        ("not n > 1", ["u0", "u3", "u5"]),  # unknown stays unknown
        ("n > 1 or n is None", ["u1", "u2", "u4"]),
        ("n is not None and x is None", ["u1"]),
        ("0 < n <= 2", ["u0", "u1"]),
        ("n in [1, 5]", ["u0", "u4"]),
        ("n not in (1, 5)", ["u1", "u3", "u5"]),
        ("n in []", []),
        ("n not in []", ["u0", "u1", "u2", "u3", "u4", "u5"]),  # nothing is in it, whatever an unknown value is
        ("text == 'short'", ["u0"]),
        ("length(text) == 3", ["u4", "u5"]),
        ("lower(text) == 'été'", ["u4", "u5"]),
        ("upper(text) == 'ÉTÉ'", ["u4", "u5"]),
        ("text == ''", ["u2"]),
        ("abs(n) >= 4", ["u3", "u4"]),
        ("n * 2 - 1 == 3", ["u1"]),
        ("-n == 4", ["u3"]),
        ("n / 2 == 2.5", ["u4"]),  # as in Python, not cut to an integer
        ("1 / n > 9", ["u5"]),  # infinity
        ("nothing / 2 == 1", []),
        ("n + x > 1", ["u0", "u4"]),
        ("x == x", ["u0", "u3", "u4", "u5"]),  # NaN is not null, and equals nothing
        ("x is None", ["u1"]),
        ("flag", ["u0", "u3"]),
        ("not flag", ["u1", "u4"]),
        ("flag == True", ["u0", "u3"]),
        ("flag or n > 1", ["u0", "u1", "u3", "u4"]),
        ("True", ["u0", "u1", "u2", "u3", "u4", "u5"]),
        ("False or False", []),
        ("_uid == 'u2'", ["u2"]),
        ("nothing is None", ["u0", "u1", "u2", "u3", "u4", "u5"]),
        ("nothing == 'a'", []),
        ("not nothing == 'a'", []),
        ("length(nothing) > 3 or n == 1", ["u0"]),
        ("nothing or n == 1", ["u0"]),
        ("nothing == nothing", []),
        ("abs(nothing) < 1", []),
        ("nothing in ['a', 'b'] or not nothing", []),
        ("n is not None and (flag or x < 0) and text != 'short'", []),
    ],
)
def test_rows_that_stay(where, uids):
    assert kept(where) == uids


def test_every_term_that_is_not_true_is_a_rule():
    _, found = Filter(where="length(text) > 4 and n >= 0 and flag").apply(TABLE)
    rules: dict[str, list[str]] = {}
    for entry in found.to_pylist():
        assert entry["action"] == "drop"
        rules.setdefault(entry["uid"], []).append(entry["rule"])
    assert rules == {
        "u1": ["flag"],
        "u2": ["length(text) > 4", "n >= 0", "flag"],
        "u3": ["length(text) > 4", "n >= 0"],
        "u4": ["length(text) > 4", "flag"],
        "u5": ["length(text) > 4", "flag"],
    }
    values = {(entry["uid"], entry["rule"]): (entry["value"], entry["threshold"]) for entry in found.to_pylist()}
    assert (
        values["u2", "length(text) > 4"] == (0, 4)
        and values["u3", "n >= 0"] == (-4, 0)
        and values["u2", "n >= 0"] == (None, 0)
    )
    assert values["u1", "flag"] == (None, None)


def test_values_are_measured_of_plain_comparisons_with_numbers_only():
    assert measured(parse("n > -2.5"), TABLE)[1] == -2.5
    for where in ("n > x", "text == 'a'", "0 < n < 3", "n in [1]", "n > 1 or n < 0", "text > 'a'", "n == True"):
        assert measured(parse(where), TABLE) == (None, None), where


def test_columns_and_terms():
    assert columns("length(text) > 2 and (lang == 'en' or score in [1, other])") == ["lang", "other", "score", "text"]
    assert columns("length == 3") == ["length"], "a column may have a function's name"
    assert [rule for rule, _ in conjuncts("a > 1 and (b or c) and not d")] == ["a > 1", "b or c", "not d"]


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("n >", "is not an expression"),
        ("n > 1; n", "is not an expression"),
        ("lenght(text) > 2", r"no function 'lenght'.*Did you mean 'length'\?"),
        ("text.upper() == 'A'", r"'text.upper\(\)' is not allowed"),
        ("__import__('os').system('true')", "is not allowed"),
        ("[x for x in y]", "is not allowed"),
        ("n ** 2 > 4", r"'n \*\* 2' is not allowed"),
        ("n if flag else x", "is not allowed"),
        ("text[0] == 'a'", r"'text\[0\]' is not allowed"),
        ("n == None", "nulls are found with `is None`"),
        ("n is 3", "nulls are found with `is None`"),
        ("n in text", r"`in` takes a list"),
        ("length(text, 2) > 1", "is not allowed"),
        ("b'a' == text", "is not allowed"),
        ("lambda: n", "is not allowed"),
    ],
)
def test_what_is_refused(where, text):
    with pytest.raises(PipelineError, match=text):
        parse(where)


@pytest.mark.parametrize("row", [0, 3, 6])
def test_a_result_that_does_not_fit_names_its_row(row):
    n = [2**62 if i == row else i for i in range(7)]
    table = pa.table({"_uid": [f"u{i}" for i in range(7)], "n": pa.chunked_array([n[:3], n[3:]]), "other": n})
    with pytest.raises(PipelineError) as caught:
        evaluate(parse("n * 4 > 10"), table)
    assert f"in the row with _uid = u{row}, n = {2**62}: overflow" in str(caught.value)


def test_missing_columns_and_types_that_do_not_compare():
    with pytest.raises(ColumnError, match="where: no column 'txt'. Did you mean 'text'"):
        evaluate(parse("txt == 'a'"), TABLE)
    with pytest.raises(PipelineError, match="'text > 3' can't be evaluated"):
        evaluate(parse("text > 3"), TABLE)
    with pytest.raises(PipelineError, match=r"'length\(n\) > 3' can't be evaluated"):
        evaluate(parse("length(n) > 3"), TABLE)


OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
atoms = st.builds(
    lambda column, sign, number: f"{column} {sign} {number}",
    st.sampled_from("ab"),
    st.sampled_from(list(OPERATORS)),
    st.integers(-2, 2),
)
nulls = st.builds(
    lambda column, word: f"{column} is {word}", st.sampled_from("ab"), st.sampled_from(["None", "not None"])
)
expressions = st.recursive(
    atoms | nulls,
    lambda inner: (
        st.builds(lambda a, b, word: f"({a} {word} {b})", inner, inner, st.sampled_from(["and", "or"]))
        | st.builds(lambda a: f"(not {a})", inner)
    ),
    max_leaves=8,
)


def reference(where: str, row: dict[str, int | None]) -> Any:
    """SQL's three values, in plain Python, over the syntax tree."""
    import ast

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.BoolOp):
            stop = isinstance(node.op, ast.Or)
            found = [value(part) for part in node.values]
            return stop if stop in found else (None if None in found else not stop)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = value(node.operand)
            return None if inner is None else not inner
        assert isinstance(node, ast.Compare)
        left, sign, right = row[node.left.id], node.ops[0], node.comparators[0]
        if isinstance(sign, (ast.Is, ast.IsNot)):
            return (left is None) == isinstance(sign, ast.Is)
        names = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
        return None if left is None else OPERATORS[names[type(sign)]](left, ast.literal_eval(right))

    return value(ast.parse(where, mode="eval").body)


@given(where=expressions, rows=st.lists(st.tuples(*[st.none() | st.integers(-2, 2)] * 2), max_size=6))
def test_agrees_with_three_valued_logic(where, rows):
    table = pa.table(
        {
            "_uid": [str(i) for i in range(len(rows))],
            "a": pa.array([a for a, _ in rows], pa.int64()),
            "b": pa.array([b for _, b in rows], pa.int64()),
        }
    )
    assert kept(where, table) == [str(i) for i, (a, b) in enumerate(rows) if reference(where, {"a": a, "b": b}) is True]
