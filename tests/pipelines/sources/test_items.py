"""Work items partition the input, and are found again by content."""

from __future__ import annotations

import gzip
import os
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import InputError, InputNotFoundError
from gristmill.pipelines.sources import JsonlSource, ParquetSource, TextSource, plan_items
from gristmill.pipelines.sources import files as files_module

from .helpers import lines, write


def source(path: object) -> JsonlSource:
    return JsonlSource(path=str(path), name="s")


@given(
    st.lists(st.lists(st.integers(1, 400), max_size=30), min_size=1, max_size=6),
    st.integers(1, 1000),
    st.integers(0, 500),
)
def test_pieces_partition_the_files_at_line_ends(tmp_path_factory, sizes, item_bytes, small):
    folder = tmp_path_factory.mktemp("in")
    contents = {
        write(folder / f"{i}.jsonl", b"".join(b"x" * (n - 1) + b"\n" for n in line)): b""
        for i, line in enumerate(sizes)
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gristmill.pipelines.sources.items.SMALL_BYTES", small)
        items = plan_items(source(folder), item_bytes=item_bytes)
    order = [(piece.file, piece.start) for item in items for piece in item.pieces]
    assert order == sorted(order)
    for path in contents:
        content = open(path, "rb").read()
        pieces = [piece for item in items for piece in item.pieces if piece.file == path]
        assert b"".join(content[piece.start : piece.stop] for piece in pieces) == content
        assert all(piece.start == 0 or content[piece.start - 1] == 10 for piece in pieces)
        assert all(piece.stop - piece.start <= item_bytes + 400 or piece.stop - piece.start < small for piece in pieces)
    assert sum(item.bytes for item in items) == sum(os.path.getsize(path) for path in contents)


def test_many_small_files_share_items_and_a_new_one_changes_few(tmp_path, monkeypatch):
    monkeypatch.setattr("gristmill.pipelines.sources.items.BUNDLE_BYTES", 64 << 10)
    for i in range(1000):
        write(tmp_path / f"{i:05d}.txt", f"document {i} ".encode() * 100)
    text = TextSource(path=str(tmp_path), name="t")
    before = plan_items(text)
    assert 10 < len(before) < 100 and [f for item in before for f in item.files] == sorted(
        str(p) for p in tmp_path.iterdir()
    )
    write(tmp_path / "00500x.txt", b"new " * 300)
    after = plan_items(text)
    assert len({item.content for item in after} - {item.content for item in before}) <= 2


def test_content_is_the_bytes_alone(tmp_path):
    one = plan_items(source(write(tmp_path / "a" / "x.jsonl", lines({"a": 1}))))[0]
    same = plan_items(source(write(tmp_path / "b" / "y.jsonl", lines({"a": 1}))))[0]
    other = plan_items(source(write(tmp_path / "b" / "z.jsonl", lines({"a": 2}))))[0]
    assert one.content == same.content != other.content
    digest = xxhash.xxh3_128_hexdigest(lines({"a": 1}))
    assert one.content == xxhash.xxh3_128_hexdigest(digest.encode())
    assert pickle.loads(pickle.dumps(one)) == one and len(pickle.dumps(one)) < 1000


def test_known_files_are_not_read_again(tmp_path, monkeypatch):
    for i in range(5):
        write(tmp_path / f"{i}.jsonl", lines({"a": i}))
    cache: dict[str, str] = {}
    first = plan_items(source(tmp_path), cache=cache)
    read = []
    real = files_module.content_hash
    monkeypatch.setattr(
        "gristmill.pipelines.sources.items.content_hash", lambda path, *args: (read.append(path), real(path, *args))[1]
    )
    assert plan_items(source(tmp_path), cache=cache) == first and not read
    write(tmp_path / "3.jsonl", lines({"a": 33}))
    assert plan_items(source(tmp_path), cache=cache) != first and read == [str(tmp_path / "3.jsonl")]


def test_compressed_files_are_one_item_whatever_their_name(tmp_path):
    content = lines(*[{"a": os.urandom(500).hex()} for _ in range(3000)])
    write(tmp_path / "a.jsonl", gzip.compress(content, 1))
    write(tmp_path / "b.jsonl.zst", pa.compress(content, codec="zstd", asbytes=True))
    write(tmp_path / "c.jsonl.gz", content)  # plain, for all its name
    items = plan_items(source(tmp_path), item_bytes=1 << 20)
    assert [os.path.basename(item.files[0]) for item in items] == ["a.jsonl", "b.jsonl.zst", *["c.jsonl.gz"] * 3]


def test_row_groups_are_cut_and_never_split(tmp_path):
    pq.write_table(pa.table({"a": [os.urandom(100) for _ in range(1000)]}), tmp_path / "a.parquet", row_group_size=100)
    parts = [
        (item.pieces[0].start, item.pieces[0].stop)
        for item in plan_items(ParquetSource(path=str(tmp_path), name="p"), item_bytes=25_000)
    ]
    assert parts == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert len({item.content for item in plan_items(ParquetSource(path=str(tmp_path), name="p"), item_bytes=1)}) == 10


def test_order_of_patterns_does_not_matter_and_no_file_comes_twice(tmp_path):
    paths = [write(tmp_path / sub / f"{i}.jsonl", lines({"a": i})) for sub in ("x", "y/z") for i in range(3)]
    write(tmp_path / "x" / "_work.jsonl", b"")
    write(tmp_path / ".hidden" / "h.jsonl", b"")
    write(tmp_path / "x" / "notes.txt", b"")
    for given_ in (
        [str(tmp_path)],
        [str(tmp_path / "**" / "*[0-9].jsonl")],
        [str(tmp_path / "y"), str(tmp_path / "x" / "*.jsonl"), paths[0]],
    ):
        items = plan_items(JsonlSource(path=given_, name="s"))
        assert [f for item in items for f in item.files if not os.path.basename(f).startswith("_")] == sorted(paths)


def test_paths_that_match_nothing(tmp_path):
    write(tmp_path / "raw" / "data.jsonl", b"")
    (tmp_path / "empty").mkdir()
    for path, text in [
        (tmp_path / "raw" / "date.jsonl", r"no input matches '.*date\.jsonl'\. Did you mean 'data\.jsonl'\?"),
        (tmp_path / "rav" / "*.jsonl", "There is no folder '.*rav'"),
        (tmp_path / "raw" / "*.json", "no input matches"),
        (tmp_path / "empty", "folder '.*empty' has no file ending with .jsonl"),
    ]:
        with pytest.raises(InputNotFoundError, match=text):
            plan_items(source(path))


def test_what_is_no_file_or_not_readable(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(InputError, match="not a regular file"):
        plan_items(source(tmp_path / "pipe.jsonl"))
    os.symlink(tmp_path / "nowhere", tmp_path / "link.jsonl")
    with pytest.raises(InputError, match="can't read '.*link.jsonl': No such file"):
        plan_items(source(tmp_path / "link.jsonl"))
    path = write(tmp_path / "in.jsonl", lines({"a": 1}))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="no permission to read '.*in.jsonl'"):
        plan_items(source(path))
    monkeypatch.undo()
    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(InputError, match="can't read '.*in.jsonl': Permission denied"):
        plan_items(source(path))


def denied(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")
