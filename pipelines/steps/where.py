"""`where` expressions: text such as "length(text) > 200 and language == 'en'" to a boolean Arrow array, with SQL's nulls."""

from __future__ import annotations

import ast
import functools
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import PipelineError, did_you_mean, missing_column

_COMPARE = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
_ARITHMETIC = {ast.Add: pc.add_checked, ast.Sub: pc.subtract_checked, ast.Mult: pc.multiply_checked, ast.Div: pc.divide}
_ARROW_ERRORS = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError)
_FUNCTIONS = {"length": pc.utf8_length, "lower": pc.utf8_lower, "upper": pc.utf8_upper, "abs": pc.abs_checked}


@functools.lru_cache(maxsize=256)
def parse(text: str) -> ast.expr:
    """The checked syntax tree of a `where` text.

    Allowed: column names, numbers, strings, True, False, None, comparisons (chained too), `in` and `not in` a list, `is None`, `and`, `or`,
    `not`, + - * (a result beyond 64 bits is an error) and / (of floats), and the functions length, lower, upper, abs of one argument.

    Raises:
        PipelineError: anything else, with the part that isn't allowed.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        at = f" at character {error.offset}" if error.offset else ""
        raise PipelineError(f"where: '{text}' is not an expression: {error.msg}{at}") from None
    _check(tree, text)
    return tree


def columns(text: str) -> list[str]:
    """The column names that the expression reads, sorted."""
    return _names(parse(text))


def conjuncts(text: str) -> list[tuple[str, ast.expr]]:
    """The terms joined by the outermost `and`, each with its own text: each is a rule of its own in the ledger."""
    tree = parse(text)
    terms = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
    return [(ast.unparse(term), term) for term in terms]


def evaluate(node: ast.expr, table: pa.Table) -> Any:
    """The value of a checked tree over the table: an array of as many rows, or a scalar for a constant; null as in SQL.

    Raises:
        ColumnError: a column that the table lacks.
        PipelineError: types that can't be compared, naming the expression, or a result beyond 64 bits, naming the first such row too.
    """
    try:
        return _value(node, table)
    except _ARROW_ERRORS as error:
        text = f"where: '{ast.unparse(node)}' can't be evaluated{_place(node, table)}: {str(error).splitlines()[0]}"
        raise PipelineError(text) from None


def _place(node: ast.expr, table: pa.Table) -> str:
    """Which row can't be evaluated; empty if it is none in particular."""

    def fails(part: pa.Table) -> bool:
        try:
            _value(node, part)
        except _ARROW_ERRORS:
            return True
        return False

    if fails(table.slice(0, 0)):
        return ""
    first, stop = 0, table.num_rows
    while stop - first > 1:
        middle = (first + stop) // 2
        first, stop = (first, middle) if fails(table.slice(first, middle - first)) else (middle, stop)
    numbers = [name for name in _names(node) if pa.types.is_primitive(table[name].type)]
    shown = [name for name in table.column_names if name == "_uid" or name in numbers]
    return f" in the row with {', '.join(f'{name} = {table[name][first]}' for name in shown)}"


def _names(tree: ast.expr) -> list[str]:
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in functions})


def measured(node: ast.expr, table: pa.Table) -> tuple[Any, float | None]:
    """(values, threshold) of a simple comparison between something numeric and a number, for the ledger; else (None, None)."""
    if not (isinstance(node, ast.Compare) and len(node.ops) == 1):
        return None, None
    bound = node.comparators[0]
    sign = 1
    if isinstance(bound, ast.UnaryOp) and isinstance(bound.op, ast.USub):
        sign, bound = -1, bound.operand
    if not (isinstance(bound, ast.Constant) and type(bound.value) in (int, float)):
        return None, None
    left = _value(node.left, table)
    numeric = isinstance(left, (pa.Array, pa.ChunkedArray)) and (
        pa.types.is_integer(left.type) or pa.types.is_floating(left.type)
    )
    return (left, sign * float(bound.value)) if numeric else (None, None)  # type: ignore[arg-type]


def _check(node: ast.expr, text: str) -> None:
    match node:
        case ast.Name():
            return
        case ast.Constant(value=value) if value is None or isinstance(value, (bool, int, float, str)):
            return
        case ast.Compare(left=left, ops=ops, comparators=rights):
            _check(left, text)
            for op, right in zip(ops, rights, strict=True):
                if isinstance(op, (ast.In, ast.NotIn)) and not isinstance(right, (ast.List, ast.Tuple)):
                    raise PipelineError(f"where: in '{text}', `in` takes a list such as ['en', 'de']")
                is_none = isinstance(right, ast.Constant) and right.value is None
                if isinstance(op, (ast.Is, ast.IsNot)) != is_none:
                    raise PipelineError(f"where: in '{text}', nulls are found with `is None` or `is not None`")
                for part in right.elts if isinstance(right, (ast.List, ast.Tuple)) else [right]:
                    _check(part, text)
            return
        case ast.BoolOp(values=terms):
            for term in terms:
                _check(term, text)
            return
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            _check(operand, text)
            return
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _ARITHMETIC:
            _check(left, text)
            _check(right, text)
            return
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
            if name not in _FUNCTIONS:
                raise PipelineError(f"where: no function '{name}' in '{text}'.{did_you_mean(name, _FUNCTIONS)}")
            _check(argument, text)
            return
    raise PipelineError(
        f"where: '{ast.unparse(node)}' is not allowed in '{text}'; compare columns with constants, joined by and, or, not"
    )


def _value(node: ast.expr, table: pa.Table) -> Any:
    match node:
        case ast.Name(id=name):
            if name not in table.column_names:
                raise missing_column(name, table.column_names, "where")
            return table[name]
        case ast.Constant(value=value):
            return pa.scalar(value)
        case ast.Compare(left=left, ops=ops, comparators=rights):
            terms = []
            for op, right in zip(ops, rights, strict=True):
                terms.append(_compare(left, op, right, table))
                left = right
            return functools.reduce(pc.and_kleene, terms)
        case ast.BoolOp(op=operator, values=values):
            join = pc.and_kleene if isinstance(operator, ast.And) else pc.or_kleene
            return functools.reduce(join, [_typed(_value(value, table), pa.bool_()) for value in values])
        case ast.UnaryOp(op=operator, operand=operand):
            value = _value(operand, table)
            return pc.invert(_typed(value, pa.bool_())) if isinstance(operator, ast.Not) else pc.negate_checked(value)
        case ast.BinOp(left=left, op=operator, right=right):
            operands = [_value(side, table) for side in (left, right)]
            if isinstance(operator, ast.Div):  # 7 / 2 is 3.5, as in Python
                operands = [_as_float(operand) for operand in operands]
            return _ARITHMETIC[type(operator)](*operands)
        case ast.Call(func=ast.Name(id=name), args=[argument]):
            return _FUNCTIONS[name](_typed(_value(argument, table), pa.float64() if name == "abs" else pa.string()))
    raise PipelineError(f"where: '{ast.unparse(node)}' is not allowed")


def _as_float(value: Any) -> Any:
    return (
        value.cast(pa.float64(), safe=False)
        if pa.types.is_integer(value.type) or pa.types.is_null(value.type)
        else value
    )


def _typed(value: Any, kind: pa.DataType) -> Any:
    """A column of nothing but nulls in the type that the place asks for; everything else as it is."""
    return value.cast(kind) if pa.types.is_null(value.type) else value


def _compare(left: ast.expr, op: ast.cmpop, right: ast.expr, table: pa.Table) -> Any:
    value = _value(left, table)
    if isinstance(op, (ast.Is, ast.IsNot)):
        return pc.is_null(value) if isinstance(op, ast.Is) else pc.is_valid(value)
    if isinstance(op, (ast.In, ast.NotIn)) and isinstance(right, (ast.List, ast.Tuple)):
        # SQL: null IN (...) is null, not false
        tests = [pc.equal(value, _value(item, table)) for item in right.elts]
        found = (
            functools.reduce(pc.or_kleene, tests) if tests else pc.and_kleene(pc.equal(value, value), pa.scalar(False))
        )
        return found if isinstance(op, ast.In) else pc.invert(found)
    other = _value(right, table)
    if pa.types.is_null(value.type) and pa.types.is_null(other.type):
        value = value.cast(pa.bool_())
    return _COMPARE[type(op)](value, other)
