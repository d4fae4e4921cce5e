"""Streaming of Parquet into training: exact, elastic, resumable, traceable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gristmill.storage.stream.loader import Stream, stream
    from gristmill.storage.stream.tensors import Batch, Ragged

__all__ = ["Batch", "Ragged", "Stream", "stream"]
_MODULES = {"Batch": "tensors", "Ragged": "tensors", "Stream": "loader", "stream": "loader"}


def __getattr__(name: str) -> Any:
    """Imports torch only when a loader is made.

    Raises:
        MissingDependencyError: torch isn't installed.
    """
    import importlib

    from gristmill.errors import MissingDependencyError

    if name not in _MODULES:
        raise AttributeError(f"module 'gristmill.storage.stream' has no attribute '{name}'")
    try:
        return getattr(importlib.import_module(f"gristmill.storage.stream.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        raise MissingDependencyError(
            "streaming needs PyTorch, which isn't installed: pip install 'gristmill[torch]'"
        ) from error
