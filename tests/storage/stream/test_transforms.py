"""Work on single rows: the same for a row on any rank and after any resume; images; what happens when it fails."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import gristmill.storage.stream as gs
from gristmill.errors import InputError
from gristmill.storage.stream.images import RandomResizedCrop, decode_image
from tests.storage.stream.helpers import ids_of

image = pytest.importorskip("PIL.Image")


def noisy(row, rng):
    return {"id": row["id"], "noise": rng.random(3).astype(np.float32), "text": row["text"].upper()}


def odd_ones_fail(row, rng):
    if row["id"] % 10 == 3:
        raise ValueError(f"I don't like {row['id']}")
    return row


def collect(loader):
    return {
        (batch.step * 10**6 + int(i)): noise
        for batch in loader
        for i, noise in zip(ids_of(batch), batch["noise"].tolist())
    }


def test_augmentation_belongs_to_the_row_and_epoch(folder):
    options = {"global_batch_size": 64, "epochs": 2, "transform": noisy, "columns": ["id", "text"]}
    expected = collect(gs.stream(folder, threads=0, **options))
    first, second = (
        {key % 10**6: noise for key, noise in expected.items() if (key // 10**6 < 15) == early}
        for early in (True, False)
    )
    assert all(first[i] != second[i] for i in first if i in second)
    parts = [collect(gs.stream(folder, threads=2, rank=rank, world_size=3, **options)) for rank in range(3)]
    assert {key: noise for part in parts for key, noise in part.items()} == expected
    loader = gs.stream(folder, threads=2, **options)
    iterator = iter(loader)
    for _ in range(5):
        next(iterator)
    resumed = gs.stream(folder, threads=0, **options)
    resumed.load_state_dict(loader.state_dict())
    assert collect(resumed) == {key: noise for key, noise in expected.items() if key // 10**6 >= 5}
    batch = next(iter(gs.stream(folder, threads=0, **options)))
    assert (
        set(batch) == {"id", "noise", "text"} and batch["noise"].shape == (64, 3) and batch["text"][0].startswith("ROW")
    )


def test_transform_in_processes(folder):
    options = {"global_batch_size": 64, "transform": noisy, "epochs": 1}
    assert collect(gs.stream(folder, workers=1, **options)) == collect(gs.stream(folder, threads=0, **options))


def report_process(row, rng):
    return {"id": row["id"], "pid": os.getpid()}


PROGRAM = """
import os, signal, sys
import gristmill.storage.stream as gs
from tests.storage.stream.test_transforms import report_process
if __name__ == "__main__":
    batch = next(iter(gs.stream(sys.argv[1], transform=report_process, workers=1, global_batch_size=10)))
    print(int(batch["pid"][0]), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_worker_processes_end_when_the_training_is_killed(folder, tmp_path):
    (tmp_path / "train.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    with subprocess.Popen(
        [sys.executable, tmp_path / "train.py", folder], stdout=subprocess.PIPE, text=True, env=environment
    ) as training:
        worker = int(training.stdout.readline())
        assert training.wait(timeout=60) == -signal.SIGKILL
    assert worker != training.pid
    for _ in range(300):
        if not is_running(worker):
            break
        time.sleep(0.1)
    assert not is_running(worker)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("threads", [0, 2])
def test_a_failing_transform_names_its_row_or_is_replaced(folder, threads):
    with pytest.raises(InputError, match=r"row 'u\d*3', epoch 0: the transform failed: ValueError: I don't like \d*3"):
        list(gs.stream(folder, transform=odd_ones_fail, threads=threads))
    loader = gs.stream(folder, transform=odd_ones_fail, on_bad_row="substitute", threads=threads, global_batch_size=50)
    batches = list(loader)
    good = sorted(i for batch in batches for i, ok in zip(ids_of(batch), batch["_valid"].tolist()) if ok)
    assert good == [i for i in range(1003) if i % 10 != 3]
    assert loader.bad_rows == 100 and all(i % 10 != 3 for batch in batches for i in ids_of(batch))


def jpeg(height, width, seed):
    small = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    content = io.BytesIO()
    image.fromarray(small).resize((width, height)).save(content, "JPEG", quality=92)
    return content.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    base = tmp_path_factory.mktemp("images")
    contents = [jpeg(60 + i % 5, 80, i) for i in range(40)]
    png = io.BytesIO()
    image.fromarray(np.full((9, 7, 3), (10, 20, 30), np.uint8)).save(png, "PNG")
    contents[7] = png.getvalue()
    table = pa.table(
        {
            "id": range(40),
            "image": pa.array([{"bytes": content, "path": None} for content in contents]),
            "raw": contents,
        }
    )
    pq.write_table(table, base / "t.parquet", row_group_size=8)
    return base, contents


def test_decoded_images_are_those_of_pillow(images):
    base, contents = images
    seen = 0
    for batch in gs.stream(base, decode={"image": "rgb", "raw": "gray"}, global_batch_size=16):
        for i, rgb, gray in zip(ids_of(batch), batch["image"], batch["raw"]):
            expected = np.asarray(image.open(io.BytesIO(contents[i])).convert("RGB")).astype(int)
            assert rgb.dtype == torch.uint8 and rgb.shape == expected.shape and gray.shape == (*expected.shape[:2], 1)
            assert np.abs(rgb.numpy().astype(int) - expected).mean() < 1.5
            seen += 1
    assert seen == 40


def test_random_crops_are_one_tensor_and_repeatable(images):
    base, _ = images
    options = {"columns": ["id", "raw"], "decode": {"raw": RandomResizedCrop(24)}, "global_batch_size": 10}
    one, two = (
        {
            i: crop
            for batch in gs.stream(base, seed=4, threads=threads, **options)
            for i, crop in zip(ids_of(batch), batch["raw"])
        }
        for threads in (0, 2)
    )
    assert one.keys() == set(range(40)) and all(torch.equal(one[i], two[i]) for i in one)
    assert one[0].shape == (24, 24, 3)


@pytest.mark.parametrize("threads", [0, 2])
def test_images_of_one_size_are_decoded_into_the_batch_and_stay_as_they_are(tmp_path, threads):
    rng = np.random.default_rng(0)
    contents = []
    for _ in range(60):
        image.fromarray(rng.integers(0, 255, (100, 120, 3), np.uint8)).save(content := io.BytesIO(), "JPEG", quality=90)
        contents.append(content.getvalue())
    assert min(map(len, contents)) > 8192  # so that views are gathered, not bytes
    contents[11] = contents[11][:5000]
    struct = pa.array([{"bytes": content, "path": None} for content in contents])
    pq.write_table(
        pa.table({"id": range(60), "image": contents, "kept": contents, "struct": struct}),
        tmp_path / "t.parquet",
        row_group_size=7,
    )
    options = {
        "decode": {"image": "rgb", "struct": "gray"},
        "on_bad_row": "substitute",
        "global_batch_size": 6,
        "threads": threads,
        "epochs": 2,
    }
    batches = list(gs.stream(tmp_path, **options))
    assert sum(int((~batch["_valid"]).sum()) for batch in batches) == 2
    for batch in batches:
        assert batch["image"].shape == (6, 100, 120, 3) and batch["struct"].shape == (6, 100, 120, 1)
        for i, rgb, gray, kept in zip(ids_of(batch), batch["image"], batch["struct"], batch["kept"]):
            assert type(kept) is bytes and kept == contents[i]
            assert np.array_equal(rgb, decode_image(kept)) and np.array_equal(gray, decode_image(kept, "gray"))


def upside_down(row, _rng):
    return {**row, "image": row["image"][::-1]} if row["id"] % 2 else row


def test_a_transform_may_replace_images_that_were_decoded_in_place(tmp_path):
    content = jpeg(64, 80, 1)
    pq.write_table(pa.table({"id": range(20), "image": [content] * 20}), tmp_path / "t.parquet")
    expected = decode_image(content)
    for workers in (0, 1):
        for batch in gs.stream(
            tmp_path, decode={"image": "rgb"}, transform=upside_down, global_batch_size=10, workers=workers
        ):
            for i, found in zip(ids_of(batch), batch["image"]):
                assert np.array_equal(found, expected[::-1] if i % 2 else expected)


def test_scaled_decoding_gives_the_same_crop():
    content = jpeg(640, 960, 1)
    full = RandomResizedCrop(64)
    crop = full(content, np.random.default_rng(3))
    top, left, h, w = full._part(640, 960, np.random.default_rng(3))
    expected = np.asarray(
        image.open(io.BytesIO(content)).crop((left, top, left + w, top + h)).resize((64, 64), image.Resampling.BOX)
    ).astype(int)
    if np.abs(crop.astype(int) - expected).mean() > np.abs(crop[:, ::-1].astype(int) - expected).mean():
        crop = crop[:, ::-1]
    assert np.abs(crop.astype(int) - expected).mean() < 6


def test_real_broken_images_are_errors_never_crashes(shared_data):
    good = bad = 0
    for path in sorted((shared_data / "image/pillow_formats_and_broken").rglob("*")):
        if path.suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp", ".bmp"):
            continue
        try:
            found = decode_image(path.read_bytes())
        except InputError:
            bad += 1
        else:
            assert found.ndim == 3 and found.shape[2] == 3 and found.dtype == np.uint8
            good += 1
    assert good > 10 and bad > 0


def test_a_broken_image_names_its_row(tmp_path):
    pq.write_table(
        pa.table({"_uid": ["a", "b", "c"], "image": [jpeg(8, 8, 1), b"\xff\xd8\xff junk", None]}),
        tmp_path / "t.parquet",
    )
    with pytest.raises(
        InputError, match=r"row '[bc]', epoch 0: column 'image' can't be decoded: InputError: not a readable"
    ):
        list(gs.stream(tmp_path, decode={"image": "rgb"}, threads=0))
    batch = next(iter(gs.stream(tmp_path, decode={"image": "rgb"}, threads=0, on_bad_row="substitute")))
    assert sorted(batch["_valid"].tolist()) == [False, False, True] and batch["image"].shape == (3, 8, 8, 3)
