"""Which part of every batch this process takes."""

from __future__ import annotations

import os
import sys
from typing import Any, NamedTuple

from gristmill.errors import UsageError

DATA_PARALLEL = (
    "dp",
    "data",
    "data_parallel",
    "ddp",
    "fsdp",
    "hsdp",
    "dp_replicate",
    "dp_shard",
    "replicate",
    "shard",
    "batch",
)  # names of mesh dimensions that share out rows


class Ranks(NamedTuple):
    """The place of this process among those that share out the rows."""

    rank: int
    world_size: int


def find_ranks(rank: int | None = None, world_size: int | None = None, mesh: Any = None) -> Ranks:
    """The data-parallel rank: from the arguments, else a DeviceMesh, else torch.distributed, else RANK and WORLD_SIZE, else the only one.

    In a mesh the dimensions named in DATA_PARALLEL share out the rows (all dimensions of a mesh without names); processes that differ in other
    dimensions only (tensor, context, pipeline, expert parallel) get equal rows.

    Raises:
        UsageError: one argument without the other, a rank outside the world, or a mesh with no known data-parallel dimension.
    """
    if (rank is None) != (world_size is None):
        raise UsageError("rank and world_size belong together: give both or neither")
    if rank is None:
        rank, world_size = _of_mesh(mesh) if mesh is not None else _of_process()
    assert world_size is not None
    if not 0 <= rank < world_size:
        raise UsageError(f"rank={rank} is not below world_size={world_size}")
    return Ranks(rank, world_size)


def _of_mesh(mesh: Any) -> tuple[int, int]:
    names = mesh.mesh_dim_names or ()
    chosen = [i for i in range(mesh.ndim) if not names or names[i].lower() in DATA_PARALLEL]
    if not chosen:
        raise UsageError(
            f"the mesh has dimensions {list(names)}, none of them known as data-parallel ({', '.join(DATA_PARALLEL)}): give rank= and world_size= instead"
        )
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        raise UsageError("this process is not in the mesh: give rank= and world_size= instead")
    rank, world = 0, 1
    for i in chosen:
        rank, world = rank * mesh.size(i) + coordinate[i], world * mesh.size(i)
    return rank, world


def _of_process() -> tuple[int, int]:
    distributed = sys.modules.get("torch.distributed")  # if nobody imported it, nobody initialised it
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return 0, 1
