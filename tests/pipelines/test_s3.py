"""A run that reads from and publishes to S3 (moto's real HTTP server on loopback): the version is the one that local folders give."""

from __future__ import annotations

import pytest

from gristmill.errors import PipelineError
from gristmill.pipelines.explain import explain_row

from .conftest import corpus, ledger_of, rows_of, write_jsonl

SPLIT = {"train": 0.7, "test": 0.3, "similarity": 0.5}


@pytest.fixture
def bucket(s3_folder, s3_endpoint, tmp_path, monkeypatch) -> str:
    """The URL of an empty folder, reached by the usual environment variables."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return s3_folder.base


def test_from_s3_to_s3(run, tmp_path, bucket, s3_folder):
    write_jsonl(tmp_path / "raw", corpus(), files=3)
    for file in (tmp_path / "raw").iterdir():
        s3_folder.write_atomic(f"raw/{file.name}", file.read_bytes())
    here = run(tmp_path / "raw", id="id", split=SPLIT)
    there = run(f"{bucket}/raw", id="id", split=SPLIT, output={"path": f"{bucket}/out"})
    assert there.published and (there.fingerprint, there.layout, there.counts) == (
        here.fingerprint,
        here.layout,
        here.counts,
    )
    assert rows_of(there) == rows_of(here) and there.dataset.verify() == []
    drop = ledger_of(there)[0]
    assert drop["action"] == "drop" and drop["position"].startswith(f"{bucket}/raw/part-")
    assert explain_row(f"{bucket}/out", drop["uid"])["kept_rows"][0]["origins"][0]["position"].startswith(
        f"{bucket}/raw/part-"
    )
    again = run(f"{bucket}/raw", id="id", split=SPLIT, output={"path": f"{bucket}/out"})
    assert not again.published and again.reused_items > 0
    assert not [path for path, *_ in s3_folder.list() if ".tmp-" in path or "_work" in path], (
        "work files are local, and nothing is half-written"
    )


def test_an_output_inside_an_input_or_around_it_is_refused(run, tmp_path, bucket, s3_folder):
    s3_folder.write_atomic("raw/in.jsonl", b'{"text": "a"}\n')
    with pytest.raises(PipelineError, match="lies inside the input folder"):
        run(f"{bucket}/raw", steps=[], output={"path": f"{bucket}/raw/out"})
    run(f"{bucket}/raw", steps=[], output={"path": f"{bucket}/out"})
    with pytest.raises(PipelineError, match="holds the input file"):
        run(
            sources=[{"kind": "parquet", "path": f"{bucket}/out/data", "name": "own"}],
            steps=[],
            output={"path": f"{bucket}/out"},
        )
