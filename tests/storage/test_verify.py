"""verify: every problem of a version, each by its file."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gristmill.storage import verify as verify_module
from gristmill.storage import versions
from gristmill.storage.dataset import Dataset, open_dataset
from gristmill.storage.folder import Folder
from gristmill.storage.verify import Problem
from gristmill.storage.versions import publish

from .conftest import rows, shards


@pytest.fixture
def opened(folder: Folder) -> Dataset:
    entries = shards(folder, rows(600), split="train", shard_bytes=3000)
    assert len(entries) > 5
    publish(folder, entries, rows(1).schema, expected_parent=None)
    return open_dataset(folder)


def test_a_whole_version_has_no_problems(opened: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "AHEAD", 2)
    assert opened.verify() == [] == opened.verify(fast=True)


def test_every_problem_is_found(opened: Dataset, folder: Folder) -> None:
    files = opened.files()
    folder.delete(files[0].path)
    folder.write_atomic(files[1].path, b"x")
    content = bytearray(folder.read_bytes(files[3].path))
    content[50] ^= 1
    folder.write_atomic(files[3].path, bytes(content))
    found = opened.verify()
    assert found[:2] == [
        Problem(files[0].path, "missing"),
        Problem(files[1].path, f"1 bytes, expected {files[1].bytes}"),
    ]
    assert found[2].path == files[3].path and found[2].what.endswith(f"expected {files[3].sha256}") and len(found) == 3
    assert opened.verify(fast=True) == found[:2]


def publish_wrong(folder: Folder, **wrong: object) -> list[Problem]:
    first = shards(folder, rows(100))[0]
    publish(folder, [replace(first, **wrong)], rows(1).schema, expected_parent=None)  # type: ignore[arg-type]
    return open_dataset(folder).verify()


def test_a_footer_that_says_otherwise_is_found(folder: Folder) -> None:
    (found,) = publish_wrong(folder, row_group_rows=(100,))
    assert found.what == "row groups of (64, 36) rows, expected (100,), 100 in all"


def test_a_missing_side_car_is_found(folder: Folder) -> None:
    (found,) = publish_wrong(folder, side_cars=("data/all/extra.parquet",))
    assert (found.path, found.what[:21]) == ("data/all/extra.parquet", "missing; a side-car o")


def test_another_schema_is_found(folder: Folder) -> None:
    table = rows(10)
    publish(folder, shards(folder, table), table.rename_columns(["_uid", "text", "y"]).schema, expected_parent=None)
    (found,) = open_dataset(folder).verify()
    assert "x: int64, expected" in found.what


def test_a_broken_file_list_is_a_problem_not_a_crash(
    opened: Dataset, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "PART_FILES", 2)
    files = opened.files()
    publish(folder, files[:4], opened.schema, expected_parent=1)
    second = open_dataset(folder)
    folder.write_atomic(second.manifest.parts[0]["path"], b"")
    folder.delete(files[3].path)
    found = second.verify()
    assert [problem.path for problem in found] == [second.manifest.parts[0]["path"], files[3].path]
    assert "has sha256 e3b0c442" in found[0].what
    folder.delete(second.manifest.parts[0]["path"])
    assert "is missing: a part of the version's file list" in second.verify()[0].what


def test_totals_that_do_not_add_up_are_found(opened: Dataset, folder: Folder) -> None:
    manifest = opened.manifest
    for wrong, name in (
        ({"num_rows": 5}, "rows"),
        ({"splits": {"test": 600}}, "rows by split"),
        ({"layout": "0"}, "layout"),
        ({"fingerprint": "0"}, "fingerprint"),
    ):
        (found,) = Dataset(folder, replace(manifest, **wrong)).verify(fast=True)  # type: ignore[arg-type]
        assert found.path == "manifest" and found.what.startswith(f"{name}: it says")


def test_a_missing_ledger_is_found(opened: Dataset, folder: Folder) -> None:
    lost = Dataset(folder, replace(opened.manifest, ledger="ledger/abc"))
    assert lost.verify(fast=True) == [Problem("ledger/abc", "a ledger of the version is missing")]
    folder.write_atomic("ledger/abc/origin-000000.parquet", b"")
    assert lost.verify(fast=True) == []
