"""What is kept of earlier validations is used only where it is sound and means the same, and where it can't be used or kept nothing fails."""

from __future__ import annotations

import datetime as dt
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import gristmill
from gristmill.errors import CorruptDatasetError, InputError, RunError
from gristmill.storage.folder import Folder, open_folder
from gristmill.storage.versions import publish
from gristmill.validators import bundles, distinct, evaluate, states
from gristmill.validators.api import validate
from gristmill.validators.bundles import FOLDER
from gristmill.validators.profile import profile
from tests.validators.helpers import message, one
from tests.validators.test_inputs import stripped
from tests.validators.test_states import read_rows, shards

SUITE = [
    one("unique", column="x"),
    one("column_unique_value_count_to_be_between", column="x", max_value=5),
    one("column_most_common_value_to_be_in_set", column="x", value_set=[1]),
    one("column_median_to_be_between", column="x", max_value=5),
    one("column_sum_to_be_between", column="x", max_value=5),
    one("between", column="x", max_value=5),
]


def dataset(tmp_path: Path, *tables: pa.Table) -> Folder:
    folder = open_folder(str(tmp_path / "d"))
    publish(folder, shards(folder, *tables), tables[0].schema, expected_parent=None)
    return folder


def numbers(*ranges: range) -> list[pa.Table]:
    return [pa.table({"x": np.array(each, np.int64)}) for each in ranges]


def grown(tmp_path: Path, old: pa.Table, new: pa.Table) -> Folder:
    """A dataset that was validated, and has got another shard since."""
    folder = dataset(tmp_path, old)
    validate(gristmill.open_dataset(folder), SUITE)
    files = gristmill.open_dataset(folder).files()
    publish(folder, [*files, *shards(folder, new)], new.schema, expected_parent=1)
    return folder


def test_a_state_is_not_used_where_its_column_has_another_type(tmp_path: Path):
    whole, real = pa.table({"x": [1, 2, 3, 7]}), pa.table({"x": [2.0, 2.5, 7.0]})
    version = gristmill.open_dataset(grown(tmp_path, whole, real))
    found = validate(version, SUITE)
    assert stripped(found) == stripped(validate(version, SUITE, states=False))
    assert found.results[0]["result"]["unexpected_count"] == 4  # 2 and 7 come as integers and as floats


def test_a_date_and_its_text_are_two_values_in_one_suite():
    table = pa.table({"s": ["2024-01-01", "x"]})
    sets = [[dt.date(2024, 1, 1)], ["2024-01-01"], [None, "x"], [float("nan"), "2024-01-01"]]
    each = [one("column_values_to_be_in_set", column="s", value_set=values) for values in sets]
    alone = [validate(table, [suite]).results[0]["result"]["unexpected_count"] for suite in each]
    together = [found["result"]["unexpected_count"] for found in validate(table, each).results]
    assert together == alone == [2, 1, 1, 1]


@pytest.mark.parametrize("small", [0, bundles.SMALL])
def test_states_of_more_shards_than_files_may_be_open(tmp_path: Path, monkeypatch, small):
    monkeypatch.setattr(bundles, "SMALL", small)
    folder = dataset(tmp_path, *numbers(*(range(10 * i, 10 * i + 10) for i in range(60))))
    version = gristmill.open_dataset(folder)
    first = validate(version, SUITE)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        taken = {int(name) for name in os.listdir("/proc/self/fd")}
        free = [number for number in range(len(taken) + 30) if number not in taken]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[29], hard))
        again = validate(version, SUITE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert stripped(again) == stripped(first) and again.results[0]["evaluated"] == "state"


def test_a_damaged_state_is_worked_out_anew(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(bundles, "SMALL", 4096)  # some are mapped, some read
    folder = dataset(tmp_path, *numbers(range(3000), range(2990, 3300)))
    version = gristmill.open_dataset(folder)
    expected, learnt = stripped(validate(version, SUITE, states=False)), profile(version).to_json_dict()
    validate(version, SUITE)
    kept = {path: folder.read_bytes(path) for path, *_ in folder.list(FOLDER)}
    assert len(kept) == 5
    for place in np.linspace(0, 1, 12, endpoint=False):
        for path, content in kept.items():
            at = int(place * len(content))
            folder.write_atomic(path, content[:at] + bytes([content[at] ^ 0x41]) + content[at + 1 :])
        assert stripped(validate(version, SUITE)) == expected
        assert profile(version).to_json_dict() == learnt


def test_a_state_that_was_moved_to_another_shard_is_not_taken_for_that_ones(tmp_path: Path):
    folder = dataset(tmp_path, *numbers(range(300), range(290, 590)))
    version = gristmill.open_dataset(folder)
    expected, learnt = stripped(validate(version, SUITE)), profile(version).to_json_dict()
    assert expected == stripped(validate(version, SUITE, states=False))
    one, other = sorted(path for path in Path(folder.url(FOLDER)).iterdir() if path.name != Path(states.TOGETHER).name)
    one.rename(one.with_suffix(".moved"))
    other.rename(one)
    one.with_suffix(".moved").rename(other)
    shutil.rmtree(folder.url(states.TOGETHER))
    assert stripped(validate(version, SUITE)) == expected and profile(version).to_json_dict() == learnt


def test_a_damaged_page_fails_what_needs_it_and_leaves_no_state(tmp_path: Path):
    folder = dataset(
        tmp_path, pa.table({"x": np.random.default_rng(1).normal(size=1000)})
    )  # nothing that can be compressed
    version = gristmill.open_dataset(folder)
    path = Path(folder.url(version.files()[0].path))
    content = path.read_bytes()
    for at in range(200, 260, 10):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        found = validate(version, SUITE)
        assert not any(each["success"] for each in found.results)
        assert all(version.files()[0].path in message(each) for each in found.results)
    path.write_bytes(content)
    assert stripped(validate(version, SUITE)) == stripped(validate(version, SUITE, states=False))


def test_another_file_in_the_place_of_a_shard_is_not_judged(tmp_path: Path):
    good, bad = numbers(range(5), range(500, 900))
    folder = dataset(tmp_path, bad)
    (other,) = shards(folder, good)
    version = gristmill.open_dataset(folder)
    place = Path(folder.url(version.files()[0].path))
    content = place.read_bytes()
    place.write_bytes(Path(folder.url(other.path)).read_bytes())
    with pytest.raises(CorruptDatasetError, match=r"5 rows in .* bytes, expected 400 in"):
        validate(version, SUITE)
    place.write_bytes(content)
    assert not validate(version, SUITE).success


@pytest.mark.parametrize(
    "condition", [None, {"type": "comparison", "column": {"name": "y"}, "operator": "==", "parameter": 1}]
)
@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 10**9 + 7, 2 * 10**9 + 1], pa.timestamp("ns", "Europe/Berlin")),
        pa.array([5, 0, 2**64 - 1], pa.uint64()),
        pa.array([-(2**63), 2**63 - 1, 0], pa.int64()),
    ],
    ids=["nanoseconds", "unsigned", "signed"],
)
def test_extremes_are_kept_to_the_last_digit(tmp_path: Path, values, condition):
    tables = [pa.table({"x": values.slice(at), "y": [1] * (3 - at)}) for at in (0, 1)]
    limit = "2020-01-01T00:00:00+00:00" if pa.types.is_timestamp(values.type) else 7
    suite = [
        one("column_max_to_be_between", column="x", max_value=limit, row_condition=condition),
        one("column_min_to_be_between", column="x", max_value=limit, row_condition=condition),
    ]
    folder = dataset(tmp_path, *tables)
    version = gristmill.open_dataset(folder)
    expected = stripped(validate(version, suite, states=False))
    assert stripped(validate(version, suite)) == expected
    found = validate(version, suite)
    assert stripped(found) == expected and {each["evaluated"] for each in found.results} == {"state"}


@pytest.mark.parametrize("form", ["BOOLEAN_ONLY", "COMPLETE"])
def test_a_shard_whose_states_are_kept_must_still_be_there(tmp_path: Path, form):
    old, new = numbers(range(400), range(1000, 1005))
    folder = grown(tmp_path, old, new)
    place, other = (Path(folder.url(each.path)) for each in gristmill.open_dataset(folder).files())
    content = place.read_bytes()
    for wrong, text in (
        (None, "is missing"),
        (content[:-10], "not a readable Parquet file"),
        (other.read_bytes(), "5 rows in .* bytes, expected 400"),
    ):
        place.unlink()
        if wrong is not None:
            place.write_bytes(wrong)
        with pytest.raises(CorruptDatasetError, match=text):
            validate(gristmill.open_dataset(folder), SUITE, result_format=form)
        place.write_bytes(content)
    version = gristmill.open_dataset(folder)
    assert stripped(validate(version, SUITE)) == stripped(validate(version, SUITE, states=False))


@pytest.mark.parametrize("error", [InputError("no permission"), RunError("no space left"), OSError(5, "I/O error")])
def test_what_cant_be_kept_or_removed_fails_no_validation(tmp_path: Path, monkeypatch, caplog, error):
    folder = dataset(tmp_path, *numbers(range(100), range(200)))
    version = gristmill.open_dataset(folder)
    expected = stripped(validate(version, SUITE, states=False))

    def refuse(self, *given, **named):
        raise error

    monkeypatch.setattr(states, "KEPT", 0)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "delete", refuse)
        assert stripped(validate(version, SUITE)) == expected
    assert "can't be removed" in caplog.text
    caplog.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "list", refuse)
        patch.setattr(Folder, "writer", refuse)
        assert stripped(validate(version, SUITE)) == expected
        assert "can't be used" in caplog.text and caplog.text.count("nothing is kept") == 1
        caplog.clear()
        assert profile(version).rows == 300
        assert caplog.text.count("nothing is kept") == 1


def test_a_file_that_another_process_is_writing_is_left_alone(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(states, "KEPT", 1)
    folder = dataset(tmp_path, *numbers(range(100)))
    place = Path(folder.url(states.TOGETHER))
    place.mkdir(parents=True)
    (place / ".tmp-elsewhere-1-x").write_bytes(b"half")
    os.utime(place / ".tmp-elsewhere-1-x", (1, 1))
    for suite in (SUITE[:1], SUITE[:2]):
        validate(gristmill.open_dataset(folder), suite)
    assert sorted(path.suffix == ".state" for path in place.iterdir()) == [False, True]


def test_new_rows_are_looked_up_so_many_at_a_time_as_the_memory_allows(tmp_path: Path, monkeypatch):
    old, new = numbers(range(40_000), range(35_000, 44_000))
    version = gristmill.open_dataset(grown(tmp_path, old, new))
    sizes, whole = [], distinct.Index
    monkeypatch.setattr(distinct, "Index", lambda hashes: sizes.append(len(hashes)) or whole(hashes))
    read = read_rows(monkeypatch)
    memory = 1000 * distinct.WORKING
    found = validate(version, SUITE, memory=memory, result_format="BOOLEAN_ONLY")
    assert read and 40_000 not in read
    assert sum(sizes) == 9000 and max(sizes) < 1500
    assert len(found.bad_row_numbers(failed_only=False)) == 44_000 - 6 + 5000
    monkeypatch.undo()
    assert stripped(validate(version, SUITE)) == stripped(validate(version, SUITE, states=False))


def test_states_are_kept_one_at_a_time(tmp_path: Path, monkeypatch):
    order, save, place = [], distinct.Distinct.save, bundles._as_array

    def saved(self, first):
        order.append("saved")
        return save(self, first)

    monkeypatch.setattr(distinct.Distinct, "save", saved)
    monkeypatch.setattr(bundles, "_as_array", lambda value: order.append("written") or place(value))
    folder = dataset(tmp_path, *numbers(range(100)))
    validate(gristmill.open_dataset(folder), SUITE[:3])
    assert (
        order.count("saved") == 2 and "written" in order[order.index("saved") : len(order) - order[::-1].index("saved")]
    )


def test_states_that_were_read_count_as_memory(tmp_path: Path, monkeypatch):
    tables = numbers(range(3000), range(2000, 5000), range(9000, 9500))
    folder = dataset(tmp_path, *tables)
    version = gristmill.open_dataset(folder)
    expected = stripped(validate(version, SUITE))
    held, merge = [], evaluate._merge_shards

    def merged(data, shards, ready, *given):
        held.append(sum(state._held for some in ready.values() for state in some.values() if hasattr(state, "_held")))
        return merge(data, shards, ready, *given)

    monkeypatch.setattr(evaluate, "_merge_shards", merged)
    monkeypatch.setattr(bundles, "SMALL", 1 << 30)  # as from an object store
    again = validate(version, SUITE, memory=20_000)
    assert stripped(again) == expected and held and max(held) <= 20_000


def test_states_in_an_object_store(s3_folder: Folder):
    tables = numbers(range(9000), range(8990, 9300))
    files = shards(s3_folder, *tables)
    publish(s3_folder, files[:1], tables[0].schema, expected_parent=None)
    validate(gristmill.open_dataset(s3_folder), SUITE)
    publish(s3_folder, files, tables[0].schema, expected_parent=1)
    version = gristmill.open_dataset(s3_folder)
    expected, learnt = stripped(validate(version, SUITE, states=False)), profile(version).to_json_dict()
    for memory in (1, 1 << 28):
        found = validate(version, SUITE, memory=memory)
        assert stripped(found) == expected
    assert {each["evaluated"] for each in found.results} == {"state"}
    assert profile(version).to_json_dict() == learnt
