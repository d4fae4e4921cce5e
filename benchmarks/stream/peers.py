"""Other loaders, each on a copy of the same rows in the form that it likes best; run as a script by the Python of their own environment (benchmarks/peers.txt).

`convert` writes that copy and prints its seconds and bytes; `read` takes two epochs from it. Settings: each loader's shuffle is on, with its own defaults unless
named otherwise; worker processes are chosen by the caller, who takes the fastest.
"""

import argparse
import functools
import io
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from consume import consume

warnings.simplefilter("ignore")
SHARD_BYTES = 64 << 20
TOKENS = 2048
MDS = {"int64": "int64", "float": "float32", "string": "str", "binary": "bytes"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["convert", "read"])
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--copy", type=Path)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--limit", type=float)
    parser.add_argument("--block", type=int)
    parser.add_argument("--result")
    given = parser.parse_args()
    convert, read = PEERS[given.peer]
    if given.action == "read":
        read(given)
        return
    start = time.perf_counter()
    convert(given.data, given.copy)
    size = sum(file.stat().st_size for file in given.copy.rglob("*") if file.is_file())
    print("RESULT " + json.dumps({"seconds": time.perf_counter() - start, "bytes": size}))


def rows_of(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of the Parquet files in order, token rows as numpy arrays."""
    for path in sorted(folder.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(256):
            columns = {
                name: _matrix(column) if name == "tokens" else column.to_pylist()
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            }
            for values in zip(*columns.values(), strict=True):
                yield dict(zip(columns, values, strict=True))


def _matrix(column: Any) -> Any:
    return column.values.to_numpy()[column.offsets[0].as_py() : column.offsets[-1].as_py()].reshape(len(column), -1)


def nothing(_data: Path, copy: Path) -> None:
    """The loader reads Parquet."""
    copy.mkdir(parents=True, exist_ok=True)


def loader_epochs(loader: Any, number: int) -> Iterator[Any]:
    """One epoch of a loader that is iterated anew for each."""
    for part in (loader, getattr(loader, "dataset", None)):
        if hasattr(part, "set_epoch"):
            part.set_epoch(number)
            break
    return iter(loader)


def ids(batch: Any) -> Any:
    """The ids of a collated batch."""
    return batch["id"].numpy() if isinstance(batch, dict) else batch[:, 0].numpy()


# litdata


def litdata_folders() -> None:
    """Its optimize empties its default cache folders, so it is given its own."""
    for name in ("DATA_OPTIMIZER_CACHE_FOLDER", "DATA_OPTIMIZER_DATA_CACHE_FOLDER"):
        os.environ[name] = tempfile.mkdtemp(prefix="litdata-")


def _same(row: Any) -> Any:
    return row


def _all_rows(folder: str) -> Iterator[Any]:
    import torch

    for row in rows_of(Path(folder)):
        yield {
            name: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
            for name, value in row.items()
        }


def _all_tokens(folder: str) -> Iterator[Any]:
    import torch

    for row in rows_of(Path(folder)):
        yield torch.from_numpy(row["tokens"].copy())


def litdata_convert(data: Path, copy: Path) -> None:
    from litdata import optimize

    litdata_folders()
    optimize(_all_rows, [str(data)], str(copy), chunk_bytes=SHARD_BYTES, num_workers=1, verbose=False)


def litdata_tokens_convert(data: Path, copy: Path) -> None:
    from litdata import TokensLoader, optimize

    litdata_folders()
    optimize(
        _all_tokens,
        [str(data)],
        str(copy),
        chunk_size=TOKENS * 8192,
        num_workers=1,
        item_loader=TokensLoader(block_size=TOKENS),
        verbose=False,
    )


def litdata_parquet_convert(data: Path, copy: Path) -> None:
    import litdata

    copy.mkdir(parents=True, exist_ok=True)
    for path in data.glob("*.parquet"):
        os.link(path, copy / path.name)
    litdata.index_parquet_dataset(str(copy))


def litdata_read(given: Any, loader: Any = None, **options: Any) -> None:
    import litdata

    litdata_folders()

    def make() -> Any:
        dataset = litdata.StreamingDataset(
            str(given.copy), item_loader=loader() if loader else None, shuffle=True, drop_last=True
        )
        more = {"multiprocessing_context": "spawn"} if options.get("spawn") and given.workers else {}
        return litdata.StreamingDataLoader(
            dataset, batch_size=given.batch, num_workers=given.workers, persistent_workers=given.workers > 0, **more
        )

    consume(make, ids, given.limit, lambda loader, _: iter(loader))


def litdata_tokens_read(given: Any) -> None:
    from litdata import TokensLoader

    litdata_read(given, functools.partial(TokensLoader, block_size=TOKENS))


def litdata_parquet_read(given: Any) -> None:
    from litdata.streaming.item_loader import ParquetLoader

    litdata_read(given, functools.partial(ParquetLoader, low_memory=False), spawn=True)


# Mosaic


def mosaic() -> Any:
    """The package `streaming`; it imports torchvision, whose CPU wheel lacks its operators beside this torch: one is declared so that the import works."""
    declare_operators()
    import streaming

    return streaming


def declare_operators() -> None:
    """What `import torchvision` needs where its compiled part can't be loaded; its transforms of PIL images don't use it."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    try:
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    except RuntimeError:  # the compiled part is there
        return
    declare_operators.library = library  # type: ignore[attr-defined]  it must live


def mosaic_convert(data: Path, copy: Path) -> None:
    streaming = mosaic()
    schema = pq.read_schema(next(iter(data.glob("*.parquet"))))
    columns = {
        field.name: f"ndarray:int32:{TOKENS}" if field.name == "tokens" else MDS[str(field.type)] for field in schema
    }
    with streaming.MDSWriter(out=str(copy), columns=columns, size_limit=SHARD_BYTES) as writer:
        for row in rows_of(data):
            writer.write(
                {name: np.float32(value) if isinstance(value, float) else value for name, value in row.items()}
            )


def mosaic_read(given: Any) -> None:
    streaming = mosaic()
    streaming.base.util.clean_stale_shared_memory()

    def make() -> Any:
        dataset = streaming.StreamingDataset(
            local=str(given.copy),
            shuffle=True,
            batch_size=given.batch,
            num_canonical_nodes=1,
            **({"shuffle_block_size": given.block} if given.block else {}),
        )
        return streaming.StreamingDataLoader(
            dataset, batch_size=given.batch, num_workers=given.workers, persistent_workers=given.workers > 0
        )

    consume(make, ids, given.limit, lambda loader, _: iter(loader))


# WebDataset


def webdataset_convert(data: Path, copy: Path) -> None:
    import webdataset

    copy.mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(str(copy / "%05d.tar"), maxsize=SHARD_BYTES, maxcount=10**9, verbose=0) as writer:
        for row in rows_of(data):
            key = str(row.pop("id"))
            if "tokens" in row:
                writer.write({"__key__": key, "tokens.bin": row["tokens"].tobytes()})
            elif "image" in row:
                writer.write({"__key__": key, "jpg": row["image"], "cls": row["label"]})
            elif "text" in row:
                writer.write({"__key__": key, "text.txt": row["text"]})
            else:
                writer.write({"__key__": key, "x.bin": np.array(list(row.values()), np.float32).tobytes()})


def _webdataset_row(sample: dict[str, Any]) -> Any:
    import torch

    number = int(sample["__key__"])
    if "tokens.bin" in sample:
        return number, torch.frombuffer(bytearray(sample["tokens.bin"]), dtype=torch.int32)
    if "text.txt" in sample:
        return number, sample["text.txt"].decode()
    return number, torch.frombuffer(bytearray(sample["x.bin"]), dtype=torch.float32)


def webdataset_read(given: Any) -> None:
    import torch
    import webdataset

    shards = sorted(map(str, given.copy.glob("*.tar")))

    def collate(rows: Any) -> Any:
        numbers, values = zip(*rows, strict=True)
        return torch.tensor(numbers), torch.stack(values) if isinstance(values[0], torch.Tensor) else list(values)

    def make() -> Any:
        data = webdataset.WebDataset(
            shards, shardshuffle=len(shards), detshuffle=True, nodesplitter=None, empty_check=False
        )
        data = data.shuffle(1000).map(_webdataset_row).batched(given.batch, collation_fn=collate)
        return webdataset.WebLoader(
            data, batch_size=None, num_workers=given.workers, persistent_workers=given.workers > 0
        )

    consume(make, lambda batch: batch[0].numpy(), given.limit, lambda loader, _: iter(loader))


# Hugging Face datasets


def hf_streaming_read(given: Any) -> None:
    import datasets
    import torch

    files = sorted(map(str, given.data.glob("*.parquet")))

    def make() -> Any:
        data = (
            datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
            .shuffle(seed=0, buffer_size=1000)
            .with_format("torch")
        )
        return torch.utils.data.DataLoader(
            data, batch_size=given.batch, num_workers=given.workers, persistent_workers=given.workers > 0
        )

    consume(make, ids, given.limit, loader_epochs)


def hf_map_convert(data: Path, copy: Path) -> None:
    import datasets

    copy.mkdir(parents=True, exist_ok=True)
    files = sorted(map(str, data.glob("*.parquet")))
    datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(copy / "cache")).save_to_disk(
        str(copy / "arrow")
    )
    shutil.rmtree(copy / "cache")


def hf_map_read(given: Any) -> None:
    import datasets
    import torch

    def make() -> Any:
        data = datasets.load_from_disk(str(given.copy / "arrow")).with_format("torch")
        generator = torch.Generator().manual_seed(0)
        sampler = torch.utils.data.BatchSampler(
            torch.utils.data.RandomSampler(data, generator=generator), given.batch, drop_last=True
        )
        return torch.utils.data.DataLoader(
            data, sampler=sampler, batch_size=None, num_workers=given.workers, persistent_workers=given.workers > 0
        )

    consume(make, ids, given.limit, lambda loader, _: iter(loader))


# images: every peer makes a random crop of 224 x 224, mirrored half of the time, as torchvision does


def crop() -> Any:
    """torchvision's RandomResizedCrop and flip over PIL, from the bytes of a JPEG to a (3, 224, 224) tensor."""
    declare_operators()
    from PIL import Image
    from torchvision import transforms

    chain = transforms.Compose(
        [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
    )
    return lambda content: chain(Image.open(io.BytesIO(content)).convert("RGB"))


class Crops:
    """A map-style dataset of JPEG files."""

    def __init__(self, files: list[str]) -> None:
        self.files, self.crop = files, None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Any:
        self.crop = self.crop or crop()
        with open(self.files[number], "rb") as file:
            return int(Path(self.files[number]).stem), self.crop(file.read())


def files_convert(data: Path, copy: Path) -> None:
    copy.mkdir(parents=True, exist_ok=True)
    for row in rows_of(data):
        (copy / f"{row['id']:06d}.jpg").write_bytes(row["image"])


def files_crop(given: Any) -> None:
    import torch

    make = lambda: torch.utils.data.DataLoader(
        Crops(sorted(map(str, given.copy.glob("*.jpg")))),
        batch_size=given.batch,
        shuffle=True,
        num_workers=given.workers,
        persistent_workers=given.workers > 0,
    )
    consume(make, lambda batch: batch[0].numpy(), given.limit, lambda loader, _: iter(loader))


def litdata_crop(given: Any) -> None:
    import litdata

    litdata_folders()

    class Cropped(litdata.StreamingDataset):
        def __getitem__(self, number: Any) -> Any:
            row = super().__getitem__(number)
            return {"id": row["id"], "image": cropper(row["image"])}

    cropper = crop()
    make = lambda: litdata.StreamingDataLoader(
        Cropped(str(given.copy), shuffle=True, drop_last=True),
        batch_size=given.batch,
        num_workers=given.workers,
        persistent_workers=given.workers > 0,
    )
    consume(make, ids, given.limit, lambda loader, _: iter(loader))


def webdataset_crop(given: Any) -> None:
    import webdataset

    shards, cropper = sorted(map(str, given.copy.glob("*.tar"))), crop()

    def make() -> Any:
        data = webdataset.WebDataset(
            shards, shardshuffle=len(shards), detshuffle=True, nodesplitter=None, empty_check=False
        )
        data = (
            data.shuffle(1000).map(lambda sample: (int(sample["__key__"]), cropper(sample["jpg"]))).batched(given.batch)
        )
        return webdataset.WebLoader(
            data, batch_size=None, num_workers=given.workers, persistent_workers=given.workers > 0
        )

    consume(make, lambda batch: np.array(batch[0]), given.limit, lambda loader, _: iter(loader))


PEERS = {
    "litdata": (litdata_convert, litdata_read),
    "litdata-tokens": (litdata_tokens_convert, litdata_tokens_read),
    "litdata-parquet": (litdata_parquet_convert, litdata_parquet_read),
    "mosaic": (mosaic_convert, mosaic_read),
    "webdataset": (webdataset_convert, webdataset_read),
    "hf-streaming": (nothing, hf_streaming_read),
    "hf-map": (hf_map_convert, hf_map_read),
    "files-crop": (files_convert, files_crop),
    "litdata-crop": (litdata_convert, litdata_crop),
    "webdataset-crop": (webdataset_convert, webdataset_crop),
}

if __name__ == "__main__":
    multiprocessing.set_start_method("fork", force=True)
    sys.exit(main())
