"""`drop_exact_duplicates` and `drop_near_duplicates`: what counts as equal, who survives, and that both are free of order and idempotent."""

from __future__ import annotations

import itertools
import json
import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import PipelineError
from gristmill.pipelines.frames import apply_table, check_step

from ..conftest import document, jaccard, shingles, variant, write_jsonl


def kept(texts: list[str | None], step: str = "drop_exact_duplicates", **options) -> list[int]:
    """The numbers of the rows that stay."""
    table = pa.table({"_uid": [f"{i:03d}" for i in range(len(texts))], "text": pa.array(texts, pa.string())})
    return [
        int(uid)
        for uid in apply_table(table, [check_step({"step": step, "column": "text", **options})])[0]["_uid"].to_pylist()
    ]


@pytest.mark.parametrize(
    ("texts", "stay"),
    [
        (["a b", "a  b", " a b ", "a\n\tb", "a\u00a0b", "a\u3000b"], [0]),
        (["ab", "a b"], [0, 1]),
        (["a", "A"], [0, 1]),
        (["\u00e9", "e\u0301"], [0]),
        (["ﬁ", "fi"], [0, 1]),
        (["", " ", "\n"], [0]),
        ([None, None, ""], [0, 1, 2]),
        (["x."] * 5 + ["x"], [0, 5]),
    ],
)
def test_what_counts_as_the_same_text(texts, stay):
    assert kept(texts) == stay


WORDS = "one two three four five six seven eight"


@pytest.mark.parametrize(
    ("texts", "stay"),
    [
        ([WORDS, WORDS.upper(), WORDS.replace(" ", ", ") + "!"], [0]),  # case and marks don't count
        ([None, None, "", "  ", "...", "!?"], [0, 1, 2, 3, 4, 5]),  # without words nothing matches
        (
            ["one two", "One  two.", "two one", "one two three"],
            [0, 2, 3],
        ),  # shorter than a shingle: the same words in the same order only
        ([WORDS, "x " + WORDS], [0, 1]),  # 4 of 5 shingles: .8 at 4 + 1
        (["我们在河边的磨坊里工作", "我们在河边的磨坊里工作。", "他们在山上的房子里唱歌"], [0, 2]),
    ],
)
def test_what_counts_as_near(texts, stay):
    assert kept(texts, "drop_near_duplicates", threshold=0.85) == stay


def test_threshold_is_reached_at_equality():
    base = [f"w{i}" for i in range(13)]  # 9 shingles of 5; with another last word 8 of 10 are shared
    texts = [" ".join(base), " ".join([*base[:-1], "other"])]
    assert jaccard(shingles(texts[0]), shingles(texts[1])) == 0.8
    assert kept(texts, "drop_near_duplicates", threshold=0.8) == [0]
    assert kept(texts, "drop_near_duplicates", threshold=0.81) == [0, 1]


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), threshold=st.sampled_from([0.5, 0.7, 0.8, 0.9]))
def test_free_of_order_idempotent_verified_and_complete(seed, threshold):
    rng = random.Random(seed)
    texts = [variant(document(rng.randrange(6), 40), rng.randrange(1000), rng.randrange(0, 12)) for _ in range(40)]
    table = pa.table(
        {"_uid": [f"{i:03d}" for i in range(40)], "text": texts, "q": [rng.choice([None, 1.0, 2.0]) for _ in range(40)]}
    )
    step = check_step({"step": "drop_near_duplicates", "column": "text", "threshold": threshold, "quality": "q"})
    after, decisions = apply_table(table, [step])
    shuffled, _ = apply_table(table.take(rng.sample(range(40), 40)), [step])
    assert sorted(shuffled["_uid"].to_pylist()) == after["_uid"].to_pylist()
    assert apply_table(after, [step])[0].equals(after), "a second time nothing goes"
    text, stays = dict(zip(table["_uid"].to_pylist(), texts)), set(after["_uid"].to_pylist())
    for entry in decisions.to_pylist():
        assert entry["other_uid"] in stays and entry["uid"] not in stays
        similarity = jaccard(shingles(text[entry["uid"]]), shingles(text[entry["other_uid"]]))
        assert entry["similarity"] == pytest.approx(similarity, abs=1e-6) and similarity >= threshold
    order = sorted(table.to_pylist(), key=lambda row: (-(row["q"] if row["q"] is not None else -1e9), row["_uid"]))
    alone: list[str] = []
    for row in order:  # the definition: taken in survivor order, a row stays unless it is similar to one that stayed
        if all(jaccard(shingles(row["text"]), shingles(text[other])) < threshold for other in alone):
            alone.append(row["_uid"])
    similar = sum(jaccard(shingles(a), shingles(b)) >= threshold for a, b in itertools.combinations(texts, 2))
    assert len(set(alone) ^ stays) <= 0.05 * similar + 2, "but for pairs that no band has found"


@given(st.lists(st.sampled_from(["a", "a ", "b", "B", "", None, "c\nd", "c d"]), max_size=12), st.randoms())
def test_exact_duplicates_are_free_of_order(texts, rng):
    table = pa.table({"_uid": [f"{i:03d}" for i in range(len(texts))], "text": pa.array(texts, pa.string())})
    step = check_step({"step": "drop_exact_duplicates", "column": "text"})
    after, decisions = apply_table(table, [step])
    order = rng.sample(range(len(texts)), len(texts))
    assert (
        sorted(apply_table(table.take(pa.array(order, pa.int64())), [step])[0]["_uid"].to_pylist())
        == after["_uid"].to_pylist()
    )
    first: dict[str, int] = {}
    expected = [i for i, text in enumerate(texts) if text is None or first.setdefault(" ".join(text.split()), i) == i]
    assert [int(uid) for uid in after["_uid"].to_pylist()] == expected
    assert all(entry["similarity"] == 1.0 and int(entry["other_uid"]) in expected for entry in decisions.to_pylist())


def test_priority_and_quality():
    table = pa.table(
        {"_uid": list("abcd"), "_source": ["x", "y", "y", "z"], "text": ["same words"] * 4, "q": [9, 1, 2, None]}
    )
    for options, survivor in (
        ({}, "a"),
        ({"quality": "q"}, "a"),
        ({"priority": ["y"]}, "b"),
        ({"priority": ["y"], "quality": "q"}, "c"),
        ({"priority": ["z", "y"]}, "d"),
    ):
        for step in ("drop_exact_duplicates", "drop_near_duplicates"):
            assert apply_table(table, [check_step({"step": step, "column": "text", **options})])[0][
                "_uid"
            ].to_pylist() == [survivor], options
    with pytest.raises(PipelineError, match="quality column 'text' is string, expected a number"):
        apply_table(table, [check_step({"step": "drop_exact_duplicates", "column": "text", "quality": "text"})])


def test_full_buckets_are_bounded_and_counted(run, tmp_path):
    """A thousand boilerplate rows that differ in more than the threshold allows: each is compared with a few only, and the report says so."""
    base = document(1, 60)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": variant(base, i, 3)}) + "\n" for i in range(1000)))
    counts = {}
    for bound in (2, 256):
        result = run(
            tmp_path / "in.jsonl",
            steps=[{"step": "drop_near_duplicates", "column": "text", "threshold": 0.9, "max_bucket": bound}],
            out=f"out{bound}",
        )
        counts[bound] = (
            result.steps["drop_near_duplicates"]["comparisons"],
            result.steps["drop_near_duplicates"]["comparisons_left_out"],
        )
    assert counts[2][0] < counts[256][0] and counts[2][1] > counts[256][1]


def test_full_buckets_do_not_depend_on_files(run, tmp_path):
    base = document(1, 60)
    rows = [{"text": variant(base, i, 2 + i % 6)} for i in range(300)]
    results = []
    for number, files in enumerate((1, 3, 3)):
        shuffled = rows[:]
        random.Random(number).shuffle(shuffled)
        write_jsonl(tmp_path / f"raw{number}", shuffled, files=files)
        steps = [{"step": "drop_near_duplicates", "column": "text", "threshold": 0.6, "max_bucket": 1}]
        results.append(run(tmp_path / f"raw{number}", steps=steps, out=f"out{number}"))
    assert len({result.fingerprint for result in results}) == 1
    assert results[0].steps["drop_near_duplicates"]["comparisons_left_out"] > 50 and 1 < results[0].counts["kept"] < 300


def test_ten_thousand_equal_rows_take_one_comparison_each(run, tmp_path):
    (tmp_path / "in.jsonl").write_text((json.dumps({"text": document(5)}) + "\n") * 10_000)
    result = run(tmp_path / "in.jsonl", steps=[{"step": "drop_near_duplicates", "column": "text"}])
    assert result.counts["kept"] == 1 and result.steps["drop_near_duplicates"]["comparisons"] < 20_000
