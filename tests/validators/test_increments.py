"""Versions that share shards: what was worked out before is used, and every result is that of a fresh validation."""

from __future__ import annotations

import decimal
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import gristmill
from gristmill.errors import InputError
from gristmill.pipelines.erase import erase, make_physical
from gristmill.storage.folder import Folder, open_folder
from gristmill.storage.gc import gc
from gristmill.storage.versions import publish
from gristmill.validators import bundles, distinct, ordered
from gristmill.validators.api import validate
from gristmill.validators.bundles import FOLDER
from gristmill.validators.distinct import Distinct
from gristmill.validators.profile import profile
from gristmill.validators.states import KEPT, TOGETHER
from gristmill.validators.summaries import Limits
from tests.validators.helpers import one
from tests.validators.test_inputs import stripped
from tests.validators.test_states import read_rows, shards

QUANTILES = {"quantiles": [0.0, 0.3, 0.5, 1.0], "value_ranges": [[None, None]] * 4}
SUITE = [
    one("unique", column="id"),
    one("unique", column="s"),
    one("compound_columns_to_be_unique", column_list=["n", "s"]),
    one("column_unique_value_count_to_be_between", column="s", max_value=5),
    one("column_unique_value_count_to_be_between", column="id", max_value=5),
    one("column_proportion_of_unique_values_to_be_between", column="n", max_value=0.5),
    one("column_most_common_value_to_be_in_set", column="s", value_set=["a", "b"]),
    one("column_most_common_value_to_be_in_set", column="n", value_set=[1, 2], ties_okay=True),
    one("column_distinct_values_to_be_in_set", column="s", value_set=["a", "b"]),
    one("column_distinct_values_to_equal_set", column="n", value_set=[1, 2, 3]),
    one("column_median_to_be_between", column="x", max_value=0),
    one("column_quantile_values_to_be_between", column="x", quantile_ranges=QUANTILES),
    one("column_values_to_be_increasing", column="id"),
    one("column_mean_to_be_between", column="x", max_value=0),
    one("column_stdev_to_be_between", column="x", max_value=0),
    one("between", column="x", min_value=-1),
    one("not_null", column="n"),
    one(
        "unique",
        column="id",
        row_condition={"type": "comparison", "column": {"name": "s"}, "operator": "==", "parameter": "a"},
    ),
]
SIZES = [400, 300, 1, 20, 30, 40, 25, 0, 35]


def table(number: int) -> pa.Table:
    """Shard `number` of the pool: ids that others have too, a few different texts and numbers, nulls."""
    rng, rows = np.random.default_rng(number), SIZES[number]
    return pa.table(
        {
            "id": rng.integers(0, 3000, rows) if number % 2 else np.arange(rows) + 1000 * number,
            "n": pa.array(rng.integers(0, 6, rows), mask=rng.random(rows) < 0.2),
            "s": pa.array(np.array(["a", "b", "c", f"only {number}"])[rng.integers(0, 4, rows)], pa.string()),
            "x": rng.normal(size=rows),
        }
    )


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """(a folder with all shards, the file of each)."""
    folder = open_folder(str(tmp_path_factory.mktemp("pool") / "d"))
    schema = table(0).schema
    return folder, [*(shards(folder, table(number).cast(schema))[0] for number in range(len(SIZES)) if SIZES[number])]


def changed(numbers, rng):
    """The shards of the next version."""
    others = [number for number in range(len(SIZES) - 1) if number not in numbers]
    change = rng.choice(["append", "insert", "remove", "shuffle", "replace"])
    if change == "shuffle":
        return rng.permutation(numbers).tolist()
    if change in ("append", "insert") and others:
        at = len(numbers) if change == "append" else int(rng.integers(0, len(numbers)))
        return [*numbers[:at], int(rng.choice(others)), *numbers[at:]]
    gone = int(rng.choice(numbers))
    if change == "replace" and others:
        return [int(rng.choice(others)) if number == gone else number for number in numbers]
    return [number for number in numbers if number != gone] or [gone]


@given(seed=st.integers(0, 2**32))
@settings(max_examples=6, phases=[Phase.explicit, Phase.generate])
def test_any_history_of_versions_gives_the_results_of_fresh_validations(pool, seed):
    source, files = pool
    rng = np.random.default_rng(seed)
    numbers = [0, *rng.permutation(np.arange(1, len(files)))[: rng.integers(0, 5)].tolist()]
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(distinct, "FILTERED", int(rng.choice([1, 1 << 16])))
        patch.setattr(distinct, "FILTERS", int(rng.choice([1, 8])))
        patch.setattr(distinct, "GROUPED", int(rng.choice([16, 1 << 16])))
        patch.setattr(distinct, "UNIT_ROWS", int(rng.choice([1, 1 << 20])))
        patch.setattr(ordered, "REACH", int(rng.choice([1, 1 << 12])))
        patch.setattr(bundles, "SMALL", int(rng.choice([0, 1 << 16])))
        shutil.copytree(source.base, place, dirs_exist_ok=True)
        folder = open_folder(place)
        for version in range(4):
            publish(folder, [files[number] for number in numbers], table(0).schema, expected_parent=version or None)
            now = gristmill.open_dataset(folder)
            memory = int(rng.choice([1, 1 << 28]))
            fresh = validate(now, SUITE, result_format="COMPLETE", states=False)
            assert stripped(validate(now, SUITE, result_format="COMPLETE", memory=memory)) == stripped(fresh)
            while (after := changed(numbers, rng)) == numbers:
                pass
            numbers = after


@pytest.fixture
def grown(tmp_path: Path):
    """A dataset of which version 2 has a small shard more, before the last one."""
    folder = open_folder(str(tmp_path / "d"))
    files = shards(folder, table(0), table(1), table(3))
    publish(folder, [files[0], files[2]], table(0).schema, expected_parent=None)
    validate(gristmill.open_dataset(folder), SUITE)
    return folder, files


def spy(monkeypatch, name):
    """Counts the rows of the states whose method is called, of those that keep every row."""
    calls, whole = [], getattr(Distinct, name)

    def called(self, *given, **named):
        calls.extend([self.considered] if self._every_row else [])
        return whole(self, *given, **named)

    monkeypatch.setattr(Distinct, name, called)
    return calls


def test_only_the_rows_of_a_new_shard_are_grouped(grown, monkeypatch):
    folder, files = grown
    new = shards(folder, table(4))
    publish(folder, [files[0], *new, files[2]], table(0).schema, expected_parent=1)
    version = gristmill.open_dataset(folder)
    expected = stripped(validate(version, SUITE, states=False))
    grouped, read = spy(monkeypatch, "_whole"), read_rows(monkeypatch)
    found = validate(version, SUITE, result_format={"result_format": "BOOLEAN_ONLY"})
    assert not grouped and SIZES[4] in read and SIZES[0] not in read
    assert stripped(validate(version, SUITE)) == expected and not grouped
    assert {result["evaluated"] for result in found.results} >= {"one pass"}


def test_a_version_validated_again_groups_nothing(grown, monkeypatch):
    folder, _ = grown
    grouped, looked_up = spy(monkeypatch, "_whole"), spy(monkeypatch, "first_rows")
    before = folder.list(TOGETHER)
    form = {"result_format": "BOOLEAN_ONLY"}
    assert {
        each["evaluated"] for each in validate(gristmill.open_dataset(folder), SUITE[:7], result_format=form).results
    } == {"state"}
    assert not grouped and not looked_up and folder.list(TOGETHER) == before


def test_only_the_newest_of_what_was_concluded_stays(grown):
    folder, files = grown
    seen = set()
    for version in range(2, KEPT + 4):
        publish(
            folder,
            [files[0], files[version % 3], *shards(folder, table(version))],
            table(0).schema,
            expected_parent=version - 1,
        )
        validate(gristmill.open_dataset(folder), SUITE)
        seen |= {path for path, *_ in folder.list(TOGETHER)}
    assert len(folder.list(TOGETHER)) == KEPT < len(seen)


def test_states_of_shards_that_no_version_needs_are_collected(grown):
    folder, files = grown
    (new,) = shards(folder, table(4))
    publish(folder, [files[0], new], table(0).schema, expected_parent=1)
    validate(gristmill.open_dataset(folder), SUITE)
    stated = {path.split("/")[2] for path, *_ in folder.list(FOLDER)} - {"together"}
    assert stated == {file.sha256[:20] for file in (files[0], files[2], new)}
    assert not [path for path in gc(folder, older_than=-60).files if path.startswith(FOLDER)]
    gone = [path for path in gc(folder, keep=1, older_than=-60).files if path.startswith(FOLDER)]
    assert {path.split("/")[2] for path in gone} == {files[2].sha256[:20], "together"}
    assert not folder.list(TOGETHER)  # it may hold values of any of its shards
    found = validate(gristmill.open_dataset(folder), SUITE, result_format={"result_format": "BOOLEAN_ONLY"})
    assert "one pass" not in {each["evaluated"] for each in found.results}


def test_an_erased_value_is_in_no_state(tmp_path: Path):
    rows = [{"id": f"row-{i}", "text": "Zanzibarquokka" if i == 5 else f"text {i}"} for i in range(40)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = {"name": "s", "expectations": [one("column_value_lengths_to_be_between", column="text", max_value=9)]}
    pipeline = {
        "name": "t",
        "id": "id",
        "sources": [{"kind": "jsonl", "path": str(tmp_path / "in.jsonl"), "name": "web"}],
        "output": {"path": str(tmp_path / "out")},
    }
    result = gristmill.run(pipeline, progress="quiet")
    before = validate(result.dataset, suite)
    states = tmp_path / "out" / FOLDER
    holding = lambda: [path for path in states.rglob("*.state") if b"Zanzibarquokka" in path.read_bytes()]  # noqa: E731
    assert not before.success and holding() and list(states.glob("together/*")) == []
    validate(result.dataset, [one("unique", column="text")])
    assert list(states.glob("together/*"))
    erase(result.path, where="id == 'row-5'")
    make_physical(result.path)
    assert not states.exists()
    assert validate(gristmill.open_dataset(result.path), suite).success and not holding()


def everything(rows: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    floats = np.where(rng.random(rows) < 0.01, np.inf, rng.normal(size=rows))
    moments = np.datetime64("2024-01-01", "us") + rng.integers(0, 10**12, rows)
    texts = [f"{number % 900} k\u00f6rper" if number % 7 else " " for number in rng.integers(0, 10**6, rows).tolist()]
    return pa.table(
        {
            "i": rng.integers(0, 10**6, rows),
            "f": pa.array(floats, mask=rng.random(rows) < 0.1),
            "s": texts,
            "t": pa.array(moments).cast(pa.timestamp("us", "Europe/Berlin")),
            "d": pa.array(moments).cast(pa.date32(), safe=False),
            "m": pa.array([decimal.Decimal(number) / 100 for number in rng.integers(0, 10**4, rows).tolist()]),
            "b": rng.random(rows) < 0.5,
            "l": pa.array([[1] * (number % 4) for number in range(rows)], pa.list_(pa.int64())),
            "y": pa.array([bytes([number % 256]) for number in range(rows)]),
            "none": pa.nulls(rows),
        }
    )


def test_a_profile_reads_new_shards_alone_and_is_that_of_a_fresh_one(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Limits, "of", lambda columns: Limits(512, 512))
    folder = open_folder(str(tmp_path / "d"))
    tables = [everything(3000, 1), everything(700, 2), everything(300, 3)]
    schema = tables[0].schema
    files = [shards(folder, each.cast(schema))[0] for each in tables]
    publish(folder, [files[0], files[2]], schema, expected_parent=None)
    profile(gristmill.open_dataset(folder))
    publish(folder, files, schema, expected_parent=1)
    version = gristmill.open_dataset(folder)
    read = read_rows(monkeypatch)
    grown = profile(version)
    assert sum(read) == 700 and grown.rows == 4000
    assert grown.columns["i"].distinct_error and grown.columns["f"].numbers.rank_error
    shutil.rmtree(tmp_path / "d" / FOLDER)
    assert profile(version).to_json_dict() == grown.to_json_dict()
    read.clear()
    assert profile(version).to_json_dict() == grown.to_json_dict() and not read
    exact = np.quantile(np.concatenate([each["i"].to_numpy() for each in tables]), [0.05, 0.5, 0.95], method="lower")
    every = np.sort(np.concatenate([each["i"].to_numpy() for each in tables]))
    for share, value in zip([0.05, 0.5, 0.95], exact, strict=True):
        estimate = grown.columns["i"].numbers.at(share)
        off = abs(np.searchsorted(every, estimate) - np.searchsorted(every, value)) / len(every)
        assert off <= grown.columns["i"].numbers.rank_error + 1e-3


def test_a_dataset_that_may_only_be_read_is_validated(grown, monkeypatch, caplog):
    folder, _ = grown
    shutil.rmtree(Path(folder.base) / FOLDER)

    def refuse(self, path, **named):
        raise InputError(f"no permission to write '{path}'")

    monkeypatch.setattr(Folder, "writer", refuse)
    version = gristmill.open_dataset(folder)
    assert stripped(validate(version, SUITE)) == stripped(validate(version, SUITE, states=False))
    assert "nothing is kept for the next validation" in caplog.text
