"""`select_columns`, `rename_columns` and `cast`: the shape of the table, not its rows."""

from __future__ import annotations

from functools import partial
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from gristmill.errors import PipelineError, UsageError
from gristmill.pipelines import decisions
from gristmill.pipelines.arrow_types import parse_type
from gristmill.pipelines.sources.schemas import holds
from gristmill.pipelines.steps.base import RowStep


class SelectColumns(RowStep):
    """The named columns, in this order; columns that start with `_` (the row's identity) always stay, last."""

    step: Literal["select_columns"] = "select_columns"
    columns: list[str] = Field(min_length=1)

    @field_validator("columns")
    @classmethod
    def _once_each(cls, value: list[str]) -> list[str]:
        twice = next((name for name in value if value.count(name) > 1), None)
        if twice is not None:
            raise UsageError(f"column '{twice}' is selected twice; name it once")
        return value

    def needs(self) -> list[str]:
        return self.columns

    def output_columns(self, columns: list[str]) -> list[str]:
        return [*self.columns, *[name for name in columns if name.startswith("_") and name not in self.columns]]

    def apply(self, table: pa.Table) -> tuple[pa.Table, pa.Table]:
        return table.select(self.output_columns(table.column_names)), decisions.none()


class RenameColumns(RowStep):
    """The same table with columns renamed; names that start with `_` are gristmill's."""

    step: Literal["rename_columns"] = "rename_columns"
    columns: dict[str, str] = Field(min_length=1)

    @field_validator("columns")
    @classmethod
    def _not_ours(cls, value: dict[str, str]) -> dict[str, str]:
        for old, new in value.items():
            if old.startswith("_") or new.startswith("_"):
                raise UsageError(
                    f"can't rename '{old}' to '{new}': names that start with '_' are kept for the row's identity"
                )
        if len(set(value.values())) < len(value):
            raise UsageError("two columns are renamed to the same name")
        return value

    def needs(self) -> list[str]:
        return list(self.columns)

    def output_columns(self, columns: list[str]) -> list[str]:
        renamed = [self.columns.get(name, name) for name in columns]
        twice = sorted({name for name in renamed if renamed.count(name) > 1})
        if twice:
            raise PipelineError(
                f"rename_columns: column '{twice[0]}' would exist twice; drop or rename the other one too"
            )
        return renamed

    def apply(self, table: pa.Table) -> tuple[pa.Table, pa.Table]:
        return table.rename_columns(self.output_columns(table.column_names)), decisions.none()


class Cast(RowStep):
    """Columns in other Arrow types; a value that doesn't fit exactly sends its row to quarantine with rule `cast:COLUMN`."""

    step: Literal["cast"] = "cast"
    columns: dict[str, str] = Field(min_length=1)

    @field_validator("columns")
    @classmethod
    def _known_types(cls, value: dict[str, str]) -> dict[str, str]:
        for name, kind in value.items():
            if name.startswith("_"):
                raise UsageError(f"can't cast '{name}': names that start with '_' are kept for the row's identity")
            parse_type(kind)
        return value

    def needs(self) -> list[str]:
        return list(self.columns)

    def apply(self, table: pa.Table) -> tuple[pa.Table, pa.Table]:
        found = []
        for name, text in self.columns.items():
            kind = parse_type(text)
            column = table[name]
            _check_castable(name, column.type, kind)
            try:
                cast = column.cast(kind)
            except pa.ArrowInvalid:
                fits = pa.array(holds(column, partial(_cast, kind=kind)))
                found.append(decisions.decide(table["_uid"].filter(pc.invert(fits)), "quarantine", f"cast:{name}"))
                table = table.filter(fits)
                cast = table[name].cast(kind)
            table = table.set_column(table.column_names.index(name), pa.field(name, kind), cast)
        return table, pa.concat_tables(found) if found else decisions.none()


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return column.cast(kind)


def _check_castable(name: str, old: pa.DataType, new: pa.DataType) -> None:
    try:
        pa.array([], old).cast(new)
    except pa.ArrowNotImplementedError:
        raise PipelineError(f"cast: column '{name}' is {old}, and no {old} can be cast to {new}") from None
