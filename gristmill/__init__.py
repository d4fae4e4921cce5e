"""Getting data ready for training: run a pipeline, validate a dataset, stream it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gristmill.pipelines.frames import apply, near_duplicates
    from gristmill.pipelines.model import Pipeline
    from gristmill.pipelines.outlook import plan
    from gristmill.pipelines.run import RunResult, run
    from gristmill.storage.dataset import Dataset, open_dataset
    from gristmill.storage.stream import Stream, stream
    from gristmill.validators.api import validate
    from gristmill.validators.verdict import Verdict

_PUBLIC = {
    "Dataset": "gristmill.storage.dataset",
    "Pipeline": "gristmill.pipelines.model",
    "RunResult": "gristmill.pipelines.run",
    "Stream": "gristmill.storage.stream",
    "Verdict": "gristmill.validators.verdict",
    "apply": "gristmill.pipelines.frames",
    "near_duplicates": "gristmill.pipelines.frames",
    "open_dataset": "gristmill.storage.dataset",
    "plan": "gristmill.pipelines.outlook",
    "run": "gristmill.pipelines.run",
    "stream": "gristmill.storage.stream",
    "validate": "gristmill.validators.api",
}

__all__ = [
    "Dataset",
    "Pipeline",
    "RunResult",
    "Stream",
    "Verdict",
    "__version__",
    "apply",
    "near_duplicates",
    "open_dataset",
    "plan",
    "run",
    "stream",
    "validate",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that `import gristmill` stays light."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'gristmill' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
