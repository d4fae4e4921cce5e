"""`gristmill.validate`: data and a suite in, a verdict out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gristmill.validators.evaluate import evaluate
from gristmill.validators.formats import parse_format
from gristmill.validators.inputs import open_data
from gristmill.validators.spill import DEFAULT_MEMORY
from gristmill.validators.suites import load_suite
from gristmill.validators.verdict import Verdict


def validate(
    data: Any,
    suite: Any,
    *,
    result_format: Any = None,
    expectation_parameters: Mapping[str, Any] | None = None,
    split: str | None = None,
    states: bool = True,
    threads: int | None = None,
    memory: int = DEFAULT_MEMORY,
    approximate: bool = False,
) -> Verdict:
    """A `Verdict` with results in Great Expectations' shape, in the order of the suite.

    data: a Dataset or its path (PATH@VERSION too), paths or globs of Parquet, CSV or JSONL files, or a pandas, Arrow, Polars, Dask or Spark
    frame. suite: a Great Expectations suite or expectation, its JSON, or the path of its file. result_format: as Great Expectations takes it,
    "SUMMARY" for None. expectation_parameters: for {"$PARAMETER": name}. split: of a dataset. states: keep each shard's states beside a dataset, and
    use those that are there. threads: the machine's cores for None. memory: bytes of hashes and numbers that all
    expectations together hold, 256 MB; more of them lie in a temporary file (in TMPDIR).
    approximate: counts of distinct values, medians and quantiles may be estimates in bounded memory; each result that is one has `approximate`, its
    method and error. Which rows fail is always exact. Such a verdict opens no gate.

    Every row is read at most twice, once where the suite allows. An error while evaluating an expectation is its failure.

    Raises:
        SuiteError: a suite that can't be evaluated as written: an unknown expectation, a missing or wrong parameter.
        ColumnError, InputError, DatasetError: as `inputs.open_data` and a result_format that names a column.
    """
    form = parse_format(result_format)
    return evaluate(
        open_data(data, split=split),
        load_suite(suite, expectation_parameters),
        form,
        states=states,
        threads=threads,
        memory=memory,
        approximate=approximate,
    )
