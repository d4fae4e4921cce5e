"""A run that publishes nothing: its result waits as a candidate."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gristmill.errors import DatasetNotFoundError
from gristmill.pipelines.run import RunResult
from gristmill.storage.candidates import list_candidates, publish_candidate
from gristmill.storage.dataset import open_dataset

from .conftest import corpus, rows_of, write_jsonl


def test_a_candidate_is_no_version_until_it_is_published(run: Callable[..., RunResult], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "raw", corpus(10))
    found = run(tmp_path / "raw", candidate=True)
    assert (found.version, found.published) == (0, False) and found.candidate == found.fingerprint[:16]
    with pytest.raises(DatasetNotFoundError):
        open_dataset(found.path)
    assert len(rows_of(found)) == found.counts["kept"]  # the candidate itself can be opened
    again = run(tmp_path / "raw", candidate=True)
    assert (again.candidate, len(list_candidates(again.dataset.folder))) == (found.candidate, 1)
    publish_candidate(found.dataset.folder, found.candidate)
    assert (open_dataset(found.path).version, open_dataset(found.path).fingerprint) == (1, found.fingerprint)


def test_nothing_new_leaves_no_candidate(run: Callable[..., RunResult], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "raw", corpus(10))
    first = run(tmp_path / "raw")
    found = run(tmp_path / "raw", candidate=True)
    assert (found.version, found.published, found.candidate) == (1, False, None)
    assert list_candidates(first.dataset.folder) == []


def test_the_command_says_what_to_do_next(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "raw", corpus(5))
    (tmp_path / "p.yaml").write_text(
        "name: p\nsources: [{kind: jsonl, path: 'raw/*', name: web}]\noutput: {path: out}\n"
    )
    command = [sys.executable, "-m", "gristmill.cli.main", "run", "p.yaml", "--candidate"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    name = json.loads(
        subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    )["candidate"]
    assert f"gristmill publish out@{name}" in said
