"""`apply` and `near_duplicates` on frames: the same kind out, lazy stays lazy, and the pipeline's own answer."""

from __future__ import annotations

from typing import Any

import dask.dataframe as dd
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import gristmill
from gristmill.errors import ColumnError, PipelineError

from .conftest import corpus, jaccard, ledger_of, rows_of, shingles, write_jsonl

STEPS = [
    {"step": "normalize_text", "column": "text"},
    {"step": "filter", "where": "score > 1"},
    {"step": "drop_exact_duplicates", "column": "text", "quality": "score"},
    {"step": "filter", "where": "score < 10"},
    {"step": "drop_near_duplicates", "column": "text", "threshold": 0.8, "quality": "score"},
    {"step": "select_columns", "columns": ["text", "score"]},
]
ROWS = [{"text": row["text"] + ("\r\n" if row["family"] % 2 else ""), "score": row["score"]} for row in corpus(30)]
ROWS += [dict(ROWS[0]), dict(ROWS[0]), {"text": None, "score": 5}, {"text": None, "score": 5}, {"text": "", "score": 3}]
DECISION = ["uid", "action", "rule", "value", "threshold", "other_uid", "similarity", "step"]


def dask_frame(partitions: int = 3) -> Any:
    return dd.from_pandas(pd.DataFrame(ROWS), npartitions=partitions)


KINDS = {
    "pandas": (lambda: pd.DataFrame(ROWS), pd.DataFrame),
    "arrow": (lambda: pa.Table.from_pylist(ROWS), pa.Table),
    "chunked arrow": (
        lambda: pa.concat_tables([pa.Table.from_pylist(ROWS[:50]), pa.Table.from_pylist(ROWS[50:])]),
        pa.Table,
    ),
    "polars": (lambda: pl.DataFrame(ROWS), pl.DataFrame),
    "dask of 1": (lambda: dask_frame(1), dd.DataFrame),
    "dask of 2": (lambda: dask_frame(2), dd.DataFrame),
    "dask of 7": (lambda: dask_frame(7), dd.DataFrame),
}


def listed(frame: Any) -> list[dict[str, Any]]:
    """The rows of any frame, nulls as None, sorted."""
    if isinstance(frame, dd.DataFrame):
        frame = frame.compute(scheduler="sync")
    table = (
        pa.Table.from_pandas(frame, preserve_index=False)
        if isinstance(frame, pd.DataFrame)
        else frame.to_arrow()
        if isinstance(frame, pl.DataFrame)
        else frame
    )
    rows = [
        {key: None if isinstance(value, float) and value != value else value for key, value in row.items()}
        for row in table.to_pylist()
    ]
    return sorted(rows, key=lambda row: [str(value) for value in row.values()])


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """(kept rows, decisions) of a pipeline over the same rows."""
    folder = tmp_path_factory.mktemp("frames")
    write_jsonl(folder / "raw", ROWS, files=3)
    model = {
        "name": "t",
        "sources": [{"kind": "jsonl", "path": str(folder / "raw")}],
        "steps": STEPS,
        "output": {"path": str(folder / "out")},
    }
    result = gristmill.run(model, progress="quiet")
    kept = [{name: row[name] for name in ("text", "score", "_uid")} for row in rows_of(result)]
    decided = [{name: entry[name] for name in DECISION} for entry in ledger_of(result) if entry["step"] != "id"]
    return kept, decided


@pytest.mark.parametrize("kind", KINDS)
def test_apply_gives_the_same_kind_and_the_pipelines_answer(kind, pipeline):
    make, cls = KINDS[kind]
    kept, decisions = gristmill.apply(make(), STEPS)
    assert isinstance(kept, cls) and isinstance(decisions, cls)
    assert listed(kept) == sorted(pipeline[0], key=lambda row: [str(value) for value in row.values()])
    assert listed(decisions) == sorted(pipeline[1], key=lambda row: [str(value) for value in row.values()])
    rules = {entry["rule"] for entry in listed(decisions)}
    assert {"line_breaks", "score > 1", "exact_duplicate", "near_duplicate"} <= rules


@pytest.mark.parametrize("kind", KINDS)
def test_near_duplicates_of_any_kind(kind):
    make, cls = KINDS[kind]
    pairs = gristmill.near_duplicates(make(), column="text", threshold=0.8)
    assert isinstance(pairs, cls) and list(pairs.columns if cls is not pa.Table else pairs.column_names) == [
        "uid",
        "kept_uid",
        "similarity",
    ]
    found = listed(pairs)
    assert found == listed(gristmill.near_duplicates(pa.Table.from_pylist(ROWS), threshold=0.8))
    names = gristmill.apply(pa.Table.from_pylist(ROWS), [])[0]
    text = dict(zip(names["_uid"].to_pylist(), names["text"].to_pylist(), strict=True))
    assert len(found) > 30 and {pair["uid"] for pair in found}.isdisjoint({pair["kept_uid"] for pair in found})
    for pair in found:
        similarity = jaccard(shingles(text[pair["uid"]]), shingles(text[pair["kept_uid"]]))
        assert pair["similarity"] == pytest.approx(similarity) and similarity >= 0.8


def test_near_duplicates_are_those_of_the_pipeline(tmp_path):
    write_jsonl(tmp_path / "raw", ROWS, files=3)
    steps = [{"step": "drop_near_duplicates", "column": "text", "threshold": 0.7, "shingle": 3}]
    model = {
        "name": "t",
        "sources": [{"kind": "jsonl", "path": str(tmp_path / "raw")}],
        "steps": steps,
        "output": {"path": str(tmp_path / "out")},
    }
    entries = [
        entry for entry in ledger_of(gristmill.run(model, progress="quiet")) if entry["rule"] == "near_duplicate"
    ]
    pairs = gristmill.near_duplicates(pd.DataFrame(ROWS), threshold=0.7, shingle=3)
    assert sorted((entry["uid"], entry["other_uid"], entry["similarity"]) for entry in entries) == list(
        pairs.itertuples(index=False, name=None)
    )


def test_dask_frames_stay_lazy(tmp_path):
    seen = tmp_path / "seen"

    def note(part):
        if len(part) > 1:  # Dask tries functions on a frame of its own
            seen.write_text("computed")
        return part

    frame = dask_frame(2).map_partitions(note, meta=dask_frame()._meta)
    kept, decisions = gristmill.apply(frame, STEPS)
    pairs = gristmill.near_duplicates(frame)
    assert not seen.exists() and kept.npartitions == 2
    assert list(kept.columns) == ["text", "score", "_uid"] and list(decisions.columns) == DECISION
    assert len(pairs.compute(scheduler="sync")) > 0 and seen.exists()
    assert kept.compute(scheduler="sync").dtypes.astype(str).to_dict() == kept.dtypes.astype(str).to_dict()


def test_duplicates_across_partitions_are_found_and_uids_are_numbered_across_them():
    frame = dd.from_pandas(pd.DataFrame({"text": ["the same words"] * 4 + ["others here"]}), npartitions=4)
    assert frame.npartitions >= 2
    kept, decisions = gristmill.apply(frame, [{"step": "drop_exact_duplicates", "column": "text"}])
    assert sorted(kept.compute(scheduler="sync")["text"]) == ["others here", "the same words"]
    uids = sorted(decisions.compute(scheduler="sync")["uid"])
    assert [uid.rpartition("~")[2] for uid in uids] == ["2", "3", "4"]


def test_own_names_are_kept_and_checked():
    frame = pd.DataFrame({"_uid": ["b", "a"], "text": ["one and the same text", "one and the same text"]})
    kept, decisions = gristmill.apply(frame, [{"step": "drop_exact_duplicates", "column": "text"}])
    assert (
        kept["_uid"].tolist() == ["a"]
        and decisions["uid"].tolist() == ["b"]
        and decisions["other_uid"].tolist() == ["a"]
    )
    for uids in (["a", "a"], ["a", None]):
        with pytest.raises(PipelineError, match="'_uid' has null or repeated values"):
            gristmill.apply(pd.DataFrame({"_uid": uids, "text": ["x", "y"]}), [])


def test_rows_keep_their_order_and_types():
    table = pa.table(
        {
            "n": pa.array([3, 1, 2], pa.int16()),
            "when": pa.array([1, 2, None], pa.timestamp("ms")),
            "text": ["a", "b", "c"],
        }
    )
    kept, decisions = gristmill.apply(table, [{"step": "filter", "where": "n != 1"}])
    assert kept.select(["n", "when", "text"]).equals(table.take([0, 2])) and kept.column_names == [
        "n",
        "when",
        "text",
        "_uid",
    ]
    assert decisions["value"].to_pylist() == [1.0]
    empty, none = gristmill.apply(table.slice(0, 0), STEPS[:1])
    assert empty.schema == kept.schema and none.num_rows == 0


def test_what_cannot_be_meant_is_refused():
    frame = pd.DataFrame(ROWS)
    with pytest.raises(ColumnError, match="step drop_near_duplicates: no column 'txt'. Did you mean 'text'"):
        gristmill.apply(frame, [{"step": "drop_near_duplicates", "column": "txt"}])
    with pytest.raises(PipelineError, match="unknown step 'normalise_text'. Did you mean 'normalize_text'"):
        gristmill.apply(frame, [{"step": "normalise_text", "column": "text"}])
    with pytest.raises(PipelineError, match="threshold"):
        gristmill.near_duplicates(frame, threshold=1.5)
    for made in (frame, dask_frame(2)):
        with pytest.raises(ColumnError, match="no column 'body'"):
            gristmill.near_duplicates(made, column="body")
    with pytest.raises(ColumnError, match="no column 'txt'"):
        gristmill.apply(dask_frame(2), [{"step": "filter", "where": "txt == 'a'"}])
    with pytest.raises(PipelineError, match="expected"):
        gristmill.apply({"text": ["a"]}, STEPS)
    for steps in ("filter", STEPS[0]):
        with pytest.raises(PipelineError, match="expected a list of steps"):
            gristmill.apply(frame, steps)
    with pytest.raises(PipelineError, match=r"is a LazyFrame, .*; collect\(\) it first"):
        gristmill.apply(pl.DataFrame(ROWS).lazy(), STEPS)
