"""`python` and `pandas`: the user's own step, an Arrow table (or a pandas frame) in and out, held to the same accounting as ours."""

from __future__ import annotations

import functools
import importlib
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pydantic import Field, PrivateAttr, field_validator

from gristmill.errors import PipelineError, RunError, did_you_mean
from gristmill.kernels.digests import row_digests
from gristmill.pipelines import decisions
from gristmill.pipelines.sources.schemas import common_type
from gristmill.pipelines.steps.base import RowStep
from gristmill.storage.interop import to_nullable_pandas


class Python(RowStep):
    """What `module:function` makes of each table: an Arrow table in, an Arrow table out.

    `_uid` names the rows and must come back with them. A row that doesn't come back is dropped with the function's name as rule; one whose
    cells changed is an edit; a new row needs a `_uid` of its own and a non-null `_parent_uid`. `options` are passed as keyword arguments.
    The function sees any number of rows at a time, so a row's result must not depend on its neighbours. Finished work is found again by the
    module's text, so an edited function runs again, also on workers that had loaded it before.
    """

    step: Literal["python"] = "python"
    function: str
    options: dict[str, Any] = Field(default_factory=dict)
    _home: str = PrivateAttr(default_factory=os.getcwd)  # the run's: workers find the modules there too
    _text: str = PrivateAttr(default="")  # the module's, by hash: workers run this one and no other

    @field_validator("function")
    @classmethod
    def _resolves(cls, value: str) -> str:
        load(value)
        return value

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._text = _hash_of(_module_of(load(self.function)))

    def code(self) -> str:
        """The text of the function's module: part of the name under which finished work is stored."""
        return Path(str(_module_of(load(self.function)).__file__)).read_text(encoding="utf-8")

    def apply(self, table: pa.Table) -> tuple[pa.Table, pa.Table]:
        result = self._call(table)
        if not isinstance(result, pa.Table):
            raise RunError(f"step python: {self.function} returned {type(result).__name__}, expected a pyarrow.Table")
        return accounted(table, result, self.function)

    def _call(self, table: pa.Table) -> Any:
        return self._run(table)

    def _run(self, frame: Any) -> Any:
        """The user's function on the frame; an error of its own names it."""
        try:
            return load(self.function, self._home, self._text)(frame, **self.options)
        except Exception as error:
            error.add_note(f"in {self.function}, called by step {self.step}")
            raise


class Pandas(Python):
    """What `module:function` makes of each table: a pandas frame in, a pandas frame out; the same rules as `python`.

    Integers and bools come in pandas' nullable types, so that a null takes nothing from them. pandas has one sign for null and NaN: what comes
    back as that is null, unless the cell was NaN before.
    """

    VERSION: ClassVar[int] = 2

    step: Literal["pandas"] = "pandas"  # type: ignore[assignment]

    def _call(self, table: pa.Table) -> Any:
        frame = self._run(to_nullable_pandas(table))
        if not hasattr(frame, "columns"):
            raise RunError(f"step pandas: {self.function} returned {type(frame).__name__}, expected a pandas DataFrame")
        return _like(pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None), table)


def _like(result: pa.Table, before: pa.Table) -> pa.Table:
    """The result with the types and NaNs that pandas has lost of the columns that existed before."""
    for i, field in enumerate(result.schema):
        if field.name not in before.column_names or "_uid" not in result.column_names:
            continue
        old = before.schema.field(field.name)
        if field.type != old.type and _is_pandas_form(field.type, old.type):
            result = result.set_column(i, old, result[field.name].cast(old.type))
        if pa.types.is_floating(old.type) and result.schema.field(i).type == old.type:
            was_nan = pc.is_nan(before[field.name]).take(
                pc.index_in(result["_uid"], value_set=before["_uid"].combine_chunks())
            )
            again = pc.and_(pc.is_null(result[field.name]), pc.fill_null(was_nan, False))
            result = result.set_column(i, old, pc.if_else(again, pa.scalar(float("nan"), old.type), result[field.name]))
    return result


def _is_pandas_form(kind: pa.DataType, old: pa.DataType) -> bool:
    """Whether the type is what pandas makes of the old one, and not one that the function has chosen."""
    if pa.types.is_integer(old) and pa.types.is_floating(kind):
        return False
    return common_type(kind, old) is not None or (pa.types.is_decimal(kind) and pa.types.is_decimal(old))


@functools.lru_cache(maxsize=64)
def load(name: str, home: str = "", text: str = "") -> Callable[..., Any]:
    """The function that `module:function` names, imported from the Python path or the folder `home`, the current one if "".

    text: the hash of the function's module; where it was loaded with another one, it is loaded anew.

    Raises:
        PipelineError: the module can't be imported or has no such function.
        RunError: the module is there with another text.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not attribute:
        raise PipelineError(f"function '{name}': write 'module:function'")
    home = home or os.getcwd()
    if home not in sys.path:
        sys.path.insert(0, home)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise PipelineError(f"function '{name}': can't import module '{module_name}': {error}") from error
    found = getattr(module, attribute, None)
    if not callable(found):
        raise PipelineError(
            f"function '{name}': module '{module_name}' has no function '{attribute}'.{did_you_mean(attribute, vars(module))}"
        )
    own = _module_of(found)
    if _loaded.setdefault(own.__name__, _hash_of(own)) == text or not text:
        return found
    importlib.invalidate_caches()
    for each in dict.fromkeys((own, module)):
        importlib.reload(each)
    _loaded[own.__name__] = _hash_of(own)
    if _loaded[own.__name__] != text:
        raise RunError(
            f"function '{name}': '{own.__file__}' on {socket.gethostname()} is not the module that the run was started with; "
            "give all workers the same one"
        )
    return getattr(module, attribute)


_loaded: dict[str, str] = {}
"""The hash of the text with which modules of steps were loaded by this process, by name."""


def _module_of(function: Callable[..., Any]) -> ModuleType:
    return sys.modules[function.__module__]


def _hash_of(module: ModuleType) -> str:
    """Of the text on disk; "" for what is in no file, such as a notebook."""
    path = getattr(module, "__file__", None)
    return xxhash.xxh3_128_hexdigest(Path(path).read_bytes()) if path and os.path.exists(path) else ""


def accounted(before: pa.Table, after: pa.Table, rule: str) -> tuple[pa.Table, pa.Table]:
    """(after, the decisions that explain every difference from before).

    Raises:
        RunError: rows that can't be accounted for: no `_uid`, a repeated one, or a new row without a parent.
    """
    if "_uid" not in after.column_names:
        raise RunError(f"step {rule}: the result has no column '_uid'; return the rows with the '_uid' they came with")
    old, new = before["_uid"].combine_chunks(), after["_uid"].combine_chunks().cast(before["_uid"].type)
    if pc.count_distinct(new, mode="all").as_py() < len(new) or new.null_count:
        raise RunError(
            f"step {rule}: the result has repeated or null '_uid' values; a row that is made needs a '_uid' of its own"
        )
    found = []
    gone = pc.invert(pc.is_in(old, value_set=new))
    if pc.any(gone).as_py():
        found.append(decisions.decide(old.filter(gone), "drop", rule))
    place = pc.index_in(new, value_set=old)
    made = pc.is_null(place)
    if pc.any(made).as_py():
        parents = after["_parent_uid"].filter(made) if "_parent_uid" in after.column_names else None
        if parents is None or parents.null_count:
            raise RunError(
                f"step {rule}: a row that is made needs the '_uid' of the row it was made from in column '_parent_uid'"
            )
        found.append(decisions.decide(new.filter(made), "create", rule, other_uid=parents))
    stayed = pc.is_valid(place)
    shared = [name for name in before.column_names if name in after.column_names]
    was = row_digests(before.select(shared).take(place.filter(stayed)))
    now = row_digests(after.select(shared).filter(stayed))
    changed = pa.array(np.any(was != now, axis=1))
    if pc.any(changed).as_py():
        found.append(decisions.decide(new.filter(stayed).filter(changed), "edit", rule))
    return after, pa.concat_tables(found) if found else decisions.none()
