"""What a user writes to `gristmill.stream`, checked before a row is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from gristmill.errors import UsageError, did_you_mean, missing_column
from gristmill.storage.stream.columns import Column

LEAST = {"global_batch_size": 1, "epochs": 1, "shuffle_bytes": 1, "threads": 0, "workers": 0}
CHOICES = {"on_change": ("error", "extend"), "on_bad_row": ("error", "substitute")}


def check_arguments(given: Mapping[str, Any]) -> None:
    """Refuses values of another type or outside their range.

    Raises:
        UsageError: with the argument's name.
    """
    for name, least in LEAST.items():
        value, kind = given[name], Real if name == "shuffle_bytes" else Integral
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind) or value < least):
            raise UsageError(f"{name}={value!r}: a whole number, at least {least}")
    if not isinstance(given["seed"], Integral):
        raise UsageError(f"seed={given['seed']!r}: a whole number")
    for name, valid in CHOICES.items():
        if given[name] not in valid:
            raise UsageError(f"{name}={given[name]!r}.{did_you_mean(str(given[name]), valid)}")
    for name in ("columns", "skip"):
        if isinstance(given[name], str):
            raise UsageError(f"{name}='{given[name]}': give a list, {name}=['{given[name]}']")
    for each in given["skip"] or ():
        if not isinstance(each, str | Integral):
            raise UsageError(f"skip: {each!r} is neither a uid nor the number of a step")


def check_columns(
    columns: Iterable[Column], where: str, *, decode: Iterable[str], pad: Iterable[str], masked: bool
) -> None:
    """Refuses what can't be done with the columns. masked: batches have `_valid`.

    Raises:
        ColumnError: no such column. UsageError: one of another type, or with the name of what is put beside another.
    """
    found = {column.name: column for column in columns}
    for name in (*decode, *pad):
        if name not in found:
            raise missing_column(name, found, where)
    for name in decode:
        fields = [field.name for field in found[name].fields if field.kind in ("bytes", "text")]
        if found[name].kind not in ("bytes", "text") and f"{name}.bytes" not in fields:
            raise UsageError(
                f"decode: column '{name}' has neither bytes nor a struct with a field `bytes`", column=name
            )
    for name in pad:
        if found[name].kind != "numbers":
            raise UsageError(f"pad: column '{name}' is no list of numbers", column=name)
    made = {f"{name}_valid": f"mask of '{name}'" for name, each in found.items() if each.kind in ("number", "numbers")}
    made |= {f"{name}_lengths": f"lengths of '{name}'" for name in pad} | ({"_valid": "mask of rows"} if masked else {})
    for name in made.keys() & found.keys():
        raise UsageError(
            f"{where}: column '{name}' has the name that batches give to the {made[name]}; rename it, or leave one out with columns=",
            column=name,
        )
