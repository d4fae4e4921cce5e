"""What is handed to Great Expectations itself: expectations that are not evaluated here."""

from __future__ import annotations

import contextlib
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gristmill.errors import MissingDependencyError, SuiteError, did_you_mean
from gristmill.validators.expectations.base import Setting
from gristmill.validators.suites import Entry

GX = "Great Expectations"


def is_for_gx(entry: Entry, known: Mapping[str, Any]) -> bool:
    """Whether Great Expectations evaluates it: a type, or a class of the user's own, that isn't evaluated here.

    Raises:
        SuiteError: a type that it doesn't know either.
    """
    if entry.given is not None and not type(entry.given).__module__.startswith("great_expectations."):
        return True
    if entry.type in known:
        return False
    if entry.given is not None or entry.type in _registered():
        return True
    raise SuiteError(f"unknown expectation '{entry.type}'.{did_you_mean(entry.type, known)}", expectation=entry.type)


def _registered() -> set[str]:
    try:
        with importing_gx():
            import great_expectations.expectations  # noqa: F401  registers its types
            from great_expectations.expectations.registry import list_registered_expectation_implementations
    except ImportError:
        return set()
    return set(list_registered_expectation_implementations())


@contextlib.contextmanager
def importing_gx() -> Iterator[None]:
    """Great Expectations may be imported: it imports Spark's client where that is installed.

    The client takes a main module without a file (`python -c`, a worker of pytest-xdist) for a doctest and ends the process, with status 0,
    unless the session is interactive (`sys.ps1`); and it warns of the version of pandas, which isn't used with it here.
    """
    bare = not hasattr(sys, "ps1")
    if bare:
        sys.ps1 = ""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="pyspark")
            yield
    finally:
        if bare:
            del sys.ps1


def evaluate_with_gx(entry: Entry, setting: Setting) -> dict[str, Any]:
    """The result of Great Expectations over all rows in memory, as it makes it."""
    result: dict[str, Any] = {
        "success": False,
        "expectation_config": entry.config(),
        "result": {},
        "meta": {},
        "exception_info": {},
        "evaluated": GX,
    }
    try:
        found = _validate(entry, setting)
        result |= {"success": bool(found.success), "result": dict(found.result), "exception_info": found.exception_info}
    except Exception as error:  # noqa: BLE001  an error while evaluating is a failure, shown as such
        result["exception_info"] = {
            "raised_exception": True,
            "exception_traceback": traceback.format_exc(),
            "exception_message": str(error),
        }
    return result


def _validate(entry: Entry, setting: Setting) -> Any:
    try:
        with importing_gx():
            import great_expectations as gx
            from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    except ImportError as error:
        raise MissingDependencyError(
            f"{entry.type} is evaluated by Great Expectations, which isn't installed: pip install 'gristmill[validate]'"
        ) from error
    from gristmill.validators.frames import to_frame

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    rows = np.arange(setting.data.num_rows)
    frame = to_frame(setting.batch(rows, list(setting.data.columns)))
    asset = context.data_sources.add_pandas("gristmill").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("rows").get_batch({"dataframe": frame})
    given = entry.given
    if given is None:
        given = ExpectationConfiguration(type=entry.type, kwargs=entry.kwargs).to_domain_obj()
    return batch.validate(given, result_format=gx_format(setting))


def gx_format(setting: Setting) -> dict[str, Any]:
    """The result format as Great Expectations takes it."""
    form = {key: value for key, value in setting.form.__dict__.items() if value is not None}
    if "unexpected_index_column_names" in form:
        form["unexpected_index_column_names"] = list(form["unexpected_index_column_names"])
    return form


def suite_parameter(text: str, parameters: Mapping[str, Any], where: str) -> Any:
    """The value of a suite parameter that is an expression, such as "2 * limit".

    Raises:
        SuiteError: a name without a value.
    """
    try:
        with importing_gx():
            from great_expectations.core.suite_parameters import parse_suite_parameter
    except ImportError:
        parse_suite_parameter = None
    try:
        if parse_suite_parameter is None:
            raise KeyError(text)  # noqa: TRY301
        return parse_suite_parameter(parameter_expression=text, suite_parameters=dict(parameters))
    except Exception as error:
        raise SuiteError(
            f"{where}: no value for the parameter '{text}'.{did_you_mean(text, parameters)} Give it in expectation_parameters"
        ) from error
