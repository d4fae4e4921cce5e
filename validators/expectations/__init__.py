"""All expectation types, by name."""

from __future__ import annotations

from gristmill.validators.expectations.aggregates import AGGREGATES
from gristmill.validators.expectations.base import Expectation
from gristmill.validators.expectations.columns import COLUMNS
from gristmill.validators.expectations.datasets import DATASETS
from gristmill.validators.expectations.divergence import DIVERGENCE
from gristmill.validators.expectations.outliers import OUTLIERS
from gristmill.validators.expectations.records import RECORDS
from gristmill.validators.expectations.sets import SETS
from gristmill.validators.expectations.tables import TABLES
from gristmill.validators.expectations.texts import TEXTS

EXPECTATIONS: dict[str, type[Expectation]] = {
    each.type: each
    for family in (AGGREGATES, COLUMNS, DATASETS, DIVERGENCE, OUTLIERS, RECORDS, SETS, TABLES, TEXTS)
    for each in family
}
"""Every type that is evaluated here; the rest is for `handover`."""
