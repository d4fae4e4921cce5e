"""Candidates: seen, published or rejected, never a version before."""

from __future__ import annotations

import os

import pytest

from gristmill.errors import CommitConflictError, DatasetNotFoundError, UsageError
from gristmill.storage import candidates as candidates_module
from gristmill.storage.candidates import list_candidates, propose, publish_candidate, read_candidate, reject_candidate
from gristmill.storage.dataset import open_dataset
from gristmill.storage.folder import Folder
from gristmill.storage.versions import newest_version, publish

from .conftest import rows, shards

SCHEMA = rows(1).schema


def test_a_candidate_is_seen_and_published(folder: Folder) -> None:
    made = propose(
        folder,
        shards(folder, rows(20), split="train"),
        SCHEMA,
        expected_parent=None,
        splits=["train", "test"],
        gate=["suite"],
        counts={"read": 20},
    )
    assert newest_version(folder) is None
    name = made.fingerprint[:16]
    waiting = f"no published version yet, but {name} waits as candidate: look with `gristmill show .*@{name}`"
    with pytest.raises(DatasetNotFoundError, match=waiting):
        open_dataset(folder)
    assert [each.fingerprint for each in list_candidates(folder)] == [made.fingerprint]
    opened = open_dataset(f"{folder.base}@{name}", options=folder.options)
    assert (opened.version, opened.num_rows, opened.name) == (0, 20, f"{folder.base}@{name}") and opened.verify() == []
    found = publish_candidate(folder, name[:6])
    assert found.published and list_candidates(folder) == []
    assert not opened.is_erased()  # it is a version now
    version = open_dataset(folder)
    assert (version.version, version.splits, list(version.manifest.gate), version.manifest.counts) == (
        1,
        {"train": 20, "test": 0},
        ["suite"],
        {"read": 20},
    )
    assert (version.fingerprint, version.layout) == (made.fingerprint, made.layout) and version.verify() == []


def test_the_same_candidate_twice_is_one(folder: Folder) -> None:
    for _ in range(2):
        propose(folder, shards(folder, rows(20)), SCHEMA, expected_parent=None)
    assert len(list_candidates(folder)) == 1


def test_a_rejected_candidate_is_gone(folder: Folder) -> None:
    made = propose(folder, shards(folder, rows(20)), SCHEMA, expected_parent=None)
    opened = open_dataset(f"{folder.base}@{made.fingerprint[:16]}", options=folder.options)
    assert not opened.is_erased()
    assert reject_candidate(folder, made.fingerprint)["num_rows"] == 20
    assert list_candidates(folder) == [] and opened.is_erased()
    with pytest.raises(DatasetNotFoundError, match="has no candidates"):
        publish_candidate(folder, made.fingerprint)


def test_a_candidate_that_came_too_late_is_told_and_kept(folder: Folder) -> None:
    made = propose(folder, shards(folder, rows(20)), SCHEMA, expected_parent=None)
    publish(folder, shards(folder, rows(21)), SCHEMA, expected_parent=None)
    with pytest.raises(CommitConflictError, match="version 1 was published"):
        publish_candidate(folder, made.fingerprint)
    assert len(list_candidates(folder)) == 1


def test_publishing_again_after_a_crash_finishes(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    made = propose(folder, shards(folder, rows(20)), SCHEMA, expected_parent=None)
    monkeypatch.setattr(candidates_module.Folder, "delete", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        publish_candidate(folder, made.fingerprint)
    monkeypatch.undo()
    found = publish_candidate(folder, made.fingerprint)
    assert (found.published, found.manifest.version) == (False, 1) and list_candidates(folder) == []


def test_names_are_told(folder: Folder) -> None:
    made = [propose(folder, shards(folder, rows(n)), SCHEMA, expected_parent=None).fingerprint for n in range(2)]
    common = os.path.commonprefix(made)
    assert read_candidate(folder, made[0][: len(common) + 1]).num_rows == 0
    if not common:  # any two fingerprints; these are named alike
        folder.write_atomic(
            "candidates/other.json",
            folder.read_bytes(f"candidates/{made[1][:16]}.json").replace(
                made[1].encode(), (made[0][0] + made[1][1:]).encode()
            ),
        )
    with pytest.raises(UsageError, match="write more digits"):
        read_candidate(folder, made[0][0])
    with pytest.raises(DatasetNotFoundError, match="has no candidate 'zzz'. Valid: "):
        read_candidate(folder, "zzz")
    with pytest.raises(DatasetNotFoundError):
        open_dataset(f"{folder.base}@{'0' * 16}", options=folder.options)
