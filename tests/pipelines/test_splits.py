"""Splits: rows that are alike or of one group stay together, measured by brute force; shares are met; nothing depends on files or on other rows."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse

from gristmill.errors import ColumnError, PipelineError
from gristmill.pipelines import splits
from gristmill.pipelines.assign import share_of
from gristmill.pipelines.exchange import Chunks
from gristmill.pipelines.splits import bucket_pairs

from .conftest import corpus, document, rows_of, shingles, variant, write_jsonl

SPLIT = {"train": 0.6, "validation": 0.2, "test": 0.2}


def split_of(result) -> dict[str, str]:
    """The split of each uid."""
    names = result.dataset.splits
    return {
        uid: name for name in names for uid in result.dataset.to_table(split=name, columns=["_uid"])["_uid"].to_pylist()
    }


def highest_across(result, column: str = "text") -> float:
    """The highest Jaccard similarity of two rows of different splits, by comparing them all: shared shingles are counted by a matrix product."""
    rows = [
        (name, text)
        for name in result.dataset.splits
        for text in result.dataset.to_table(split=name, columns=[column])[column].to_pylist()
    ]
    sets = [shingles(text) for _, text in rows]
    numbers = {shingle: number for number, shingle in enumerate(set().union(*sets))}
    places = [(row, numbers[shingle]) for row, found in enumerate(sets) for shingle in found]
    held = scipy.sparse.csr_array((np.ones(len(places)), tuple(np.array(places).T)), shape=(len(sets), len(numbers)))
    shared, sizes = (held @ held.T).toarray(), np.array([len(found) for found in sets])
    split = np.array([name for name, _ in rows])
    similar = shared / np.maximum(sizes[:, None] + sizes[None, :] - shared, 1)
    return float(similar[split[:, None] != split[None, :]].max())


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7])
def test_highest_similarity_across_splits_of_planted_families(run, tmp_path, similarity):
    rng = random.Random(similarity)
    rows = [
        {"text": variant(document(family), family * 10 + n, rng.randrange(1, 18))}
        for family in range(60)
        for n in range(5)
    ]
    write_jsonl(tmp_path / "raw", rows)
    loose = run(tmp_path / "raw", steps=[], split=SPLIT, out="loose")
    held = run(tmp_path / "raw", steps=[], split={**SPLIT, "similarity": similarity}, out="held")
    assert highest_across(loose) > similarity > highest_across(held)
    assert all(held.splits.values()) and sum(held.splits.values()) == 300


def test_highest_similarity_across_splits_of_licences(run, tmp_path, shared_data):
    """Real texts of which many are versions of each other."""
    source = {"kind": "text", "path": str(shared_data / "text" / "spdx_licences" / "*.txt"), "name": "licences"}
    steps = [
        {"step": "normalize_text", "column": "text"},
        {"step": "drop_near_duplicates", "column": "text", "threshold": 0.9},
    ]
    loose = run(sources=[source], steps=steps, split=SPLIT, out="loose")
    held = run(sources=[source], steps=steps, split={**SPLIT, "similarity": 0.5}, out="held")
    assert highest_across(loose) > 0.8
    assert highest_across(held) < 0.5
    assert held.steps["split"]["pairs_left_out"] == 0 and held.steps["split"]["linked_pairs"] > 50
    assert all(held.splits.values())


def test_group_and_similarity_join_into_one_cluster(run, tmp_path):
    """a ~ b by text, b and c by group, c ~ d by text: all four share a split, wherever their own hashes would send them."""
    rows = []
    for family in range(40):
        one, two = document(family), document(1000 + family)
        texts = {
            "a": (one, None),
            "b": (variant(one, family, 2), f"g{family}"),
            "c": (two, f"g{family}"),
            "d": (variant(two, family, 2), None),
        }
        rows += [{"id": f"{family}-{name}", "text": text, "group": group} for name, (text, group) in texts.items()]
    write_jsonl(tmp_path / "raw", rows)
    found = split_of(run(tmp_path / "raw", id="id", steps=[], split={**SPLIT, "similarity": 0.5, "group_by": "group"}))
    families = [{found[f"{family}-{name}"] for name in "abcd"} for family in range(40)]
    assert all(len(names) == 1 for names in families) and set().union(*families) == set(SPLIT)
    alone = split_of(run(tmp_path / "raw", id="id", steps=[], split={**SPLIT, "similarity": 0.5}, out="alone"))
    assert any(len({alone[f"{family}-{name}"] for name in "abcd"}) > 1 for family in range(40)), (
        "null groups join nothing"
    )


def test_shares_are_met_and_a_rows_split_does_not_depend_on_other_rows(run, tmp_path):
    rows = [{"id": f"r{i}", "text": document(i, 12)} for i in range(4000)]
    write_jsonl(tmp_path / "all", rows)
    write_jsonl(tmp_path / "some", rows[::3], files=1)
    every = run(tmp_path / "all", id="id", steps=[], split=SPLIT, out="a")
    for name, share in SPLIT.items():
        assert every.splits[name] / 4000 == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 4000))
    some = split_of(run(tmp_path / "some", id="id", steps=[], split=SPLIT, out="b"))
    whole = split_of(every)
    assert some == {uid: whole[uid] for uid in some}


def test_cluster_goes_where_its_smallest_uid_goes(run, tmp_path):
    write_jsonl(tmp_path / "raw", corpus(40))
    found = split_of(run(tmp_path / "raw", id="id", steps=[], split={**SPLIT, "group_by": "family"}))
    names = list(SPLIT)
    for family in range(40):
        first = names[share_of(pa.array([f"{family:03d}-0"]), SPLIT)[0]]
        assert {found[f"{family:03d}-{n}"] for n in range(4)} == {first}


def test_full_buckets_do_not_depend_on_files(run, tmp_path):
    """Hundreds of versions of one text, and a window so small that most pairs are left out: which ones may not depend on the files."""
    base = document(1, 80)
    rows = [{"text": variant(base, i, 4 + i % 12)} for i in range(400)]
    results = []
    for number, files in enumerate((1, 4, 4)):
        shuffled = rows[:]
        random.Random(number).shuffle(shuffled)
        write_jsonl(tmp_path / f"raw{number}", shuffled, files=files)
        results.append(
            run(
                tmp_path / f"raw{number}",
                steps=[],
                split={**SPLIT, "similarity": 0.5, "max_bucket": 1},
                out=f"out{number}",
            )
        )
    assert len({result.fingerprint for result in results}) == 1
    assert results[0].steps["split"]["pairs_left_out"] > 100


def pairs_of(table: pa.Table, window: int, tables: int = 1) -> tuple[list[tuple[int, int]], dict[str, int]]:
    """(the pairs of `bucket_pairs`, sorted; what it noted) for rows that come in so many tables."""
    cuts = np.linspace(0, table.num_rows, tables + 1).astype(int)
    chunks = Chunks(None, lambda: [table.slice(a, b - a) for a, b in zip(cuts[:-1], cuts[1:], strict=True)])
    found = list(bucket_pairs(chunks, window=window))
    pairs = [pair for part in found for pair in zip(part["left"].to_pylist(), part["right"].to_pylist(), strict=True)]
    return sorted(pairs), chunks.notes


def test_pairs_of_a_bucket_within_the_window_and_how_many_are_left_out():
    table = pa.table(
        {
            "key": pa.array([7] * 5 + [9] * 2, pa.uint64()),
            "id": [10, 20, 30, 40, 50, 1, 2],
            "place": pa.array([5, 4, 3, 2, 1, 2, 1], pa.uint64()),
        }
    )
    expected = [(1, 2), (10, 20), (10, 30), (20, 30), (20, 40), (30, 40), (30, 50), (40, 50)]
    assert pairs_of(table, 2) == (expected, {"largest_bucket": 5, "pairs_left_out": 3})
    assert pairs_of(table.slice(0, 0), 2) == ([], {"largest_bucket": 0, "pairs_left_out": 0})


@pytest.mark.parametrize(("limit", "tables"), [(1_000_000, 1), (50, 3), (8, 7), (1, 2)])
def test_large_buckets_are_gone_through_in_pieces(monkeypatch, limit, tables):
    """However few rows are in memory at a time, buckets that fit give the same pairs; one that doesn't loses those across ranges, counted."""
    rng = np.random.default_rng(0)
    keys = np.concatenate([np.repeat(3, 40), rng.integers(10, 40, 100)])
    table = pa.table(
        {
            "key": pa.array(keys, pa.uint64()),
            "id": rng.permutation(140),
            "place": pa.array(rng.integers(0, 2**64, 140, dtype=np.uint64)),
        }
    )
    whole, notes = pairs_of(table, 5)
    monkeypatch.setattr(splits, "SORTED", limit)
    found, counted = pairs_of(table, 5, tables)
    of = dict(zip(table["id"].to_pylist(), table["key"].to_pylist(), strict=True))
    if limit >= 40:
        assert (found, counted) == (whole, notes)
    else:
        assert set(found) < set(whole), "pairs within the window only"
        kept = [pair for pair in whole if limit > 1 and of[pair[0]] != 3]
        assert set(kept) <= set(found), "smaller buckets lose nothing"
    assert counted["pairs_left_out"] == notes["pairs_left_out"] + len(whole) - len(found)
    assert counted["largest_bucket"] == 40


def test_splits_that_cannot_be_meant(run, tmp_path):
    write_jsonl(tmp_path / "raw", corpus(2))
    for split, error, text in (
        ({"train": 0.9, "test": 0.2}, PipelineError, "shares add up to 1.1, expected 1"),
        ({"train": 1.0, "all": 0.0}, PipelineError, "'all' can't be a split's name"),
        ({"train": 0.5, "2nd": 0.5}, PipelineError, "'2nd' can't be a split's name"),
        ({"train": 0.5, "test": 0.5, "similarity": 1.5}, PipelineError, "similarity"),
        (
            {"train": 0.5, "test": 0.5, "group_by": "famly"},
            ColumnError,
            "split: no column 'famly'. Did you mean 'family'",
        ),
        ({"train": 0.5, "test": 0.5, "similarity": 0.5, "column": "body"}, ColumnError, "split: no column 'body'"),
    ):
        with pytest.raises(error, match=text):
            run(tmp_path / "raw", steps=[], split=split)
    assert not Path(tmp_path / "out").exists()


def test_rows_without_text_are_split_alone(run, tmp_path):
    rows = [{"id": f"n{i}", "text": None if i % 2 else ""} for i in range(60)]
    write_jsonl(tmp_path / "raw", rows)
    result = run(tmp_path / "raw", id="id", steps=[], split={**SPLIT, "similarity": 0.5})
    assert all(result.splits.values()) and {row["text"] for row in rows_of(result)} == {None, ""}
