"""What gristmill_validate has accepted, as files in `accepted/` of the project.

A suite's verdict lies with its dataset and is there before drift, leakage and people have had their say; training waits for all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def accept(folder: Path, facts: Mapping[str, Any]) -> None:
    """Keeps the facts of a version: its dataset and fingerprint name it, so that a rollback to what was accepted is accepted too."""
    write_text(_path(folder, facts["dataset"], facts["fingerprint"]), json.dumps(dict(facts), indent=1))


def withdraw(folder: Path, dataset: str, fingerprint: str) -> None:
    """Forgets it, if it is there."""
    _path(folder, dataset, fingerprint).unlink(missing_ok=True)


def is_accepted(folder: Path, dataset: str, fingerprint: str) -> bool:
    """Whether this content of the dataset has been accepted."""
    return _path(folder, dataset, fingerprint).is_file()


def write_text(path: Path, text: str) -> None:
    """Makes or replaces a file, all at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _path(folder: Path, dataset: str, fingerprint: str) -> Path:
    digest = hashlib.sha256(f"{dataset}\n{fingerprint}".encode()).hexdigest()[:16]
    return folder / "accepted" / f"{os.path.basename(dataset)}-{digest}.json"
