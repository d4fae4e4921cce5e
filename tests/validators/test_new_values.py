"""The values of a new shard beside those that are kept: told by filters, looked up where they may be, and always exact."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import gristmill
from gristmill.errors import TaintedVersionError
from gristmill.pipelines.erase import erase, make_physical
from gristmill.storage.dataset import Dataset
from gristmill.storage.folder import Folder, open_folder
from gristmill.storage.versions import publish
from gristmill.validators import bundles, checked, distinct, ordered, report, states
from gristmill.validators.api import validate
from gristmill.validators.bundles import FOLDER, Bundle
from gristmill.validators.gate import judge
from gristmill.validators.inputs import Data
from gristmill.validators.profile import profile
from gristmill.validators.states import KEPT, TOGETHER
from tests.validators.helpers import one
from tests.validators.test_inputs import stripped
from tests.validators.test_states import read_rows, shards

SUITE = [
    one("unique", column="id"),
    one("compound_columns_to_be_unique", column_list=["id", "text"]),
    one("column_unique_value_count_to_be_between", column="text", max_value=5),
    one("column_most_common_value_to_be_in_set", column="id", value_set=[1]),
    one("column_median_to_be_between", column="id", max_value=5),
    one("column_values_to_be_increasing", column="id"),
    one("not_null", column="id"),
]
COMPLETE = {"result_format": "COMPLETE"}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Few values have filters too, and small files are mapped."""
    monkeypatch.setattr(distinct, "FILTERED", 10)
    monkeypatch.setattr(bundles, "SMALL", 0)


def rows(*ids) -> pa.Table:
    """Rows with these ids, None among them."""
    numbers = pa.array([each for part in ids for each in part], pa.int64())
    return pa.table({"id": numbers, "text": pa.array([f"text {each}" for each in numbers.to_pylist()])})


class Grown:
    """A dataset whose versions are made of tables by their numbers."""

    def __init__(self, place: Path | Folder, *tables: pa.Table) -> None:
        self.folder = place if isinstance(place, Folder) else open_folder(str(place / "d"))
        self.files = [shards(self.folder, each)[0] for each in tables]
        self.schema = tables[0].schema
        self.versions = 0

    def version(self, *numbers: int):
        files = [self.files[number] for number in numbers]
        publish(self.folder, files, self.schema, expected_parent=self.versions or None)
        self.versions += 1
        return gristmill.open_dataset(self.folder)

    def together(self) -> list[Bundle]:
        return [Bundle(self.folder, path) for path, *_ in self.folder.list(TOGETHER)]


def fresh(version, **options):
    return stripped(validate(version, SUITE, result_format=COMPLETE, states=False, **options))


def kept(version, **options):
    return stripped(validate(version, SUITE, result_format=COMPLETE, **options))


def looked_at(monkeypatch) -> list[int]:
    """The rows of each kept array of hashes that are looked at."""
    seen, whole = [], checked.Checked.__getitem__

    def spied(self, at):
        found = whole(self, at)
        seen.extend([len(found)] if self.dtype == np.uint64 else [])
        return found

    monkeypatch.setattr(checked.Checked, "__getitem__", spied)
    return seen


def test_new_values_are_looked_for_in_few_of_the_kept_ones(tmp_path: Path, monkeypatch):
    parts = [range(start, start + 5000) for start in range(0, 40_000, 5000)]
    new = range(50_000, 50_300)
    grown = Grown(tmp_path, *(rows(part) for part in parts), rows(new), rows(new, [7, 22_222, 39_999, None]))
    kept(grown.version(*range(8)))
    version = grown.version(*range(9))
    expected = fresh(version)
    seen = looked_at(monkeypatch)
    assert kept(version) == expected
    assert not seen  # the filters tell that all are new
    version = grown.version(*range(8), 9)
    seen.clear()
    found = validate(version, SUITE, result_format=COMPLETE)
    assert stripped(found) == fresh(version)
    assert found.results[0]["result"]["unexpected_index_list"] == [7, 22_222, 39_999, *range(40_300, 40_303)]
    assert 3 * 8 < sum(seen) < 3 * 40_000 / 10


@pytest.mark.parametrize(
    "numbers",
    [(0, 1, 2, 3), (3, 0, 1, 2), (0, 3, 1, 2), (0, 2, 3), (2, 1, 0, 3), (1, 2, 3), (3,), (0, 1, 2, 4), (0, 1, 2, 3, 4)],
)
@pytest.mark.parametrize("memory", [1, 1 << 28])
def test_shards_added_moved_and_removed(tmp_path: Path, numbers, memory):
    tables = [rows(range(900), [5]), rows(range(850, 1500)), rows(range(2000, 2400), [None]), rows([3, 1499, 9, 9])]
    grown = Grown(tmp_path, *tables, rows(range(1490, 1600), [2000]))
    kept(grown.version(0, 1, 2), memory=memory)
    version = grown.version(*numbers)
    assert kept(version, memory=memory) == fresh(version)
    assert kept(version, memory=memory) == fresh(version)


def test_filters_are_extended_and_at_last_made_anew(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(distinct, "FILTERS", 3)
    parts = [range(start, start + 2000) for start in range(0, 8000, 2000)]
    tables = [rows(part) for part in parts] + [rows(range(9000 + 50 * i, 9051 + 50 * i), [i]) for i in range(9)]
    grown = Grown(tmp_path, *tables)
    lengths = []
    for more in range(10):
        version = grown.version(*range(4 + more))
        assert kept(version) == fresh(version)
        newest = max(grown.together(), key=lambda bundle: len(bundle.facts["shards"]))
        (earlier,) = {
            len(newest.plain(name)["earlier"]) for name in newest.names if "earlier" in newest.plain(name)
        } or {0}
        lengths.append(earlier)
        assert len(grown.together()) <= KEPT + 3
    assert lengths == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]


def test_no_file_of_another_shard_is_opened(tmp_path: Path, monkeypatch):
    grown = Grown(tmp_path, *(rows(range(100 * i, 100 * i + 100)) for i in range(5)))
    form = {"result_format": "BOOLEAN_ONLY"}
    suite = [each for each in SUITE if "common" not in each["type"]]  # a value that is shown is read
    suite.append(one("column_max_to_be_between", column="id", max_value=5))  # footers say it the first time
    validate(grown.version(0, 1, 2, 3), suite, result_format=form)
    version = grown.version(0, 1, 2, 3, 4)
    opened, state, file = [], bundles.Bundle.__init__, Dataset.open_file
    monkeypatch.setattr(
        bundles.Bundle, "__init__", lambda self, folder, path: opened.append(path) or state(self, folder, path)
    )
    monkeypatch.setattr(
        Dataset, "open_file", lambda self, entry, **how: opened.append(entry) or file(self, entry, **how)
    )
    found = validate(version, suite, result_format=form)
    assert {each for each in opened if not str(each).startswith(TOGETHER)} == {version.files()[4]}
    assert stripped(found) == stripped(validate(version, suite, result_format=form, states=False))


@pytest.mark.parametrize("new", [[0, 1, 2] * 40, range(9000, 9120), [1499, 1500] * 60, [4]])
def test_a_rank_beyond_what_is_kept_about_it_is_looked_for_in_all_values(tmp_path: Path, monkeypatch, new):
    monkeypatch.setattr(ordered, "REACH", 20)
    quantiles = {"quantiles": [0.0, 0.1, 0.5, 1.0], "value_ranges": [[None, None]] * 4}
    suite = [
        one("column_quantile_values_to_be_between", column="id", quantile_ranges=quantiles),
        one("column_median_to_be_between", column="id", max_value=5),
    ]
    rng = np.random.default_rng(1)
    tables = [rows(rng.integers(0, 3000, 1500).tolist(), [7] * 600), rows(rng.integers(0, 3000, 800).tolist())]
    grown = Grown(tmp_path, *tables, rows(new), rows(range(100, 140)))
    for numbers in ((0, 1), (0, 1, 2), (0, 3, 1, 2)):
        version = grown.version(*numbers)
        expected = stripped(validate(version, suite, states=False))
        assert stripped(validate(version, suite)) == expected
        assert stripped(validate(version, suite)) == expected


def test_what_was_concluded_about_states_that_are_gone_is_not_relied_on(tmp_path: Path, monkeypatch):
    grown = Grown(tmp_path, rows(range(3000)), rows(range(3000, 3500)), rows([17, 3001, 9000]))
    kept(grown.version(0, 1))
    for path, *_ in grown.folder.list(f"{FOLDER}/{grown.files[1].sha256[:20]}"):
        grown.folder.delete(path)
    version = grown.version(0, 1, 2)
    expected = fresh(version)
    read = read_rows(monkeypatch)
    assert kept(version) == expected
    assert 500 in read and 3000 not in read  # 17 and 3001 must be looked for among the values themselves


def test_the_first_of_equal_values_is_shown_wherever_it_was_met(tmp_path: Path):
    old = pa.table({"x": [-0.0] * 3 + [float(each) for each in range(1, 60)]})
    suite = [one("column_most_common_value_to_be_in_set", column="x", value_set=[1])]
    grown = Grown(tmp_path, old, pa.table({"x": [0.0, 0.0]}))
    validate(grown.version(0), suite)
    version = grown.version(0, 1)
    assert [
        repr(found.results[0]["result"]["observed_value"])
        for found in (validate(version, suite), validate(version, suite, states=False))
    ] == ["[-0.0]"] * 2


def test_few_values_of_many_rows_are_put_together_some_at_a_time(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(distinct, "FILTERED", 1 << 16)
    monkeypatch.setattr(distinct, "GROUPED", 64)
    sizes, whole, conclude = [], distinct.group, distinct.Distinct.conclude

    def concluded(self, threads):
        with monkeypatch.context() as patch:
            patch.setattr(distinct, "group", lambda hashes: sizes.append(len(hashes)) or whole(hashes))
            return conclude(self, threads)

    monkeypatch.setattr(distinct.Distinct, "conclude", concluded)
    grown = Grown(tmp_path, *(rows(range(1000 + i)) for i in range(6)))
    version = grown.version(*range(6))
    validate(version, SUITE[3:4], memory=1)
    assert sum(sizes) == 6015 and max(sizes) < 300
    assert kept(version) == fresh(version)
    fewer = grown.version(*range(5))
    assert kept(fewer) == fresh(fewer)


def test_a_filter_that_is_gone_is_done_without(tmp_path: Path):
    grown = Grown(tmp_path, rows(range(3000)), rows(range(4000, 4100)), rows([5, 4001, 9000]), rows(range(4090, 4200)))
    kept(grown.version(0))
    first = {path for path, *_ in grown.folder.list(TOGETHER)}
    kept(grown.version(0, 1))
    for path in first:
        grown.folder.delete(path)
    for numbers in ((0, 1, 2), (0, 1, 2, 3)):
        version = grown.version(*numbers)
        assert kept(version) == fresh(version)
    assert any(not bundle.plain(name).get("extends", True) for bundle in grown.together() for name in bundle.names)


def test_a_filter_that_was_made_anew_and_tells_less_is_done_without(tmp_path: Path):
    grown = Grown(tmp_path, rows(range(3000)), rows(range(3000, 3500)), rows(range(3500, 3600)), rows([17, 3001, 9000]))
    both = grown.version(0, 1)
    kept(both)
    first = {path for path, *_ in grown.folder.list(TOGETHER)}
    kept(grown.version(0, 1, 2))
    kept(grown.version(0))
    for path in first:
        grown.folder.delete(path)
    kept(both)
    remade = {path for path, *_ in grown.folder.list(TOGETHER)}
    assert first <= remade  # under the same name, but it extends that of shard 0
    version = grown.version(0, 1, 2, 3)
    assert kept(version) == fresh(version)


def test_conclusions_that_new_shards_add_nothing_to_are_bounded_too(tmp_path: Path):
    few = {"type": "comparison", "column": {"name": "id"}, "operator": "<", "parameter": 900}
    suite = [one("unique", column="id", row_condition=few)]
    grown = Grown(tmp_path, rows(range(900)), *(rows(range(1000 + 20 * i, 1020 + 20 * i)) for i in range(16)))
    for count in range(1, 18):
        version = grown.version(*range(count))
        assert stripped(validate(version, suite)) == stripped(validate(version, suite, states=False))
        assert len(grown.together()) <= KEPT + distinct.FILTERS


def test_damage_is_found_where_it_matters_and_mended(tmp_path: Path):
    grown = Grown(tmp_path, rows(range(3000), [None]), rows(range(2990, 3300)), rows(range(3290, 3400), [17]))
    kept(grown.version(0, 1))
    sound = {path: grown.folder.read_bytes(path) for path, *_ in grown.folder.list(FOLDER)}
    version = grown.version(0, 1, 2)
    expected = fresh(version)
    for place in np.linspace(0, 1, 12, endpoint=False):
        for path, content in sound.items():
            at = int(place * len(content))
            grown.folder.write_atomic(path, content[:at] + bytes([content[at] ^ 0x41]) + content[at + 1 :])
        assert kept(version) == expected
        assert kept(version) == expected
        for path, *_ in grown.folder.list(FOLDER):
            grown.folder.delete(path)
    kept(version)


def test_of_a_damaged_state_only_its_shard_is_read_again(tmp_path: Path, monkeypatch):
    grown = Grown(tmp_path, rows(range(3000)), rows(range(5000, 7000)), rows([7, 9000]))
    validate(grown.version(0, 1), SUITE[:1])
    (path,) = [path for path, *_ in grown.folder.list(f"{FOLDER}/{grown.files[1].sha256[:20]}")]
    content = grown.folder.read_bytes(path)
    half = len(content) // 3
    grown.folder.write_atomic(path, content[:half] + bytes(100) + content[half + 100 :])
    for together, *_ in grown.folder.list(TOGETHER):
        grown.folder.delete(together)
    version = grown.version(0, 1, 2)
    read = read_rows(monkeypatch)
    validate(version, SUITE[:1], result_format="BOOLEAN_ONLY")
    assert 2000 in read and 3000 not in read
    assert grown.folder.exists(path)


def test_damage_in_a_dataset_that_may_only_be_read(tmp_path: Path, monkeypatch):
    grown = Grown(tmp_path, rows(range(3000)), rows(range(2990, 3300)))
    kept(grown.version(0))
    (path,) = [path for path, *_ in grown.folder.list(FOLDER) if not path.startswith(TOGETHER)]
    content = grown.folder.read_bytes(path)
    half = len(content) // 3
    grown.folder.write_atomic(path, content[:half] + bytes(100) + content[half + 100 :])
    version = grown.version(0, 1)
    expected = fresh(version)

    def refuse(self, *given, **named):
        raise PermissionError("may only be read")

    monkeypatch.setattr(Folder, "delete", refuse)
    monkeypatch.setattr(Folder, "writer", refuse)
    assert kept(version) == expected


def test_filters_from_an_object_store_count_as_memory(s3_folder: Folder):
    grown = Grown(s3_folder, rows(range(3000)), rows(range(2990, 3300)), rows([0, 1, 3299, 5000]))
    for numbers in ((0,), (0, 1), (0, 1, 2)):
        version = grown.version(*numbers)
        expected = fresh(version)
        for memory in (1, 1 << 28):
            assert kept(version, memory=memory) == expected
            for path, *_ in s3_folder.list(TOGETHER) if memory == 1 and len(numbers) == 3 else ():
                s3_folder.delete(path)


def test_states_of_several_shards_are_those_of_their_rows(tmp_path: Path, monkeypatch):
    grown = Grown(tmp_path, rows(range(300), [None]), rows(range(290, 600)), rows([None, 5]), rows([6, 1]))
    suite = [each for each in SUITE if not any(name in each["type"] for name in ("uniq", "common", "median"))]
    form = {"result_format": "BOOLEAN_ONLY"}
    validate(grown.version(0, 1, 2), suite, result_format=form)
    opened, whole = [], bundles.Bundle.__init__
    monkeypatch.setattr(
        bundles.Bundle, "__init__", lambda self, folder, path: opened.append(path) or whole(self, folder, path)
    )
    for numbers in ((0, 1, 2, 3), (3, 0, 1, 2), (0, 3, 1, 2)):
        opened.clear()
        version = grown.version(*numbers)
        found = validate(version, suite, result_format=form)
        assert stripped(validate(version, suite)) == stripped(validate(version, suite, states=False))
        assert (
            found.bad_row_numbers(failed_only=False).to_numpy().tolist()
            == validate(version, suite, states=False).bad_row_numbers(failed_only=False).to_numpy().tolist()
        )
        if numbers[1] != 3:
            mine = {f"{FOLDER}/{grown.files[number].sha256[:20]}" for number in (0, 1, 2)}
            assert not {path.rpartition("/")[0] for path in opened} & mine  # they follow each other here too


def with_a_row_to_erase(tmp_path: Path) -> str:
    """A dataset of 40 rows, of which row-5 is erased by `erase_it`."""
    lines = [{"id": f"row-{i}", "text": "Zanzibarquokka" if i == 5 else f"text {i}"} for i in range(40)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    place = str(tmp_path / "out")
    pipeline = {
        "name": "t",
        "id": "id",
        "sources": [{"kind": "jsonl", "path": str(tmp_path / "in.jsonl"), "name": "web"}],
        "output": {"path": place},
    }
    gristmill.run(pipeline, progress="quiet")
    return place


def erase_it(place: str) -> None:
    if not Path(place, "erased").exists():
        erase(place, where="id == 'row-5'")
        make_physical(place)


@pytest.mark.parametrize("how", ["validate", "profile"])
def test_a_validation_that_an_erasure_overtakes_keeps_nothing(tmp_path: Path, monkeypatch, how):
    place = with_a_row_to_erase(tmp_path)
    read = Data.read

    def erased(self, piece, columns):
        found = list(read(self, piece, columns))
        erase_it(place)
        return iter(found)

    monkeypatch.setattr(Data, "read", erased)
    version = gristmill.open_dataset(place)
    if how == "profile":
        assert profile(version).rows == 40
    else:
        suite = [one("column_value_lengths_to_be_between", column="text", max_value=3), one("unique", column="text")]
        assert validate(version, suite, result_format={"result_format": "BOOLEAN_ONLY"}).num_rows == 40
    left = [path for path in Path(place, FOLDER).rglob("*") if path.is_file()]
    assert left == []
    now = gristmill.open_dataset(place)
    validate(now, [one("unique", column="text")])
    assert [path for path in Path(place, FOLDER).rglob("*.state")]


def test_a_verdict_that_an_erasure_overtakes_is_not_kept(tmp_path: Path, monkeypatch):
    place = with_a_row_to_erase(tmp_path)
    suite = [one("column_value_lengths_to_be_between", column="text", max_value=9)]
    rendered, render = [], report.render

    def erased(facts):
        erase_it(place)
        rendered.append(render(facts))
        return rendered[0]

    monkeypatch.setattr(report, "render", erased)
    with pytest.raises(TaintedVersionError, match=r"erased.* while it was judged.*validate a newer version"):
        judge(gristmill.open_dataset(place), suite)
    assert "Zanzibarquokka" in rendered[0]
    assert not [path for path in Path(place).rglob("*") if path.name in ("validation.html", "bad_rows.parquet")]
    assert not open_folder(place).list("verdicts")
    assert judge(gristmill.open_dataset(place), suite).success


def test_what_several_versions_share_is_kept_once(tmp_path: Path):
    grown = Grown(tmp_path, *(rows(range(100 * i, 100 * i + 100)) for i in range(KEPT + 4)))
    for count in range(2, KEPT + 4):
        kept(grown.version(*range(count)))
    names = {name for bundle in grown.together() for name in bundle.names}
    assert len(grown.together()) <= KEPT + distinct.FILTERS and len(names) <= 2 * len(SUITE)
    assert states.KEPT < len(grown.together())  # those that are extended stay too
