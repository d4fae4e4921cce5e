"""Whatever is appended in whatever batches: no row is lost, no duplicate is kept, no link crosses splits, nothing published moves."""

from __future__ import annotations

import itertools
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gristmill
from gristmill.pipelines.run import RunResult

from .conftest import document, jaccard, ledger_of, shingles, variant
from .test_append import jsonl, model
from .test_splits import split_of

THRESHOLD, SIMILARITY = 0.7, 0.4
SURE = 0.2  # pairs that are this far over a threshold share a band for certain
STEPS = [
    {"step": "filter", "where": "text is not None"},
    {"step": "drop_exact_duplicates", "column": "text"},
    {"step": "drop_near_duplicates", "column": "text", "threshold": THRESHOLD},
]
SPLIT = {"train": 0.5, "test": 0.5, "similarity": SIMILARITY, "group_by": "site"}


@st.composite
def batches(draw: Any) -> list[list[dict[str, Any]]]:
    """Rows of some families, each text some words away from its family's or half of another one's, over two to four batches; some rows again."""
    rng = random.Random(draw(st.integers(0, 10**6)))
    rows: list[dict[str, Any]] = []
    for number in range(draw(st.integers(2, 30))):
        text = variant(document(rng.randrange(5)), number, rng.choice([0, 0, 1, 2, 4, 8, 12]))
        if rng.random() < 0.15:
            text = " ".join([*text.split()[:35], *document(rng.randrange(5)).split()[25:]])
        site = rng.choice([None, None, None, f"s{rng.randrange(20)}"])
        rows.append({"id": f"r{rng.randrange(10**6):06d}", "text": rng.choice([text] * 9 + [None]), "site": site})
    count = draw(st.integers(2, 4))
    found: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    for row in rows:
        found[rng.randrange(count)].append(row)
    for later in found[1:]:
        later += rng.sample(rows, min(len(rows), rng.randrange(4)))
    return found


def check(folder: Path, given_batches: list[list[dict[str, Any]]]) -> None:
    before: RunResult | None = None
    texts: dict[str, str | None] = {}
    sites: dict[str, str | None] = {}
    for number, batch in enumerate(given_batches):
        texts |= {row["id"]: row["text"] for row in batch}
        sites |= {row["id"]: row["site"] for row in batch}
        result, again = (
            append(folder / name, number, batch, files) for name, files in (("one file", 1), ("three files", 3))
        )
        assert (result.fingerprint, result.counts) == (again.fingerprint, again.counts)
        counts, splits = result.counts, split_of(result)
        assert counts["read"] == len(batch) == counts["kept"] + counts["dropped"] + counts["quarantined"]
        assert result.dataset.num_rows == len(splits) == sum(result.dataset.splits.values())
        if before is not None:
            assert split_of(before).items() <= splits.items(), "published rows stay, where they are"
            old = [entry.path for entry in before.dataset.files()]
            assert [entry.path for entry in result.dataset.files()][: len(old)] == old
            assert result.rows == {
                "before": before.dataset.num_rows,
                "added": counts["kept"],
                "after": result.dataset.num_rows,
            }
        if result.published:
            dropped = {row["uid"] for row in ledger_of(result)}
            assert {row["id"] for row in batch} <= dropped | set(splits)
        before = result
    assert before is not None
    check_pairs(splits, texts, sites)
    last = append(folder / "one file", 99, [row for batch in given_batches for row in batch], 2)
    assert not last.published and last.fingerprint == before.fingerprint


def check_pairs(splits: dict[str, str], texts: dict[str, Any], sites: dict[str, Any]) -> None:
    sets = {uid: shingles(texts[uid]) for uid in splits}
    for one, other in itertools.combinations(splits, 2):
        alike = jaccard(sets[one], sets[other])
        assert texts[one] != texts[other] and alike < THRESHOLD + SURE, (one, other)
        if splits[one] != splits[other]:
            assert alike < SIMILARITY + SURE, (one, other)
            assert sites[one] is None or sites[one] != sites[other], (one, other)


def append(folder: Path, number: int, batch: list[dict[str, Any]], files: int) -> RunResult:
    for part in range(files):
        jsonl(folder / str(number) / f"{part}.jsonl", batch[part::files])
    source = {"schema": {"id": "string", "text": "string", "site": "string"}}
    found = model(folder / str(number), folder / "out", STEPS, split=SPLIT, source=source)
    return gristmill.run(found, progress="quiet", in_process=True)


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(batches())
def test_batches_in_sequence(given_batches):
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder), given_batches)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(batches())
def test_many_batches_in_sequence(given_batches):
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder), given_batches)
