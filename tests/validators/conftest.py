"""Great Expectations, imported once as the product imports it: a worker of pytest-xdist has a main module without a file."""

from __future__ import annotations

import pytest

from gristmill.validators.handover import importing_gx


@pytest.fixture(scope="session", autouse=True)
def great_expectations_is_imported() -> None:
    with importing_gx():
        try:
            import great_expectations  # noqa: F401
        except ImportError:
            return  # tests that need it skip
