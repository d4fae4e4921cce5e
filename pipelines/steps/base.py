"""What a step is: a frozen model with a `step` name, a VERSION and one pure method. Steps know no engine."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from gristmill.errors import PipelineError


class Step(BaseModel):
    """The root of every step model. Its fields are the options of the pipeline file; an unknown option is refused.

    VERSION changes whenever the output for some input changes: finished work is found again by step model and VERSION.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)
    VERSION: ClassVar[int] = 1

    step: str

    def needs(self) -> list[str]:
        """The columns that must exist where the step stands, for the check before any work."""
        return []

    def output_columns(self, columns: list[str]) -> list[str]:
        """The columns after the step, given those before it."""
        return columns


class RowStep(Step):
    """A step that looks at each row on its own."""

    def apply(self, table: pa.Table) -> tuple[pa.Table, pa.Table]:
        """(the rows that stay, edited or not, in their order; the decisions as `decisions.SCHEMA`).

        `table` always has `_uid` (string), which is never edited. The result for a row depends on that row alone, so a table may be cut
        anywhere. Every row that leaves has at least one `drop` (or `quarantine`) decision, and every failing rule of it is there.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks apply")


def text_column(table: pa.Table, name: str, step: str) -> pa.ChunkedArray:
    """The column as text; a column of nothing but nulls counts as text.

    Raises:
        PipelineError: it holds something else.
    """
    column = table[name]
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise PipelineError(f"{step}: column '{name}' is {column.type}, expected text; add a cast step before it")
    return column
