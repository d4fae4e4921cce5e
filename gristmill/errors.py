"""Every error that gristmill raises on purpose, and the exit status each gives the command line.

GristmillError
 ├─ UsageError (ValueError)                 2   a call, option or pipeline file that can't be meant
 │   ├─ PipelineError                       2   a pipeline file: names the file, the line and the nearest valid name
 │   ├─ ColumnError (KeyError)              2   a column that isn't there
 │   └─ SuiteError                          2   an expectation suite that can't be evaluated as written
 ├─ InputError (OSError)                    2   an input that can't be read
 │   ├─ InputNotFoundError (FileNotFoundError)
 │   ├─ StoreUnreachableError (ConnectionError)  3   a store that gives no answer; trying again later may help
 │   └─ SchemaMismatchError (TypeError)     2   two inputs whose types can't be brought together
 ├─ MissingDependencyError (ImportError)    2   an optional package or program: says how to install it
 ├─ DatasetError
 │   ├─ DatasetNotFoundError (FileNotFoundError)  2
 │   ├─ NotADatasetError (ValueError)       2   a folder that exists and isn't gristmill's
 │   ├─ CorruptDatasetError (OSError)       1   bytes that don't match the manifest
 │   │   └─ DamagedStateError               1   what is kept of an earlier validation: worked out anew
 │   ├─ TaintedVersionError (PermissionError)  2  a version whose rows were erased
 │   ├─ CommitConflictError (FileExistsError)  3  another run published first
 │   └─ VerdictError (PermissionError)      1   the version's gate has not been passed
 ├─ DataCheckError                          1   the data failed a check
 ├─ RunError (RuntimeError)                 3   a run that could not finish; run it again to resume
 │   ├─ WorkItemError                       3   one work item failed on every try
 │   └─ BalanceError                        3   rows that can't be accounted for
 └─ StreamError (RuntimeError)
     ├─ StateError (ValueError)             2   a loader state that doesn't fit this loader
     └─ DataChangedError                    2   the data under a loader is no longer what it was
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class GristmillError(Exception):
    """The root of the tree. `context` holds the facts of the text (file, row, column, ...) for programs."""

    exit_status = 3

    def __init__(self, message: str, **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.context = context

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.context)


def _rebuild(kind: type[GristmillError], message: str, context: dict[str, Any]) -> GristmillError:
    return kind(message, **context)


class UsageError(GristmillError, ValueError):
    """A call, an option or a file that can't be meant."""

    exit_status = 2


class PipelineError(UsageError):
    """A pipeline file or model that is refused before any work."""


class ColumnError(UsageError, KeyError):
    """A column that the data doesn't have."""


class SuiteError(UsageError):
    """An expectation suite that can't be evaluated as written."""


class InputError(GristmillError, OSError):
    """An input that can't be read."""

    exit_status = 2


class InputNotFoundError(InputError, FileNotFoundError):
    """A path or glob that matches nothing."""


class StoreUnreachableError(InputError, ConnectionError):
    """A store that gives no answer."""

    exit_status = 3


class SchemaMismatchError(InputError, TypeError):
    """Two inputs whose types can't be brought together."""


class MissingDependencyError(GristmillError, ImportError):
    """An optional package or program that isn't installed."""

    exit_status = 2


class DatasetError(GristmillError):
    """Anything wrong with a dataset on disk."""

    exit_status = 2


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """No dataset, or no such version of it."""


class NotADatasetError(DatasetError, ValueError):
    """A folder that exists and isn't a gristmill dataset."""


class CorruptDatasetError(DatasetError, OSError):
    """Bytes that don't match the manifest."""

    exit_status = 1


class DamagedStateError(CorruptDatasetError):
    """What is kept of an earlier validation isn't what was written; the validation removes it and works it out anew."""


class TaintedVersionError(DatasetError, PermissionError):
    """A version that holds rows erased since; it refuses to open."""


class CommitConflictError(DatasetError, FileExistsError):
    """Another run published first; nothing of this one is visible."""

    exit_status = 3


class VerdictError(DatasetError, PermissionError):
    """A version whose gate has not been passed."""

    exit_status = 1


class DataCheckError(GristmillError):
    """The data failed a check."""

    exit_status = 1


class RunError(GristmillError, RuntimeError):
    """A run that could not finish. What was done is kept; the same command resumes it."""


class WorkItemError(RunError):
    """One work item failed on every try."""


class BalanceError(RunError):
    """Rows that can't be accounted for."""


class StreamError(GristmillError, RuntimeError):
    """Anything wrong while streaming."""


class StateError(StreamError, ValueError):
    """A loader state that doesn't fit this loader."""

    exit_status = 2


class DataChangedError(StreamError):
    """The data under a loader is no longer what its state was made on."""

    exit_status = 2


def capped(names: Iterable[object], limit: int = 10) -> str:
    """The names as one comma-separated text, at most `limit` of them and how many more there are."""
    every = [str(name) for name in names]
    more = len(every) - limit
    return ", ".join(every[:limit]) + (f" and {more} more" if more > 0 else "")


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A hint for the end of an error, beginning with a space: the nearest valid name, else the valid names, capped."""
    options = sorted(valid)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" Valid: {capped(options, 20)}." if options else ""


def missing_column(name: str, columns: Iterable[str], where: str) -> ColumnError:
    """The error for a column that isn't there: `where` names the step, file or dataset that lacks it."""
    return ColumnError(f"{where}: no column '{name}'.{did_you_mean(name, columns)}", column=name)
