"""The benchmark's rows and suite: eight columns, twenty expectations."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

COUNTRIES = ["DE", "FR", "IT", "ES", "PL", "NL", "SE", "DK", "FI", "AT"]
STATES = ["new", "paid", "sent", "done", "back"]
EMAIL = r"^[\w.+-]+@[\w-]+\.[\w.]+$"


def table(rows: int, start: int = 0) -> pa.Table:
    """Orders `start` to `start + rows`: some nulls, some bad e-mails, some ages out of range."""
    rng = np.random.default_rng(start)
    ids = np.arange(start, start + rows)
    age = rng.integers(18, 95, rows)
    age[rng.random(rows) < 1e-5] = 150
    amount = np.round(rng.gamma(2.0, 40.0, rows), 2)
    amount_null = rng.random(rows) < 0.05
    score = rng.normal(0.5, 0.1, rows)
    text = pa.array(ids).cast(pa.string())
    email = pc.binary_join_element_wise("user", text, "@", "mail.example.com", "")
    email = pc.if_else(pa.array(rng.random(rows) < 1e-5), "not an address", email)
    created = np.datetime64("2024-01-01", "us") + rng.integers(0, 365 * 86400, rows) * np.timedelta64(1000000, "us")
    return pa.table(
        {
            "id": ids,
            "age": age,
            "amount": pa.array(amount, mask=amount_null),
            "score": score,
            "country": pa.array(COUNTRIES).take(pa.array(rng.integers(0, len(COUNTRIES), rows))),
            "state": pa.array(STATES).take(pa.array(rng.integers(0, len(STATES), rows))),
            "email": email,
            "created": created,
        }
    )


def _expectation(kind: str, **kwargs: object) -> dict[str, object]:
    return {"type": kind, "kwargs": kwargs}


SUITE = {
    "name": "orders",
    "expectations": [
        _expectation("expect_table_row_count_to_be_between", min_value=1),
        _expectation("expect_column_values_to_not_be_null", column="id"),
        _expectation("expect_column_values_to_be_unique", column="id"),
        _expectation("expect_column_values_to_be_increasing", column="id"),
        _expectation("expect_column_values_to_be_between", column="age", min_value=0, max_value=120),
        _expectation("expect_column_mean_to_be_between", column="age", min_value=30, max_value=80),
        _expectation("expect_column_values_to_not_be_null", column="amount", mostly=0.9),
        _expectation("expect_column_values_to_be_between", column="amount", min_value=0, max_value=5000),
        _expectation("expect_column_stdev_to_be_between", column="amount", min_value=1, max_value=100),
        _expectation("expect_column_max_to_be_between", column="amount", min_value=100, max_value=5000),
        _expectation("expect_column_values_to_be_between", column="score", min_value=-1, max_value=2),
        _expectation("expect_column_median_to_be_between", column="score", min_value=0.4, max_value=0.6),
        _expectation("expect_column_min_to_be_between", column="score", min_value=-1, max_value=1),
        _expectation("expect_column_values_to_be_in_set", column="country", value_set=COUNTRIES),
        _expectation("expect_column_value_lengths_to_equal", column="country", value=2),
        _expectation("expect_column_distinct_values_to_equal_set", column="state", value_set=STATES),
        _expectation("expect_column_most_common_value_to_be_in_set", column="state", value_set=STATES),
        _expectation("expect_column_values_to_match_regex", column="email", regex=EMAIL, mostly=0.99),
        _expectation("expect_column_value_lengths_to_be_between", column="email", min_value=5, max_value=60),
        _expectation(
            "expect_column_values_to_be_between",
            column="created",
            min_value="2024-01-01T00:00:00",
            max_value="2025-01-01T00:00:00",
        ),
    ],
}
