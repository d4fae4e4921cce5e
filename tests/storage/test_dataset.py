"""Datasets opened: what they hold, what isn't there, rollback, diff, other libraries' frames."""

from __future__ import annotations

import os
import json
import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.errors import (
    ColumnError,
    CorruptDatasetError,
    DatasetError,
    DatasetNotFoundError,
    NotADatasetError,
    TaintedVersionError,
    UsageError,
)
from gristmill.storage.dataset import open_dataset, tainted_path
from gristmill.storage.folder import Folder, open_folder
from gristmill.storage.versions import manifest_path, publish, version_numbers

from .conftest import names, rows, shards

SCHEMA = rows(1).schema


def put(folder: Folder, parts: dict[str | None, pa.Table], **facts: object) -> None:
    entries = [entry for split, table in parts.items() for entry in shards(folder, table, split=split)]
    numbers = version_numbers(folder)
    publish(folder, entries, SCHEMA, expected_parent=numbers[-1] if numbers else None, **facts)  # type: ignore[arg-type]


def test_an_opened_version(folder: Folder) -> None:
    put(
        folder,
        {"train": rows(300), "test": rows(30, start=300)},
        splits=["train", "validation", "test"],
        counts={"read": 330},
    )
    found = open_dataset(folder.base, options=folder.options)
    assert (found.version, found.num_rows, found.path) == (1, 330, folder.base)
    assert list(found.splits.items()) == [("train", 300), ("validation", 0), ("test", 30)]
    assert found.schema.equals(SCHEMA) and len(found.fingerprint) == 32 and len(found.layout) == 64
    assert found.to_table().equals(rows(330))
    assert found.to_table("test", ["x", "_uid"]).equals(rows(30, start=300).select(["x", "_uid"]))
    assert found.to_table("validation").num_rows == 0 and found.to_table("test", []).num_columns == 0
    assert [entry.split for entry in found.files()] == ["train", "test"] and len(found.files("train")) == 1
    assert repr(found) == f"Dataset({folder.base!r}, version=1, rows=330, splits: train 300, validation 0, test 30)"
    assert pickle.loads(pickle.dumps(found)).to_table().equals(rows(330))
    assert found.verdicts == []
    verdict = {"success": True, "fingerprint": found.fingerprint, "suite_hash": "abc"}
    folder.create(f"verdicts/{found.fingerprint}/abc.json", json.dumps(verdict).encode())
    assert found.verdicts == [verdict]


def test_the_fingerprint_is_free_of_files_and_order_and_knows_splits(folder: Folder) -> None:
    put(folder, {"train": rows(100), "test": rows(10, start=100)})
    first = open_dataset(folder)
    entries = (
        shards(folder, rows(50, start=50), split="train", group=7)
        + shards(folder, rows(10, start=100), split="test")
        + shards(folder, rows(50), split="train")
    )
    publish(folder, entries, SCHEMA, expected_parent=1)
    second = open_dataset(folder)
    assert (second.version, second.fingerprint) == (2, first.fingerprint) and second.layout != first.layout
    put(folder, {"train": rows(10, start=100), "test": rows(100)})
    assert open_dataset(folder).fingerprint != first.fingerprint


def test_versions_by_number(folder: Folder) -> None:
    for i in (1, 2, 3):
        put(folder, {None: rows(i)})
    assert [open_dataset(f"{folder.base}@{i}", options=folder.options).num_rows for i in (1, 2, 3)] == [1, 2, 3]
    assert (
        open_dataset(folder, version=2).num_rows == 2
        and open_dataset(f"{folder.base}@2", 2, folder.options).num_rows == 2
    )
    for version in (0, 4, -1):
        with pytest.raises(DatasetNotFoundError, match=f"no version {version}; versions: 3, 2, 1"):
            open_dataset(folder, version=version)
    with pytest.raises(UsageError, match="names version 2, but version=3"):
        open_dataset(f"{folder.base}@2", 3, folder.options)
    assert [entry["num_rows"] for entry in open_dataset(folder, 1).history()] == [3, 2, 1]


def test_what_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(open_folder(tmp_path / "docs"), {None: rows(1)})
    monkeypatch.chdir(tmp_path)
    assert open_dataset("docs").num_rows == 1
    with pytest.raises(DatasetNotFoundError, match="no dataset at '.*/dosc'. Did you mean 'docs'?"):
        open_dataset("dosc")
    with pytest.raises(DatasetNotFoundError, match="There is no folder '.*/shards'"):
        open_dataset("shards/docs")
    (tmp_path / "other").mkdir()
    with pytest.raises(NotADatasetError, match="not a gristmill dataset: it has no manifests/"):
        open_dataset("other")
    (tmp_path / "other" / "_work").mkdir()
    with pytest.raises(DatasetNotFoundError, match="no published version yet; run its pipeline"):
        open_dataset("other")
    (tmp_path / "file.parquet").write_bytes(b"")
    with pytest.raises(NotADatasetError):
        open_dataset("file.parquet")


def test_what_is_not_there_is_told_on_s3(s3_folder: Folder) -> None:
    with pytest.raises(DatasetNotFoundError, match="no dataset at 's3://bucket-"):
        open_dataset(s3_folder)
    s3_folder.write_atomic("readme.txt", b"mine")
    with pytest.raises(NotADatasetError):
        open_dataset(s3_folder)


def test_a_damaged_file_is_named(folder: Folder) -> None:
    put(folder, {None: rows(300)})
    found = open_dataset(folder)
    path = found.files()[0].path
    content = bytearray(folder.read_bytes(path))
    content[len(content) // 3] ^= 0xFF
    folder.write_atomic(path, bytes(content))
    with pytest.raises(CorruptDatasetError, match="is damaged .*`gristmill verify` lists all"):
        found.to_table()


def test_names_that_are_wrong_are_told(folder: Folder) -> None:
    put(folder, {"train": rows(3)})
    found = open_dataset(folder)
    with pytest.raises(UsageError, match=r"@1 has no split 'trian'. Did you mean 'train'?"):
        found.to_table("trian")
    with pytest.raises(ColumnError, match=r"@1: no column 'txt'. Did you mean 'text'?"):
        found.to_table(columns=["txt"])
    put(folder, {None: rows(3)})
    with pytest.raises(UsageError, match="It has no splits: leave split out"):
        open_dataset(folder).files("train")


def test_newer_broken_and_tainted_versions_are_refused(folder: Folder) -> None:
    put(folder, {None: rows(3)})
    folder.create(
        manifest_path(2), folder.read_bytes(manifest_path(1)).replace(b'"format_version": 1', b'"format_version": 9')
    )
    with pytest.raises(DatasetError, match="format version 9.*install a newer gristmill"):
        open_dataset(folder)
    assert open_dataset(folder, 1).num_rows == 3
    folder.write_atomic(manifest_path(2), b"{")
    with pytest.raises(CorruptDatasetError):
        open_dataset(folder)
    folder.delete(manifest_path(2))
    put(folder, {None: rows(4)})
    folder.create(tainted_path(1), b"")
    with pytest.raises(TaintedVersionError, match="version 1 holds rows that were erased since"):
        open_dataset(folder, 1)
    with pytest.raises(TaintedVersionError):
        open_dataset(folder).rollback(1)
    assert open_dataset(folder).num_rows == 4


def test_a_missing_shard_is_named_on_reading(folder: Folder) -> None:
    put(folder, {None: rows(3)})
    found = open_dataset(folder)
    folder.delete(found.files()[0].path)
    with pytest.raises(CorruptDatasetError, match=r"\.parquet' is missing; `gristmill verify`"):
        found.to_table()


def test_rollback_makes_a_new_version(folder: Folder) -> None:
    put(folder, {None: rows(3)}, counts={"read": 3})
    put(folder, {None: rows(4)})
    data = folder.list("data")
    back = open_dataset(folder).rollback(1)
    assert (back.version, back.num_rows, back.manifest.parent, back.manifest.counts) == (3, 3, 2, {"read": 3})
    assert open_dataset(folder).version == 3 and back.verify() == [] and folder.list("data") == data
    assert (back.fingerprint, back.layout) == (open_dataset(folder, 1).fingerprint, open_dataset(folder, 1).layout)
    assert back.rollback(1).version == 3
    with pytest.raises(DatasetNotFoundError, match="no version 8"):
        back.rollback(8)


def test_diff_counts_rows_by_uid(folder: Folder) -> None:
    put(folder, {"train": rows(100), "test": rows(20, start=100)})
    changed = pa.concat_tables(
        [rows(10, start=5, mark="new "), rows(85, start=15), rows(5, start=100), rows(3, start=200)]
    )
    put(folder, {"train": changed, "test": rows(15, start=105)})
    old, new = open_dataset(folder, 1), open_dataset(folder, 2)
    texts = sum(i % 7 > 0 for i in range(5, 15))
    assert old.diff(new).rows == {"before": 120, "after": 118, "added": 3, "removed": 5, "changed": texts, "moved": 5}
    assert old.diff(new).examples["removed"] == [f"u000000{i}" for i in range(5)]
    assert old.diff(old).same_content and old.diff(old).rows["changed"] == 0
    wider = rows(100).append_column("y", pa.nulls(100)).drop_columns("x")
    publish(folder, shards(folder, wider), wider.schema, expected_parent=2)
    difference = old.diff(open_dataset(folder))
    assert difference.schema == {"added": ["y"], "removed": ["x"], "retyped": []}
    assert (difference.rows["changed"], difference.rows["moved"], difference.rows["removed"]) == (0, 100, 20)


def test_diff_needs_uids(folder: Folder) -> None:
    table = rows(3).select(["x"])
    publish(folder, shards(folder, table), table.schema, expected_parent=None)
    with pytest.raises(ColumnError, match="no column '_uid'"):
        open_dataset(folder).diff(open_dataset(folder))


def test_other_libraries_get_the_same_rows(folder: Folder) -> None:
    put(folder, {"train": rows(30), "test": rows(5, start=30)})
    found = open_dataset(folder)
    pandas = pytest.importorskip("pandas")
    pandas.testing.assert_frame_equal(found.to_pandas("test"), rows(5, start=30).to_pandas())
    assert found.to_polars(columns=["x"])["x"].to_list() == list(range(35))
    lazy = found.to_dask(columns=["x", "text"])
    assert (
        lazy.npartitions == 2
        and lazy.compute()["x"].tolist() == list(range(35))
        and list(lazy.columns) == ["x", "text"]
    )
    torch = pytest.importorskip("torch")
    tensors = found.to_torch("test")
    assert (
        tensors["x"].dtype == torch.int64
        and tensors["x"].tolist() == list(range(30, 35))
        and tensors["_uid"] == [f"u00000{i}" for i in range(30, 35)]
    )


def test_torch_shapes_and_nulls() -> None:
    torch = pytest.importorskip("torch")
    from gristmill.storage.interop import to_torch

    vectors = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    holes = pa.array([[1.0, None], None], pa.list_(pa.float32(), 2))
    table = pa.table(
        {
            "v": vectors,
            "h": holes,
            "n": [1, None],
            "b": [True, False],
            "u": pa.array([1, 255], pa.uint8()),
            "f": pa.array([1, 2], pa.float16()),
        }
    )
    found = to_torch(pa.concat_tables([table.slice(1), table.slice(0, 1)]))
    assert found["v"].shape == (2, 2) and found["v"].tolist() == [[3.0, 4.0], [1.0, 2.0]]
    assert found["h"] == [None, [1.0, None]] and found["n"] == [None, 1]
    assert (
        found["b"].tolist() == [False, True] and found["u"].tolist() == [255, 1] and found["f"].dtype == torch.float16
    )
    found["u"][0] = 3  # its own memory


def test_nothing_temporary_is_left(folder: Folder) -> None:
    put(folder, {"train": rows(30)})
    assert [path.split("/")[0] for path in names(folder)] == ["data", "manifests", "manifests"]


def test_a_dataset_can_be_moved(tmp_path: Path) -> None:
    put(open_folder(tmp_path / "a"), {None: rows(3)})
    os.rename(tmp_path / "a", tmp_path / "b")
    assert open_dataset(tmp_path / "b").verify() == []
