"""Trains a small convolutional network on images in Parquet: a column of JPEG or PNG bytes and one of whole-number labels.

    torchrun --nproc-per-node 2 -m examples.train_images images.parquet --output runs/images

A folder CLASS/*.jpg is packed into Parquet first. Kill it at any time; the same line with another --nproc-per-node goes on from the last checkpoint.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

import gristmill
from examples.training import arguments, start, train
from gristmill.storage.stream.images import RandomResizedCrop

SUFFIXES = (".jpg", ".jpeg", ".png")
ROWS = 256  # in a row group


def pack(folder: Path, target: Path) -> Path:
    """A Parquet file with the images of a folder CLASS/*.jpg: _uid (the path), image, label (the number of the class in order of name)."""
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    files = [path for name in classes for path in sorted((folder / name).iterdir()) if path.suffix.lower() in SUFFIXES]
    schema = pa.schema([("_uid", pa.string()), ("image", pa.binary()), ("label", pa.int64())])
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".partial")
    with pq.ParquetWriter(temporary, schema, compression="none") as writer:
        for i in range(0, len(files), ROWS):
            part = files[i : i + ROWS]
            columns = [
                [str(path.relative_to(folder)) for path in part],
                [path.read_bytes() for path in part],
                [classes.index(path.parent.name) for path in part],
            ]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=ROWS)
    os.replace(temporary, target)
    return target


def is_folder_of_images(place: str) -> bool:
    """Whether it is a folder with folders of images in it."""
    folder = Path(place)
    return folder.is_dir() and any(path.suffix.lower() in SUFFIXES for path in folder.glob("*/*"))


class Network(nn.Module):
    """Four convolutions and a linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 64)
        blocks = [
            part
            for a, b in itertools.pairwise(widths)
            for part in (nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(4, b), nn.ReLU())
        ]
        self.layers = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images.permute(0, 3, 1, 2).float() / 127.5 - 1)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--image", default="image", help="the column of images")
    parser.add_argument("--label", default="label", help="the column of labels")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--size", type=int, default=64, help="pixels of the random crops")
    given = parser.parse_args()
    device = start()
    torch.manual_seed(given.seed)
    if is_folder_of_images(given.data):
        packed = given.output / "images.parquet"
        if dist.get_rank() == 0 and not packed.exists():
            pack(Path(given.data), packed)
        dist.barrier()
        given.data = str(packed)
    loader = gristmill.stream(
        given.data,
        split=given.split,
        columns=[given.image, given.label, *(["_uid"] if given.log_rows else [])],
        decode={given.image: RandomResizedCrop(given.size)},
        global_batch_size=given.batch_size,
        epochs=given.epochs,
        seed=given.seed,
        tail="drop",
        device=device,
    )
    loss_of = lambda model, batch: functional.cross_entropy(model(batch[given.image]), batch[given.label])  # noqa: E731
    train(given, loader, Network(given.classes), loss_of, device)


if __name__ == "__main__":
    main()
