"""Streaming of Parquet into training: exact, elastic, resumable, traceable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gristmill.storage.stream.images import RandomResizedCrop
    from gristmill.storage.stream.loader import Stream
    from gristmill.storage.stream.opening import stream
    from gristmill.storage.stream.packed_reader import cu_seqlens
    from gristmill.storage.stream.packing import Pack
    from gristmill.storage.stream.sources import Mix
    from gristmill.storage.stream.tensors import Batch, Ragged

__all__ = ["Batch", "Mix", "Pack", "Ragged", "RandomResizedCrop", "Stream", "cu_seqlens", "stream"]
_MODULES = {
    "Batch": "tensors",
    "Mix": "sources",
    "Pack": "packing",
    "Ragged": "tensors",
    "RandomResizedCrop": "images",
    "Stream": "loader",
    "cu_seqlens": "packed_reader",
    "stream": "opening",
}


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
