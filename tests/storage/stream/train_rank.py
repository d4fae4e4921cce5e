"""One rank of a training that torchrun starts: logs the uids of each step, and saves the loader's state as checkpoints do. Run by test_torchrun.py.

train_rank.py FOLDER OUT BATCH KILL_AT [TENSOR_PARALLEL]: KILL_AT is the step at which rank 0 kills the whole group with SIGKILL, -1 for never.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

import gristmill.storage.stream as gs


def main(folder: str, out: Path, batch: int, kill_at: int, tensor_parallel: int = 1) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    shape = (dist.get_world_size() // tensor_parallel, tensor_parallel)
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("dp", "tp")) if tensor_parallel > 1 else None
    loader = gs.stream(folder, global_batch_size=batch, mesh=mesh, seed=11, epochs=2, shuffle_bytes=20_000, threads=1)
    checkpoint = out / "state.json"
    if checkpoint.exists():
        loader.load_state_dict(json.loads(checkpoint.read_text()))
    for data in loader:
        total = torch.tensor(len(data["id"]))
        dist.all_reduce(total)  # as a gradient would: hangs if ranks differ in steps
        parts = [None] * dist.get_world_size()
        dist.all_gather_object(parts, (data["_uid"], loader.state_dict()))
        assert all(state == parts[0][1] for _, state in parts)
        for i in range(0, len(parts), tensor_parallel):  # these share a row of the mesh
            assert all(parts[i + k] == parts[i] for k in range(tensor_parallel))
        parts = parts[::tensor_parallel]
        if data.step == kill_at and rank == 0:
            os.killpg(os.getpgid(0), signal.SIGKILL)
        if rank == 0:
            with (out / "log.jsonl").open("a") as log:
                log.write(
                    json.dumps(
                        {
                            "step": data.step,
                            "uids": sum((uids for uids, _ in parts), []),
                            "rows": int(total) // tensor_parallel,
                        }
                    )
                    + "\n"
                )
            if data.step % 4 == 3:
                temporary = checkpoint.with_suffix(".new")
                temporary.write_text(json.dumps(loader.state_dict()))
                temporary.replace(checkpoint)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
