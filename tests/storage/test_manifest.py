"""Manifests: what they say survives a round trip, and layout depends on nothing but the files in their order."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import CorruptDatasetError, DatasetError
from gristmill.storage.manifest import FILES, FileEntry, FileList, Manifest
from gristmill.storage.versions import describe

entries = st.builds(
    FileEntry,
    path=st.text(max_size=8),
    split=st.none() | st.sampled_from(["train", "test"]),
    rows=st.integers(0, 9),
    bytes=st.integers(0, 2**40),
    sha256=st.text("0123456789abcdef", min_size=4, max_size=4),
    row_group_rows=st.lists(st.integers(0, 2**31 - 1), max_size=3).map(tuple),
    row_sum=st.integers(0, 2**128 - 1).map(lambda n: f"{n:032x}"),
    side_cars=st.lists(st.text(max_size=3), max_size=2).map(tuple),
)


@given(st.lists(entries, max_size=8), st.integers(0, 8))
def test_a_list_keeps_its_entries_and_its_layout_however_cut(files: list[FileEntry], cut: int) -> None:
    whole = FileList.of(files)
    assert list(whole) == files and len(whole) == len(files)
    pieces = FileList(
        pa.concat_tables([FILES.empty_table(), whole.table.slice(0, cut), FileList.of(files[cut:]).table])
    )
    assert list(pieces) == files and pieces.layout == whole.layout
    assert whole.num_rows == sum(entry.rows for entry in files) and whole.num_bytes == sum(
        entry.bytes for entry in files
    )
    assert whole.row_sum == sum(int(entry.row_sum, 16) for entry in files) % 2**128
    assert sorted(whole.paths()) == sorted(
        [*(entry.path for entry in files), *(name for entry in files for name in entry.side_cars)]
    )
    for split in ("train", "test"):
        assert list(whole.of_split(split)) == [entry for entry in files if entry.split == split]
    assert whole.splits() == {
        name: sum(e.rows for e in files if e.split == name) for name in dict.fromkeys(e.split for e in files) if name
    }
    assert [FileEntry.from_dict(json.loads(json.dumps(entry.to_dict()))) for entry in files] == files


BASE = FileEntry("data/a", None, 10, 100, "00", (4, 6), "0" * 32)


@pytest.mark.parametrize(
    "other",
    [
        [replace(BASE, path="data/b")],
        [replace(BASE, bytes=101)],
        [replace(BASE, rows=11)],
        [replace(BASE, row_group_rows=(6, 4))],
        [replace(BASE, row_group_rows=(10,))],
        [BASE, BASE],
        [],
    ],
)
def test_layout_sees_every_difference(other: list[FileEntry]) -> None:
    assert FileList.of(other).layout != FileList.of([BASE]).layout


def test_layout_sees_order_and_where_texts_and_lists_end() -> None:
    def layout(*files: FileEntry) -> str:
        return FileList.of(files).layout

    second = replace(BASE, path="data/b", row_group_rows=(10,))
    assert layout(BASE, second) != layout(second, BASE)
    assert layout(replace(BASE, path="ab"), replace(BASE, path="c")) != layout(
        replace(BASE, path="a"), replace(BASE, path="bc")
    )
    assert layout(replace(BASE, row_group_rows=(1, 2)), replace(BASE, row_group_rows=(3,))) != layout(
        replace(BASE, row_group_rows=(1,)), replace(BASE, row_group_rows=(2, 3))
    )


def test_layout_does_not_see_the_rest() -> None:
    assert (
        FileList.of([replace(BASE, sha256="ff", row_sum="1" * 32, side_cars=("x",), split="train")]).layout
        == FileList.of([BASE]).layout
    )


def test_layout_is_the_documented_formula() -> None:
    for files in ([], [BASE], [BASE, replace(BASE, path="é", row_group_rows=())]):
        assert FileList.of(files).layout == _by_hand(files)


def _by_hand(files: list[FileEntry]) -> str:
    import hashlib
    import struct

    def numbers(values: list[int]) -> bytes:
        return struct.pack(f"<{len(values)}q", *values)

    paths = [entry.path.encode() for entry in files]
    content = numbers([len(files)]) + numbers([len(path) for path in paths]) + b"".join(paths)
    content += (
        numbers([e.bytes for e in files])
        + numbers([e.rows for e in files])
        + numbers([len(e.row_group_rows) for e in files])
    )
    return hashlib.sha256(content + numbers([n for e in files for n in e.row_group_rows])).hexdigest()


SCHEMA = pa.schema(
    [
        pa.field("_uid", pa.large_string(), nullable=False),
        ("e", pa.list_(pa.float16(), 3)),
        ("z", pa.uint64()),
        ("t", pa.timestamp("ns", "UTC")),
    ]
)
FACTS = {
    "pipeline": {"name": "docs", "steps": [1, None, {"a": True}]},
    "engine": "dask",
    "counts": {"read": 3, "kept": 2},
    "gate": ["a"],
    "ledger": "ledger/x",
    "earlier_ledgers": ["ledger/v", "ledger/w"],
    "parent": 2,
}
MANIFEST = describe(FileList.of([BASE]), SCHEMA, splits=["train", "test", "a"], **FACTS)


def test_a_manifest_survives_json() -> None:
    again = Manifest.from_json(MANIFEST.to_json(), "x")
    assert again.to_json() == MANIFEST.to_json()
    assert replace(again, parts=()) == replace(MANIFEST, parts=())
    assert again.schema.equals(SCHEMA, check_metadata=True) and list(again.splits) == ["train", "test", "a"]
    assert again.ledgers == ["ledger/v", "ledger/w", "ledger/x"]


def test_a_newer_format_is_refused_with_advice() -> None:
    content = json.dumps({"format_version": 2, "something": "new"}).encode()
    with pytest.raises(
        DatasetError, match="'here' has format version 2, this gristmill reads up to 1: install a newer gristmill"
    ):
        Manifest.from_json(content, "here")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"format_version": 1}',
        b"\xff\xfe",
        MANIFEST.to_json()[:-50],
        MANIFEST.to_json().replace(b'"arrow": "', b'"arrow": "AAAA'),
    ],
)
def test_what_is_no_manifest_is_named(content: bytes) -> None:
    with pytest.raises(CorruptDatasetError, match="'here' is not a readable manifest"):
        Manifest.from_json(content, "here")
