"""What a drift check compares with: another version, a split, files, or a kept profile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from gristmill.errors import InputNotFoundError, UsageError
from gristmill.storage.dataset import Dataset, open_dataset
from gristmill.validators.history import kept_profile, versions_before
from gristmill.validators.inputs import Data, open_data
from gristmill.validators.profile import Profile, profile


class Reference(BaseModel):
    """version: a number, or `previous`, the one before (the default); with or without `split`. split alone: of the same version. path: anything that can be validated.
    profile: a file that `gristmill profile --json` wrote.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: int | Literal["previous"] | None = None
    split: str | None = None
    path: str | None = None
    profile: str | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        given = [name for name in ("version", "path", "profile") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"reference has {' and '.join(given)}; write one of them")
        if self.profile is not None and self.split is not None:
            raise ValueError("a profile has no splits; leave split out")
        return self


def reference_profile(reference: Reference, data: Data, columns: Sequence[str] | None) -> Profile | None:
    """The profile of the reference; None where it is the version before and there is none.

    Raises:
        UsageError: a version or split is asked for, but the data is no dataset.
        DatasetNotFoundError, InputNotFoundError, ColumnError: not there.
    """
    if reference.profile is not None:
        path = Path(reference.profile)
        if not path.exists():
            raise InputNotFoundError(f"reference: no profile at '{path}'", path=str(path))
        return Profile.from_json_dict(json.loads(path.read_text(encoding="utf-8")))
    if reference.path is not None:
        return profile(open_data(reference.path, split=reference.split), columns=columns)
    if data.dataset is None:
        raise UsageError(
            f"reference: {data.name} is no dataset version and has none before it; write a path or a profile"
        )
    if reference.split is not None and reference.version is None:
        return profile(open_data(data.dataset, split=reference.split), columns=columns)
    before = (
        version_before(data.dataset)
        if reference.version in (None, "previous")
        else _version(data.dataset, reference.version)
    )
    if before is None:
        return None
    return (
        kept_profile(before)
        if reference.split is None
        else profile(open_data(before, split=reference.split), columns=columns)
    )


def version_before(dataset: Dataset) -> Dataset | None:
    """The newest published version before this one (for a candidate: that it was built on), or None."""
    found = versions_before(dataset, 1)
    return found[0] if found else None


def _version(dataset: Dataset, version: int | str | None) -> Dataset:
    assert isinstance(version, int)
    return open_dataset(dataset.folder, version)
