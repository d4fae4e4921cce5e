"""Suites written from the domain find the wrong cells of real dirty tables."""

from __future__ import annotations

import pytest

from tests.validators.wrong_cells import score


@pytest.mark.parametrize(
    ("name", "wrong", "precision", "recall"), [("hospital", 509, 0.98, 0.9), ("beers", 4362, 0.99, 0.99)]
)
def test_wrong_cells_are_found(shared_data, name, wrong, precision, recall):
    found = score(shared_data / "tabular/raha", name)
    assert found.wrong == wrong
    assert found.precision >= precision
    assert found.recall >= recall
