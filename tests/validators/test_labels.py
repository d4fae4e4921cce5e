"""Suspected labels: against the method in plain numpy, and against people's judgement of CIFAR-10."""

from __future__ import annotations

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import ColumnError, DataCheckError
from gristmill.validators.inputs import of_tables, open_data
from gristmill.validators.labels import suspected_labels


def data(labels, probabilities, shards=3):
    table = pa.table(
        {
            "_uid": [f"u{i}" for i in range(len(labels))],
            "label": labels,
            "p": pa.array([list(row) for row in probabilities]),
        }
    )
    step = -(-len(labels) // shards)
    return of_tables([table.slice(i, step) for i in range(0, len(labels), step)], "t")


def expected(labels, p):
    """Row numbers, least likely first: the low_self_confidence filter of confident learning."""
    k = p.shape[1]
    thresholds = [p[labels == c, c].mean() if (labels == c).any() else np.inf for c in range(k)]
    best = p.argmax(axis=1)
    count = sum(best[i] != labels[i] and p[i, best[i]] >= thresholds[best[i]] - 1e-6 for i in range(len(labels)))
    return np.argsort(p[np.arange(len(labels)), labels], kind="stable")[:count].tolist()


@given(st.integers(2, 5), st.integers(1, 60), st.integers(0, 10_000))
def test_suspects_are_those_of_the_method(classes, rows, seed):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), rows)
    labels = np.where(rng.random(rows) < 0.8, p.argmax(axis=1), rng.integers(0, classes, rows))
    found = suspected_labels(data(labels.tolist(), p), "p")
    assert found.suspects["row"].to_pylist() == expected(labels, p) and found.rows == rows
    for row in found.suspects.to_pylist():
        i = row["row"]
        assert row["uid"] == f"u{i}" and row["given"] == str(labels[i]) and row["suggested"] == str(p[i].argmax())
        assert row["given_probability"] == p[i, labels[i]] and row["suggested_probability"] == p[i].max()


def test_names_and_missing_values():
    p = [[0.9, 0.1], [0.2, 0.8], [0.95, 0.05], [0.1, 0.9], [0.9, 0.1]]
    rows = data(["cat", "dog", "dog", None, "cat"], p)
    found = suspected_labels(rows, "p")
    assert found.classes == ["cat", "dog"] and found.rows == 4
    assert found.suspects.select(["row", "given", "suggested"]).to_pylist() == [
        {"row": 2, "given": "dog", "suggested": "cat"}
    ]
    turned = suspected_labels(rows, "p", classes=["dog", "cat"])
    assert turned.suspects.num_rows == 3 and turned.classes == ["dog", "cat"]
    assert suspected_labels(data([0, 1], [[1.0, 0.0], [0.0, 1.0]]), "p").suspects.num_rows == 0


def test_what_can_t_be_meant_is_told():
    with pytest.raises(ColumnError, match="Did you mean 'label'"):
        suspected_labels(data([0], [[1.0]]), "p", "labels")
    with pytest.raises(ColumnError, match="'label' is int64, expected lists of numbers"):
        suspected_labels(data([0], [[1.0]]), "label", "label")
    with pytest.raises(DataCheckError, match="has 2, expected 0 to 1: 'p' has 2 classes"):
        suspected_labels(data([0, 2], [[1.0, 0.0]] * 2), "p")
    with pytest.raises(DataCheckError, match="'bird', expected one of cat, dog"):
        suspected_labels(data(["cat", "bird"], [[1.0, 0.0]] * 2), "p", classes=["cat", "dog"])
    with pytest.raises(DataCheckError, match="'p' has 3 classes, but only 2 have names"):
        suspected_labels(data([0, 1], [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), "p", classes=["cat", "dog"])
    with pytest.raises(DataCheckError, match="lists of"):
        suspected_labels(data([0, 0], [[1.0, 0.0], [1.0]]), "p")
    with pytest.raises(DataCheckError, match="null, NaN or infinite"):
        suspected_labels(data([0], [[float("nan"), 1.0]]), "p")


def test_people_agree_with_most_suspects_of_cifar10(shared_data, tmp_path):
    folder = shared_data / "image" / "cifar10"
    p = np.load(folder / "test_pred_probs.npy")
    rows = list(csv.DictReader((folder / "labels_test_mturk.csv").open()))
    labels = np.array([int(row["given"]) for row in rows])
    pq.write_table(
        pa.table({"label": labels, "p": pa.FixedSizeListArray.from_arrays(pa.array(p.reshape(-1)), 10)}),
        tmp_path / "c.parquet",
    )
    found = suspected_labels(open_data(str(tmp_path / "c.parquet")), "p")
    chosen = found.suspects["row"].to_pylist()
    assert chosen == expected(labels, p.astype(np.float64))
    judged = {i: row for i, row in enumerate(rows) if row["guessed"]}
    wrong = {
        i for i, row in judged.items() if int(float(row["votes_given"])) < 3
    }  # of five people, fewer than three see what the label says
    hits = len(wrong & set(chosen))
    assert 200 < len(chosen) < 400 and len(wrong) > 40
    assert hits / len(wrong) > 0.7, "most of what people call wrong is suspected"
    base = len(wrong) / len(rows)
    assert hits / len(chosen) > 20 * base, "far more often than by chance"


def test_the_command_lists_suspects(tmp_path, monkeypatch, capsys):
    import json
    import sys

    from gristmill.cli.main import main

    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"label": ["cat", "dog", "dog"], "p": [[0.9, 0.1], [0.2, 0.8], [0.95, 0.05]]}), "d.parquet")
    for words, expected_text in (
        (["--out", "s.parquet"], "row 2: dog (0.05), probably cat (0.95)"),
        (["--json"], None),
    ):
        monkeypatch.setattr(sys, "argv", ["gristmill", "labels", "d.parquet", "--probabilities", "p", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr().out
        assert stop.value.code in (0, None)
        assert expected_text in out if expected_text else json.loads(out)["suspects"][0]["row"] == 2
    assert pq.read_table("s.parquet").num_rows == 1
