"""`filter`: keeps the rows for which an expression is true."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import field_validator

from gristmill.errors import PipelineError
from gristmill.pipelines import decisions
from gristmill.pipelines.steps import where
from gristmill.pipelines.steps.base import RowStep


class Filter(RowStep):
    """Rows where `where` is true; false and null (unknown) leave, as in SQL.

    Each term of an outermost `and` that isn't true is a rule of its own in the ledger, with the measured value and the threshold where the
    term compares a number with a constant.
    """

    VERSION: ClassVar[int] = 2

    step: Literal["filter"] = "filter"
    where: str

    @field_validator("where")
    @classmethod
    def _parses(cls, value: str) -> str:
        where.parse(value)
        return value

    def needs(self) -> list[str]:
        return where.columns(self.where)

    def apply(self, table: pa.Table) -> tuple[pa.Table, pa.Table]:
        keep = pa.chunked_array([pa.repeat(pa.scalar(True), table.num_rows)])
        found = []
        for rule, term in where.conjuncts(self.where):
            true = _mask(where.evaluate(term, table), rule, table.num_rows)
            failed = pc.invert(true)
            keep = pc.and_(keep, true)
            uids = table["_uid"].filter(failed)
            if len(uids):
                values, threshold = where.measured(term, table)
                value = None if values is None else values.filter(failed).cast(pa.float64(), safe=False)
                found.append(decisions.decide(uids, "drop", rule, value=value, threshold=threshold))
        return table.filter(keep), pa.concat_tables(found) if found else decisions.none()


def _mask(value: Any, term: str, rows: int) -> pa.ChunkedArray:
    """True where the value is true; false where it is false or null. A constant counts for every row."""
    value = value.cast(pa.bool_()) if pa.types.is_null(value.type) else value
    if not pa.types.is_boolean(value.type):
        raise PipelineError(
            f"where: '{term}' is {value.type}, expected true or false; compare it with something, such as {term} > 0"
        )
    if isinstance(value, pa.Scalar):
        return pa.chunked_array([pa.repeat(pa.scalar(bool(value.as_py())), rows)])
    return pc.fill_null(value, False)
