"""History: profiles kept beside versions, trends, and what is unusual."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gristmill.errors import CorruptDatasetError, UsageError
from gristmill.storage.dataset import tainted_path
from gristmill.storage.folder import open_folder
from gristmill.validators import history
from gristmill.validators.history import (
    compare_with_history,
    kept_profile,
    metrics,
    profile_path,
    trend,
    unusual_metrics,
    versions_before,
)

from .versions import publish_version


def table(seed: int, *, rows: int = 200, mean: float = 0.0, missing: float = 0.0) -> pa.Table:
    rng = np.random.default_rng(seed)
    values = rng.normal(10 + mean, 1, rows)
    mask = rng.random(rows) < missing
    texts = [f"text {i % 7}" for i in range(rows)]
    return pa.table({"_uid": [f"u{seed}-{i}" for i in range(rows)], "x": pa.array(values, mask=mask), "t": texts})


@pytest.fixture
def folder(tmp_path):
    return open_folder(tmp_path / "data")


def test_the_metrics_of_versions_make_a_trend(folder):
    datasets = [publish_version(folder, table(seed, rows=100 * (seed + 1))) for seed in range(4)]
    found = trend(datasets[-1], names=["row_count", "x.mean", "t.distinct"]).to_pylist()
    assert found[0] == {"metric": "row_count", "v1": 100.0, "v2": 200.0, "v3": 300.0, "v4": 400.0}
    assert found[1]["v3"] == pytest.approx(np.mean(table(2, rows=300)["x"].to_numpy()))
    assert found[2] == {"metric": "t.distinct", "v1": 7.0, "v2": 7.0, "v3": 7.0, "v4": 7.0}
    assert trend(datasets[-1], 2).column_names == ["metric", "v3", "v4"]
    assert trend(datasets[1]).column_names == ["metric", "v1", "v2"], "an older version has its own past"
    with pytest.raises(UsageError, match="Did you mean 'x.mean'"):
        trend(datasets[0], names=["x.meen"])


def test_a_profile_is_made_once_and_kept_beside_the_verdicts(folder, monkeypatch):
    dataset = publish_version(folder, table(0))
    first = kept_profile(dataset)
    assert folder.exists(profile_path(dataset.fingerprint)) and dataset.verdicts == []
    monkeypatch.setattr(history, "profile", lambda *_: 1 / 0)
    assert kept_profile(dataset).to_json_dict() == first.to_json_dict()
    folder.write_atomic(profile_path(dataset.fingerprint), b"torn")
    with pytest.raises(CorruptDatasetError, match="remove it, it will be made again"):
        kept_profile(dataset)


def test_versions_with_erased_rows_are_no_history(folder):
    datasets = [publish_version(folder, table(seed)) for seed in range(3)]
    folder.create(tainted_path(1), b"")
    assert [each.version for each in versions_before(datasets[2])] == [2]
    assert trend(datasets[2]).column_names == ["metric", "v2", "v3"]


def test_metrics_of_every_kind_of_column():
    from gristmill.validators.profile import profile_batches

    rows = pa.table(
        {"_uid": ["a", "b"], "x": [1.0, None], "t": ["", "abc"], "flag": [True, False], "tags": [[1], [1, 2, 3]]}
    )
    found = metrics(profile_batches(rows.schema, [rows]))
    assert found["row_count"] == 2 and not any(name.startswith("_uid") for name in found)
    assert (found["x.missing_rate"], found["x.mean"], found["x.min"], found["x.std"]) == (0.5, 1.0, 1.0, 0.0)
    assert (found["t.empty_rate"], found["t.mean_length"], found["tags.mean_length"]) == (0.5, 1.5, 2.0)
    assert "t.mean" not in found and found["flag.mean"] == 0.5


def test_what_is_unusual_is_found_and_nothing_else(folder):
    for seed in range(8):
        dataset = publish_version(folder, table(seed, missing=0.02))
        assert unusual_metrics(dataset) == {} or seed >= 3
    assert {name for name in unusual_metrics(dataset) if name.startswith(("x.mean", "row_count", "t."))} == set()
    bad = publish_version(folder, table(99, rows=60, mean=3, missing=0.4))
    found = unusual_metrics(bad)
    assert {"row_count", "x.mean", "x.median", "x.missing_rate"} <= set(found) and "t.distinct" not in found
    judged = found["x.mean"]
    assert judged.usual[0] < 10 < judged.usual[1] < 12 < judged.value and len(judged.history) == 8


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=30), st.floats(-1e6, 1e6))
def test_the_robust_z_score_is_the_textbooks(values, value):
    found = compare_with_history(value, values)
    deviation = stats.median_abs_deviation(values)
    if deviation > 1e-9:
        expected = 0.6745 * abs(value - np.median(values)) / deviation
        assert found.score == pytest.approx(expected, rel=1e-6)
        small = abs(value - np.median(values)) <= 0.01 * abs(np.median(values))
        assert found.unusual == (expected > 3.5 and not small) or expected == pytest.approx(3.5)
    assert found.unusual == (not found.usual[0] <= value <= found.usual[1])


def test_constant_histories_let_small_changes_pass():
    assert not compare_with_history(1005, [1000] * 5).unusual
    assert compare_with_history(1100, [1000] * 5).unusual
    assert not compare_with_history(0.0, [0.0] * 5).unusual and compare_with_history(0.2, [0.0] * 5).unusual
    mostly = [5.0] * 9 + [9.0]  # MAD is 0: the mean absolute deviation takes its place
    assert compare_with_history(6.0, mostly).score == pytest.approx(1 / (0.4 * 1.2533))


def test_relative_change_is_from_the_median():
    assert not compare_with_history(120, [100, 90, 110], "relative_change").unusual
    found = compare_with_history(130, [100, 90, 110], "relative_change")
    assert (found.unusual, found.score, found.usual) == (True, pytest.approx(0.3), (75.0, 125.0))
    assert not compare_with_history(130, [100, 90, 110], "relative_change", 0.5).unusual
