"""What `run` and `plan` start from: a checked pipeline, where its output stands, its work files, and the work items of its sources."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.errors import NotADatasetError, UsageError
from gristmill.pipelines.gating import checked_suite
from gristmill.pipelines.loading import load_pipeline, naming_lines
from gristmill.pipelines.model import Pipeline
from gristmill.pipelines.plan import Planned, check_columns, known_columns, plan_sources
from gristmill.pipelines.published import Base, read_base
from gristmill.pipelines.work import WorkStore, open_store, scratch_of
from gristmill.storage.folder import Folder, open_folder
from gristmill.storage.tombstones import Tombstones, read_tombstones
from gristmill.storage.versions import newest_version

if TYPE_CHECKING:
    from gristmill.validators.suites import Suite

HASHES = "hashes.json"  # beside the work: content hashes of files, known from the runs before


@dataclass(frozen=True)
class Job:
    """All that was looked up before any work. base: the version that the run appends to, None where it makes a whole one."""

    given: str | Path | Mapping[str, Any] | Pipeline
    model: Pipeline
    folder: Folder
    parent: int | None  # the newest version of the output
    store: WorkStore
    planned: list[Planned]
    hashes: dict[str, str]
    base: Base | None
    suite: Suite | None
    erased: Tombstones

    def check(self) -> None:
        """Refuses columns that aren't there, before any work; see `check_columns`."""
        with naming_lines(self.given):
            check_columns(self.model, self.planned, self.base, known_columns(self.store, self.model.id, self.erased))

    @property
    def files(self) -> list[str]:
        """All that is read."""
        return [file for plan in self.planned for item in plan.items for file in item.files]


def prepare(
    pipeline: str | Path | Mapping[str, Any] | Pipeline,
    settings: Sequence[str],
    inputs: Mapping[str, Any],
    scratch: str | Path | None,
    *,
    shared: bool = False,
) -> Job:
    """The job of a pipeline; arguments are those of `run`. shared: workers are elsewhere.

    Raises:
        PipelineError, InputError, SuiteError, NotADatasetError: it can't be run.
    """
    model = load_pipeline(pipeline, settings)
    folder = open_folder(model.output.path)
    parent = check_output(folder, model)
    store = open_store(scratch_folder(model, scratch, shared=shared))
    hashes: dict[str, str] = store.noted(HASHES) or {}
    return Job(
        given=pipeline,
        model=model,
        folder=folder,
        parent=parent,
        store=store,
        planned=plan_sources(model, inputs, store, hashes),
        hashes=hashes,
        base=base_of(folder, model, parent),
        suite=checked_suite(model.validate_) if model.validate_ else None,
        erased=read_tombstones(folder),
    )


def check_output(folder: Folder, model: Pipeline) -> int | None:
    """The newest version that the output folder holds, or None.

    Raises:
        NotADatasetError: the folder exists, isn't empty and isn't gristmill's.
    """
    if not folder.remote and Path(folder.base).is_file():
        raise NotADatasetError(f"output '{model.output.path}' is a file, expected a folder; choose a new or empty one")
    if not folder.exists("manifests") and not folder.exists("_work"):
        held = [name for name, *_ in folder.list("")][:5]
        if held:
            raise NotADatasetError(
                f"output '{model.output.path}' exists and is not a gristmill dataset (it holds {', '.join(held)}); choose a new or empty folder"
            )
    return newest_version(folder)


def scratch_folder(model: Pipeline, scratch: str | Path | None, *, shared: bool = False) -> str:
    """The folder of work files: given, else beside the data; for remote output that is in the store if workers are elsewhere (`shared`) or work is
    there already, else a local folder of the user's cache. It need not be there yet.

    Raises:
        UsageError: it can't be made.
    """
    output = open_folder(model.output.path)
    chosen = scratch_of(output.base, scratch, shared=shared or (output.remote and output.exists("_work/items")))
    if "://" in chosen:
        return chosen
    above = next(path for path in (Path(chosen), *Path(chosen).parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        reason = f"no permission to write in '{above}'" if above.is_dir() else f"'{above}' is a file"
        raise UsageError(f"can't make the folder for work files '{chosen}': {reason}; give another one with --scratch")
    return chosen


def base_of(folder: Folder, model: Pipeline, parent: int | None) -> Base | None:
    """The version that the run appends to; None where it makes a whole version."""
    if model.output.mode != "append" or parent is None:
        return None
    return read_base(folder, parent, by_id=model.id is not None)
