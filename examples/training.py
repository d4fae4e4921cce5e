"""A data-parallel training loop that can be killed at any time and goes on with another number of processes."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import gristmill
from gristmill.storage.stream import Batch

CHECKPOINT = "checkpoint.pt"
Loss = Callable[[torch.nn.Module, Batch], torch.Tensor]


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that every training has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", help="a dataset (PATH or PATH@VERSION), or plain Parquet")
    parser.add_argument("--split")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/training"),
        help="checkpoint, scalars and logs; an interrupted run goes on from here",
    )
    parser.add_argument("--batch-size", type=int, default=64, help="of all processes together")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, help="end after this many steps")
    parser.add_argument("--checkpoint-every", type=int, default=50)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log-rows", action="store_true", help="write the _uid of every row of every step")
    return parser


def start() -> torch.device:
    """The device of this process, which has joined the others that torchrun started."""
    if not torch.cuda.is_available():
        dist.init_process_group("gloo")
        return torch.device("cpu")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


def train(
    given: argparse.Namespace, loader: gristmill.Stream, model: torch.nn.Module, loss_of: Loss, device: torch.device
) -> float:
    """Trains to the end, from the checkpoint if there is one; the last loss.

    The checkpoint holds the model, the optimizer and the loader's state, which is the same on every rank and fits any number of them.
    """
    if given.batch_size % dist.get_world_size():
        raise SystemExit(
            f"--batch-size {given.batch_size} is no multiple of {dist.get_world_size()} processes: their gradients would weigh rows unequally"
        )
    model = model.to(device)
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.learning_rate)
    path = given.output / CHECKPOINT
    if path.exists():
        saved = torch.load(path, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(saved["loader"])
        say(f"going on from step {loader.step}")
    loss = torch.zeros(())
    with Log(given) as log:
        for batch in log.timed(loader):
            loss = loss_of(parallel, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            log.step(batch, loss)
            last = given.steps is not None and loader.step >= given.steps
            if last or loader.step % given.checkpoint_every == 0:
                save(path, model, optimizer, loader)
            if last:
                break
        else:
            save(path, model, optimizer, loader)
    say(f"done: step {loader.step} of {len(loader)}, loss {loss.item():.4f}")
    dist.destroy_process_group()
    return loss.item()


def save(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, loader: gristmill.Stream) -> None:
    """Writes the checkpoint on rank 0, all at once."""
    if dist.get_rank() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".partial")
        torch.save(
            {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "loader": loader.state_dict()}, temporary
        )
        temporary.replace(path)
    dist.barrier()


class Log:
    """Scalars for TensorBoard from rank 0 (loss, rows a second, the part of the time spent waiting for data), and the rows of each step."""

    def __init__(self, given: argparse.Namespace) -> None:
        given.output.mkdir(parents=True, exist_ok=True)
        rank = dist.get_rank()
        self._board = board(given.output) if rank == 0 else None
        self._rows = (given.output / f"rows-{rank}.jsonl").open("a", encoding="utf-8") if given.log_rows else None
        self._begun = time.perf_counter()
        self._waited = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._board, self._rows):
            if each is not None:
                each.close()

    def timed(self, loader: gristmill.Stream) -> Iterator[Batch]:
        """The loader's batches; the time until each is there is counted as waiting."""
        batches = iter(loader)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def step(self, batch: Batch, loss: torch.Tensor) -> None:
        """Writes what is known of a finished step."""
        if self._rows is not None:
            self._rows.write(
                json.dumps({"step": batch.step, "world_size": dist.get_world_size(), "uids": batch["_uid"]}) + "\n"
            )
            self._rows.flush()
        now = time.perf_counter()
        seconds, self._begun = now - self._begun, now
        if self._board is not None:
            rows = len(next(iter(batch.values()))) * dist.get_world_size()
            for name, value in (
                ("loss", loss.item()),
                ("rows_per_second", rows / seconds),
                ("wait_ratio", self._waited / seconds),
            ):
                self._board.add_scalar(name, value, batch.step)
        self._waited = 0.0


def board(folder: Path) -> Any:
    """A TensorBoard writer, or None where the package is absent."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        say("TensorBoard isn't installed, no scalars are written: pip install 'gristmill[train]'")
        return None
    return SummaryWriter(str(folder / "tensorboard"))


def say(text: str) -> None:
    """Prints on rank 0."""
    if dist.get_rank() == 0:
        print(text, flush=True)
