"""gristmill's own expectation types, in suites, on versions and splits."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.errors import SuiteError
from gristmill.storage.folder import open_folder
from gristmill.validators.api import validate
from gristmill.validators.expectations.datasets import DATASETS
from gristmill.validators.profile import profile
from gristmill.validators.report import exception_message
from gristmill.validators.words import describe

from .versions import publish_version


def table(seed: int, *, rows: int = 400, mean: float = 0.0, missing: float = 0.0, kinds: str = "ab") -> pa.Table:
    rng = np.random.default_rng(seed)
    values = pa.array(rng.normal(10 + mean, 1, rows), mask=rng.random(rows) < missing)
    labels = rng.choice(list(kinds), rows).tolist()
    texts = [" ".join(f"w{rng.integers(0, 5000)}" for _ in range(30)) for _ in range(rows)]
    return pa.table({"_uid": [f"u{seed}-{i}" for i in range(rows)], "x": values, "label": labels, "text": texts})


@pytest.fixture
def folder(tmp_path):
    return open_folder(tmp_path / "data")


def one(data, kind: str, **kwargs):
    """The result of one expectation."""
    return validate(data, [{"type": f"expect_gristmill_{kind}", "kwargs": kwargs}]).results[0]


def message(result) -> str:
    """Why an expectation could not be evaluated."""
    assert not result["success"] and result["result"] == {}
    return exception_message(result)


def test_drift_of_a_column_against_the_version_before(folder):
    first = publish_version(folder, table(1))
    result = one(first, "column_drift_to_be_less_than", column="x", threshold=0.2)
    assert result["success"] and "no version before" in result["result"]["details"]["note"]
    same = publish_version(folder, table(2))
    assert one(same, "column_drift_to_be_less_than", column="x", threshold=0.2)["success"]
    moved = publish_version(folder, table(3, mean=1.0, missing=0.2, kinds="abz"))
    result = one(moved, "column_drift_to_be_less_than", column="x", threshold=0.2)
    assert not result["success"] and result["result"]["observed_value"] > 0.5
    assert (
        one(moved, "column_drift_to_be_less_than", column="x", threshold=0.2, metric="kolmogorov_smirnov")["success"]
        is False
    )
    assert (
        one(moved, "column_drift_to_be_less_than", column="x", threshold=0.1, metric="missing_rate", p_value=0.01)[
            "success"
        ]
        is False
    )
    assert one(moved, "column_drift_to_be_less_than", column="x", threshold=0.3, metric="missing_rate")["success"]
    assert (
        one(moved, "column_drift_to_be_less_than", column="label", threshold=0.1, metric="cramers_v")["success"]
        is False
    )
    wrong = one(moved, "column_drift_to_be_less_than", column="label", threshold=0.1, metric="kolmogorov_smirnov")
    assert not wrong["success"] and "write psi, jensen_shannon or cramers_v" in message(wrong)
    for reference in ({"version": 2}, {"version": 1}, {"version": "previous"}):
        assert (
            one(moved, "column_drift_to_be_less_than", column="x", threshold=0.2, reference=reference)["success"]
            is False
        )
    assert one(moved, "column_drift_to_be_less_than", column="x", threshold=0.2, reference={"version": 3})["success"]


def test_a_small_difference_in_few_rows_may_be_chance(folder):
    publish_version(folder, table(1, rows=40))
    dataset = publish_version(folder, table(2, rows=40))
    strict = {"column": "x", "metric": "kolmogorov_smirnov", "threshold": 0.05}
    assert not one(dataset, "column_drift_to_be_less_than", **strict)["success"]
    assert one(dataset, "column_drift_to_be_less_than", **strict, p_value=0.01)["success"]


def test_references_of_every_kind(folder, tmp_path):
    dataset = publish_version(folder, {"train": table(1), "test": table(2, mean=2)})
    drift = {"column": "x", "threshold": 0.2}
    assert not one(dataset, "column_drift_to_be_less_than", **drift, split="test", reference={"split": "train"})[
        "success"
    ]
    assert one(dataset, "column_drift_to_be_less_than", **drift, split="train", reference={"split": "train"})["success"]
    pq.write_table(table(3), tmp_path / "other.parquet")
    (tmp_path / "kept.json").write_text(json.dumps(profile(table(3)).to_json_dict()))
    for reference in ({"path": str(tmp_path / "other.parquet")}, {"profile": str(tmp_path / "kept.json")}):
        assert one(table(4), "column_drift_to_be_less_than", **drift, reference=reference)["success"]
        assert not one(table(4, mean=2), "column_drift_to_be_less_than", **drift, reference=reference)["success"]
    assert "is no dataset version" in message(one(table(4), "column_drift_to_be_less_than", **drift))
    assert "no profile at" in message(
        one(table(4), "column_drift_to_be_less_than", **drift, reference={"profile": "none.json"})
    )
    with pytest.raises(SuiteError, match="write one of them"):
        one(dataset, "column_drift_to_be_less_than", **drift, reference={"version": 1, "path": "x"})


def test_drift_of_a_table_is_corrected_for_its_columns(folder):
    rng = np.random.default_rng(1)
    wide = lambda shift: pa.table(
        {
            "_uid": [str(i) for i in range(300)],
            **{f"c{i}": rng.normal(shift if i == 3 else 0, 1, 300) for i in range(40)},
        }
    )  # noqa: E731
    publish_version(folder, wide(0))
    assert one(publish_version(folder, wide(0)), "table_drift_to_be_less_than")["success"]
    result = one(publish_version(folder, wide(1)), "table_drift_to_be_less_than")
    assert not result["success"] and result["result"]["observed_value"] == ["c3"]
    dataset = publish_version(folder, wide(0))
    assert one(dataset, "table_drift_to_be_less_than", max_columns=1)["success"]
    assert one(dataset, "table_drift_to_be_less_than", columns=["c1", "c2"])["success"]


def test_new_and_vanished_categories(folder):
    publish_version(folder, table(1, kinds="abc"))
    dataset = publish_version(folder, table(2, kinds="abd"))
    result = one(dataset, "column_categories_to_match_reference", column="label")["result"]
    assert result["details"]["new"][0][0] == "d" and result["details"]["vanished"][0][0] == "c"
    assert not one(dataset, "column_categories_to_match_reference", column="label", max_new_share=0.5)["success"]
    assert one(
        dataset, "column_categories_to_match_reference", column="label", max_new_share=0.5, max_vanished_share=0.5
    )["success"]
    assert "is no category" in message(one(dataset, "column_categories_to_match_reference", column="text"))


def test_leaks_between_splits(folder):
    train, test = table(1), table(2, rows=100)
    clean = publish_version(folder, {"train": train, "test": test})
    assert one(clean, "splits_to_share_no_rows")["success"]
    assert one(clean, "splits_to_share_no_near_duplicates", column="text")["success"]
    copied = pa.concat_tables([test, train.slice(7, 3).set_column(0, "_uid", pa.array(["n1", "n2", "n3"]))])
    leaky = publish_version(folder, {"train": train, "test": copied})
    result = one(leaky, "splits_to_share_no_rows")
    (pair,) = result["result"]["details"]["pairs"]
    assert not result["success"] and result["result"]["observed_value"] == 3
    assert (pair["split"], pair["other"], pair["examples"][0]) == (
        "test",
        "train",
        {"row": 100, "other_row": 7, "similarity": 1.0},
    )
    assert one(leaky, "splits_to_share_no_rows", max_share=0.05)["success"]
    near = pa.table(
        {
            **{name: test[name] for name in ("_uid", "x", "label")},
            "text": [t.as_py() + " more" for t in train["text"][:100]],
        }
    )
    edited = publish_version(folder, {"train": train, "test": near})
    assert one(edited, "splits_to_share_no_rows")["success"]
    result = one(edited, "splits_to_share_no_near_duplicates", column="text", threshold=0.8)
    assert not result["success"] and result["result"]["observed_value"] == 100
    assert "needs two of them" in message(one(publish_version(folder, table(5)), "splits_to_share_no_rows"))


def test_slices_and_classes():
    rows = pa.table(
        {
            "lang": ["en"] * 90 + ["de"] * 10,
            "kind": (["news"] * 80 + ["code"] * 10) + ["news"] * 10,
            "label": ["a"] * 95 + ["b"] * 4 + [None],
        }
    )
    assert one(rows, "slice_row_counts_to_be_at_least", columns=["lang"], min_value=10)["success"]
    result = one(
        rows,
        "slice_row_counts_to_be_at_least",
        columns=["lang", "kind"],
        min_value=10,
        values=[["en", "de"], ["news", "code"]],
    )
    assert not result["success"] and result["result"]["observed_value"] == 0
    assert result["result"]["details"]["thinnest"] == [{"values": {"lang": "de", "kind": "code"}, "rows": 0}]
    result = one(rows, "class_balance_to_be_between", column="label", min_share=0.05)
    assert not result["success"] and result["result"]["observed_value"]["min_share"] == pytest.approx(4 / 99)
    assert one(rows, "class_balance_to_be_between", column="label", min_share=0.04)["success"]
    assert not one(rows, "class_balance_to_be_between", column="label", max_ratio=20)["success"]
    assert not one(rows.slice(0, 0), "class_balance_to_be_between", column="label")["success"], (
        "no rows have no balance"
    )
    assert not one(rows.slice(0, 0), "slice_row_counts_to_be_at_least", columns=["lang"], min_value=1)["success"]
    with pytest.raises(SuiteError, match="one for each column"):
        one(rows, "slice_row_counts_to_be_at_least", columns=["lang"], min_value=1, values=[["en"], ["news"]])


def test_metrics_against_the_versions_before(folder):
    for seed in range(5):
        dataset = publish_version(folder, table(seed))
        assert one(dataset, "metric_to_match_history", metric="mean", column="x")["success"]
    bad = publish_version(folder, table(9, mean=3, rows=390))
    result = one(bad, "metric_to_match_history", metric="mean", column="x")
    assert not result["success"] and len(result["result"]["details"]["history"]) == 5
    assert one(bad, "metric_to_match_history", metric="row_count", method="relative_change", threshold=0.05)["success"]
    assert "Did you mean 'x.mean'" in message(one(bad, "metric_to_match_history", metric="meen", column="x"))


def test_missing_columns_and_wrong_parameters_are_told():
    rows = table(1)
    assert "Did you mean 'label'" in message(one(rows, "class_balance_to_be_between", column="labels"))
    with pytest.raises(SuiteError, match="Did you mean 'min_share'"):
        one(rows, "class_balance_to_be_between", column="label", min_shares=0.1)
    with pytest.raises(SuiteError, match="about all rows"):
        one(
            rows,
            "class_balance_to_be_between",
            column="label",
            row_condition='col("x") > 1',
            condition_parser="great_expectations",
        )


def test_every_type_says_in_words_what_it_is_about():
    kwargs = {"column": "x", "metric": "psi", "threshold": 0.2, "columns": ["a"], "min_value": 3}
    for kind in DATASETS:
        words = describe(kind.type, kwargs)
        assert "gristmill" not in words and "_" not in words and "-" not in words.split()
