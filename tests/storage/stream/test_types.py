"""Every Arrow type: what it becomes, or why it can't be streamed."""

import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import gristmill.storage.stream as gs
from gristmill.errors import CorruptDatasetError, InputError, SchemaMismatchError, UsageError
from gristmill.storage.stream.columns import plan_columns
from tests.storage.stream.helpers import write_rows

N = 57


def one_batch(tmp_path, columns, **options):
    pq.write_table(pa.table({"row": pa.array(range(N)), **columns}), tmp_path / "t.parquet", row_group_size=10)
    batch = next(iter(gs.stream(tmp_path, global_batch_size=N, threads=0, **options)))
    return batch, np.argsort(batch["row"].numpy())


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (pa.int8(), torch.int8),
        (pa.int16(), torch.int16),
        (pa.int32(), torch.int32),
        (pa.int64(), torch.int64),
        (pa.uint8(), torch.uint8),
        (pa.uint16(), torch.int32),
        (pa.uint32(), torch.int64),
        (pa.float16(), torch.float16),
        (pa.float32(), torch.float32),
        (pa.float64(), torch.float64),
        (pa.bool_(), torch.bool),
    ],
)
def test_numbers(tmp_path, kind, dtype):
    values = [bool(i % 2) if kind == pa.bool_() else i for i in range(N)]
    batch, back = one_batch(tmp_path, {"x": pa.array(values, kind)})
    assert batch["x"].dtype == dtype and batch["x"][back].tolist() == values
    assert batch["x"].is_contiguous() and "x_valid" not in batch
    batch["x"][0] = 1  # the caller's own memory


def test_nulls_become_a_mask(tmp_path):
    values = [None if i % 3 == 0 else i for i in range(N)]
    kinds = {"i": pa.int32(), "f": pa.float64(), "b": pa.bool_(), "t": pa.timestamp("ms"), "s": pa.string()}
    batch, back = one_batch(
        tmp_path,
        {
            **{
                name: pa.array(
                    [None if v is None else bool(v) if name == "b" else str(v) if name == "s" else v for v in values],
                    kind,
                )
                for name, kind in kinds.items()
            },
            "full": pa.array(range(N)),
            "v": pa.array([None if v is None else [v, v + 1] for v in values], pa.list_(pa.int16(), 2)),
            "r": pa.array([None if v is None else [v] * (v % 4) for v in values], pa.list_(pa.int16())),
            "nan": pa.array([float("nan")] * N),
        },
    )
    expected = [v is not None for v in values]
    for name in ("i", "f", "b", "t", "v", "r"):
        assert batch[f"{name}_valid"][back].tolist() == expected == batch.valid(name)[back].tolist()
    assert "full_valid" not in batch and "nan_valid" not in batch and batch.valid("nan").all()
    assert batch["i"][back].tolist() == [v or 0 for v in values]
    assert batch["v"][back].tolist() == [[v, v + 1] if v else [0, 0] for v in values]
    assert [batch["s"][i] for i in back] == [None if v is None else str(v) for v in values]
    assert batch["r"].lengths()[back].tolist() == [(v or 0) % 4 for v in values]


def test_lists(tmp_path):
    rows = [list(range(i % 7)) for i in range(N)]
    batch, back = one_batch(
        tmp_path,
        {
            "a": pa.array(rows, pa.list_(pa.int32())),
            "b": pa.array(rows, pa.large_list(pa.float64())),
            "m": pa.array([[[i, 1], [2, 3], [4, 5]] for i in range(N)], pa.list_(pa.list_(pa.int8(), 2), 3)),
            "words": pa.array([[str(x) for x in row] for row in rows]),
            "deep": pa.array([[row] for row in rows]),
        },
    )
    for name, dtype in (("a", torch.int32), ("b", torch.float64)):
        values, offsets = batch[name]
        assert values.dtype == dtype and offsets.dtype == torch.int64
        assert [values[offsets[i] : offsets[i + 1]].tolist() for i in back] == rows
    padded = batch["a"].padded(-1)
    assert padded[back].tolist() == [row + [-1] * (6 - len(row)) for row in rows]
    assert batch["a"].padded(-1, 3)[back].tolist() == [(row + [-1] * 3)[:3] for row in rows]
    assert batch["m"].shape == (N, 3, 2) and batch["m"][back][5].tolist() == [[5, 1], [2, 3], [4, 5]]
    assert [batch["words"][i] for i in back] == [[str(x) for x in row] for row in rows]
    assert [batch["deep"][i] for i in back] == [[row] for row in rows]
    padded, back = one_batch(tmp_path, {"a": pa.array(rows, pa.list_(pa.int32()))}, pad={"a": 9})
    assert padded["a"].shape == (N, 6) and padded["a_lengths"][back].tolist() == [len(row) for row in rows]


def test_times_decimals_text_bytes_structs_and_dictionaries(tmp_path):
    batch, back = one_batch(
        tmp_path,
        {
            "ts": pa.array(range(N), pa.timestamp("us", "Europe/Paris")),
            "d": pa.array([dt.date(1970, 1, 1 + i % 28) for i in range(N)]),
            "dur": pa.array(range(N), pa.duration("s")),
            "time": pa.array(range(N), pa.time32("ms")),
            "dec": pa.array([Decimal(i) / 4 for i in range(N)], pa.decimal128(12, 2)),
            "text": pa.array([f"é{i}" for i in range(N)], pa.large_string()),
            "raw": pa.array([bytes([i]) for i in range(N)]),
            "fixed": pa.array([b"ab"] * N, pa.binary(2)),
            "image": pa.array([{"bytes": bytes([i]), "path": f"{i}.jpg", "size": {"h": i}} for i in range(N)]),
            "label": pa.array([["cat", "dog", None][i % 3] for i in range(N)]).dictionary_encode(),
        },
    )
    for name in ("ts", "dur", "time"):
        assert batch[name].dtype == torch.int64 and batch[name][back].tolist() == list(range(N))
    assert batch["d"][back].tolist() == [i % 28 for i in range(N)]
    assert batch["dec"][back].tolist() == [i / 4 for i in range(N)]
    assert [batch["text"][i] for i in back] == [f"é{i}" for i in range(N)]
    assert (
        [batch["raw"][i] for i in back] == [batch["image"]["bytes"][i] for i in back] == [bytes([i]) for i in range(N)]
    )
    assert batch["fixed"] == [b"ab"] * N
    assert batch["image"]["size"]["h"][back].tolist() == list(range(N))
    codes = gs.stream(tmp_path, threads=0).dictionaries["label"]
    assert codes == ["cat", "dog"]
    assert [
        codes[c] if ok else None for c, ok in zip(batch["label"][back].tolist(), batch["label_valid"][back].tolist())
    ] == [["cat", "dog", None][i % 3] for i in range(N)]


def test_dictionary_codes_mean_the_same_in_every_file(tmp_path):
    for name, words in (("a", ["x", "y"]), ("b", ["z", "x"])):
        pq.write_table(
            pa.table({"w": pa.array(words * 20).dictionary_encode()}), tmp_path / f"{name}.parquet", row_group_size=7
        )
    loader = gs.stream(tmp_path, shuffle=False, global_batch_size=80, threads=0)
    batch = next(iter(loader))
    assert [loader.dictionaries["w"][code] for code in batch["w"].tolist()] == ["x", "y"] * 20 + ["z", "x"] * 20


def test_types_that_cant_be_streamed_are_named_before_the_first_batch(tmp_path, monkeypatch):
    for kind in (
        pa.month_day_nano_interval(),
        pa.dense_union([pa.field("a", pa.int8())]),
        pa.run_end_encoded(pa.int32(), pa.int8()),
    ):
        with pytest.raises(UsageError, match=r"data: column 'odd' is .*columns=\[...\]"):
            plan_columns(pa.schema([("ok", pa.int8()), ("odd", kind)]), lambda name: None, "data")
    pq.write_table(
        pa.table({"s": pa.array([{"d": "x"}], pa.struct([("d", pa.dictionary(pa.int32(), pa.string()))]))}),
        tmp_path / "t.parquet",
    )
    with pytest.raises(UsageError, match="column 's.d': dictionaries inside a struct"):
        gs.stream(tmp_path)


def test_a_column_with_the_name_of_a_mask_is_refused(tmp_path):
    columns = {
        "x": [1, None],
        "x_valid": [True, True],
        "l": pa.array([[1], [2, 3]]),
        "l_lengths": [5, 6],
        "_valid": [1, 0],
        "text": ["a", "b"],
        "text_valid": [1, 1],
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="column 'x_valid' has the name that batches give to the mask of 'x'"):
        gs.stream(tmp_path)
    rest = ["l", "l_lengths", "_valid", "text", "text_valid"]  # what has no mask, or isn't asked for
    assert set(next(iter(gs.stream(tmp_path, columns=rest)))) == set(rest)
    for changes, name in (
        ({"pad": {"l": 0}}, "l_lengths"),
        ({"tail": "pad"}, "_valid"),
        ({"on_bad_row": "substitute"}, "_valid"),
    ):
        with pytest.raises(UsageError, match=f"column '{name}' has the name"):
            gs.stream(tmp_path, columns=rest, **changes)


def test_lists_are_padded_after_a_transform(tmp_path):
    rows = [[1, 2, 3], None, [], [4]]
    pq.write_table(pa.table({"a": pa.array(rows, pa.list_(pa.int32()))}), tmp_path / "t.parquet")
    options = {"pad": {"a": 9}, "shuffle": False, "threads": 0}
    plain, (twice,) = next(iter(gs.stream(tmp_path, **options))), gs.stream(tmp_path, transform=double, **options)
    assert plain["a"].tolist() == [[1, 2, 3], [9, 9, 9], [9, 9, 9], [4, 9, 9]] and twice["a"].dtype == plain["a"].dtype
    assert twice["a"].tolist() == [[2, 4, 6], [9, 9, 9], [9, 9, 9], [8, 9, 9]] and twice["a_lengths"].tolist() == [
        3,
        0,
        0,
        1,
    ]
    (alike,) = gs.stream(tmp_path, transform=lambda row, rng: {"a": np.ones(2, np.int16)}, **options)
    assert alike["a"].tolist() == [[1, 1]] * 4 and alike["a_lengths"].tolist() == [2] * 4
    for wrong in ({"a": 1}, {"a": "x"}, {"b": 1}):
        with pytest.raises(UsageError, match="must return a one-dimensional array as 'a'"):
            list(gs.stream(tmp_path, transform=lambda row, rng, wrong=wrong: wrong, **options))


def double(row, rng):
    return {"a": None if row["a"] is None else row["a"] * 2}


def test_a_column_of_nulls_is_a_list_of_none(tmp_path):
    batch, _ = one_batch(tmp_path, {"hole": pa.nulls(N)})
    assert batch["hole"] == [None] * N


def test_a_null_inside_a_list_of_numbers_is_named(tmp_path):
    for kind in (pa.list_(pa.int32()), pa.list_(pa.int32(), 2)):
        pq.write_table(pa.table({"v": pa.array([[1, 2], [None, 4]], kind)}), tmp_path / "t.parquet")
        with pytest.raises(InputError, match="t.parquet', row group 0, column 'v'"):
            list(gs.stream(tmp_path, threads=0))


def test_files_that_differ(tmp_path):
    write_rows(tmp_path / "a.parquet", range(20))
    table = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(table.select(table.column_names[::-1]), tmp_path / "b.parquet")
    assert sum(len(batch["id"]) for batch in gs.stream(tmp_path, threads=0)) == 40  # another order of columns is fine
    pq.write_table(table.set_column(0, "id", table["id"].cast(pa.int32())), tmp_path / "c.parquet")
    with pytest.raises(SchemaMismatchError, match=r"column 'id' is int32 in .*c.parquet' and int64 in .*a.parquet'"):
        gs.stream(tmp_path)
    pq.write_table(table.drop_columns("x"), tmp_path / "c.parquet")
    with pytest.raises(SchemaMismatchError, match="no column 'x'"):
        gs.stream(tmp_path)


def flip_a_byte(path, column, group):
    metadata = pq.read_metadata(path)
    names = [metadata.row_group(group).column(i).path_in_schema for i in range(metadata.num_columns)]
    chunk = metadata.row_group(group).column(names.index(column))
    content = bytearray(path.read_bytes())
    at = chunk.data_page_offset + chunk.total_compressed_size - 3
    content[at] ^= 0xFF
    path.write_bytes(content)


@pytest.fixture
def corrupt(tmp_path):
    columns = {
        "id": pa.array(range(100)),
        "x": pa.array(np.random.default_rng(0).random(100)),
        "y": pa.array(np.random.default_rng(1).random(100)),
    }
    pq.write_table(
        pa.table(columns),
        tmp_path / "bad.parquet",
        row_group_size=10,
        write_page_checksum=True,
        use_dictionary=False,
        compression="none",
    )
    flip_a_byte(tmp_path / "bad.parquet", "y", 4)
    return tmp_path


@pytest.mark.parametrize("threads", [0, 2])
def test_a_flipped_bit_names_file_row_group_and_column(corrupt, threads):
    with pytest.raises(
        CorruptDatasetError, match=r"bad.parquet', row group 4, column 'y' can't be read: .*checksum"
    ) as caught:
        list(gs.stream(corrupt, threads=threads))
    assert caught.value.context["group"] == 4


def test_bad_rows_can_be_replaced(corrupt, caplog):
    def run():
        loader = gs.stream(corrupt, global_batch_size=16, seed=2, threads=0, on_bad_row="substitute")
        return [(batch["id"].tolist(), batch["_valid"].tolist()) for batch in loader], loader.bad_rows

    batches, count = run()
    assert run() == (batches, count)
    good = [i for ids, valid in batches for i, ok in zip(ids, valid) if ok]
    assert sorted(good) == [i for i in range(100) if not 40 <= i < 50]
    assert count == 10 and {len(ids) for ids, _ in batches} == {16, 4}
    assert [i for ids, valid in batches for i, ok in zip(ids, valid) if not ok] == [
        i + 10 for i in order(corrupt) if 40 <= i < 50
    ]
    assert "row group 4, column 'y'" in caplog.text


def order(corrupt, **options):
    return [
        i
        for batch in gs.stream(corrupt, global_batch_size=16, seed=2, threads=0, columns=["id"], **options)
        for i in batch["id"].tolist()
    ]


@pytest.mark.parametrize("size", [1, 3, 16])
def test_what_replaces_a_row_depends_neither_on_ranks_nor_on_a_resume(corrupt, size):
    """Also where a rank's whole part of a batch can't be read. Rows are counted when they are handed out."""

    def make(rank=0, world_size=1):
        return gs.stream(
            corrupt, global_batch_size=size, rank=rank, world_size=world_size, shuffle=False, on_bad_row="substitute"
        )

    reference = [batch["id"].tolist() for batch in make()]
    assert sum(reference, []) == [*range(40), *range(50, 60), *range(50, 100)]
    parts = [[batch["id"].tolist() for batch in make(rank, 3)] for rank in range(3)]
    assert [sum(ids, []) for ids in zip(*parts)] == reference
    first, stop = make(), 45 // size
    handed = [batch["_valid"].tolist() for _, batch in zip(range(stop), first)]
    assert first.bad_rows == sum(handed, []).count(False) == max(0, stop * size - 40)
    second = make()
    second.load_state_dict(first.state_dict())
    assert [batch["id"].tolist() for batch in second] == reference[stop:]


def test_data_that_nothing_can_replace_is_an_error(tmp_path):
    pq.write_table(
        pa.table({"id": pa.array(range(30))}),
        tmp_path / "bad.parquet",
        row_group_size=10,
        write_page_checksum=True,
        use_dictionary=False,
        compression="none",
    )
    for group in range(3):
        flip_a_byte(tmp_path / "bad.parquet", "id", group)
    with pytest.raises(CorruptDatasetError, match="column 'id' can't be read"):
        list(gs.stream(tmp_path, on_bad_row="substitute"))
