"""Pipelines from files, mappings and Python: the same model; mistakes are named with file, line and the nearest valid name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gristmill.errors import InputNotFoundError, PipelineError
from gristmill.pipelines.loading import load_pipeline
from gristmill.pipelines.model import Output, Pipeline, Split
from gristmill.pipelines.sources import JsonlSource
from gristmill.pipelines.steps.dedupe import DropNearDuplicates
from gristmill.pipelines.steps.filter import Filter

GOOD = """\
name: docs
sources:
  - {kind: jsonl, path: raw/*.jsonl, name: web}
id: url
steps:
  - {step: filter, where: "length(text) > 20"}
  - step: drop_near_duplicates
    column: text
    threshold: 0.9
split: {train: 0.9, test: 0.1, similarity: 0.5}
output: {path: shards, shard_bytes: 64MB}
"""


def file(folder: Path, text: str = GOOD) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_file_mapping_and_model_are_the_same(tmp_path):
    model = Pipeline(
        name="docs",
        sources=[JsonlSource(path="raw/*.jsonl", name="web")],
        id="url",
        steps=[Filter(where="length(text) > 20"), DropNearDuplicates(column="text", threshold=0.9)],
        split=Split(shares={"train": 0.9, "test": 0.1}, similarity=0.5),
        output=Output(path="shards", shard_bytes=64_000_000),
    )
    assert (
        load_pipeline(file(tmp_path))
        == load_pipeline(str(file(tmp_path)))
        == load_pipeline(yaml.safe_load(GOOD))
        == load_pipeline(model)
        == model
    )
    assert load_pipeline(model.model_dump(mode="json", by_alias=True)) == model


def test_models_are_frozen(tmp_path):
    model = load_pipeline(file(tmp_path))
    for block in (model, model.output, model.steps[0], model.sources[0], model.split):
        with pytest.raises(ValueError, match="frozen"):
            block.name = "other"


@pytest.mark.parametrize(
    ("old", "new", "line", "text"),
    [
        ("threshold: 0.9", "treshold: 0.9", 9, "unknown key 'treshold'. Did you mean 'threshold'?"),
        (
            "step: drop_near_duplicates",
            "step: drop_near_duplicate",
            7,
            "unknown step 'drop_near_duplicate'. Did you mean 'drop_near_duplicates'?",
        ),
        ("kind: jsonl", "kind: jsnl", 3, "unknown kind 'jsnl'. Did you mean 'jsonl'?"),
        ("id: url", "ids: url", 4, "unknown key 'ids'. Did you mean 'id'?"),
        ("threshold: 0.9", "threshold: 9", 9, "steps.1.threshold: Input should be less than or equal to 1"),
        ("threshold: 0.9", "threshold: high", 9, "steps.1.threshold"),
        ("    column: text\n", "", 7, "steps.1.column: required and missing"),
        ("shard_bytes: 64MB", "shard_bytes: 64XB", 11, "'64XB' is not a size; write bytes or a number with a unit"),
        ("shard_bytes: 64MB", "shardbytes: 64MB", 11, "unknown key 'shardbytes'. Did you mean 'shard_bytes'?"),
        ("length(text) > 20", "lenght(text) > 20", 6, "no function 'lenght'"),
        ("train: 0.9", "train: 0.8", 10, "the shares add up to 0.9, expected 1"),
        ("name: docs", "name: my docs", 1, "name: String should match pattern"),
        ("output: {path: shards, shard_bytes: 64MB}", "", 0, "output: required and missing"),
        ("path: shards,", "path: [shards],", 11, "output.path"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path, old, new, line, text):
    path = file(tmp_path, GOOD.replace(old, new))
    with pytest.raises(PipelineError) as caught:
        load_pipeline(path)
    assert text in str(caught.value)
    assert str(caught.value).startswith(f"{path}:{line}: " if line else f"{path}")


def test_all_mistakes_are_told_in_order_of_lines(tmp_path):
    path = file(tmp_path, GOOD.replace("threshold: 0.9", "treshold: 0.9").replace("id: url", "ids: url"))
    with pytest.raises(PipelineError) as caught:
        load_pipeline(path)
    assert [text.split(":")[1] for text in str(caught.value).splitlines()] == ["4", "9"]


def test_mistakes_in_a_mapping_are_named_by_their_path():
    data = yaml.safe_load(GOOD)
    data["steps"][1]["treshold"] = 1
    with pytest.raises(PipelineError, match=r"^pipeline: unknown key 'treshold'. Did you mean 'threshold'\?"):
        load_pipeline(data)


def test_settings_are_laid_over_files_mappings_and_models(tmp_path):
    settings = ["steps.1.threshold=0.5", "output.path=elsewhere", "split.similarity=null", "id=null"]
    found = load_pipeline(file(tmp_path), settings)
    assert (
        found.steps[1].threshold == 0.5
        and found.output.path == "elsewhere"
        and found.split.similarity is None
        and found.id is None
    )
    data = yaml.safe_load(GOOD)
    assert load_pipeline(data, settings) == found == load_pipeline(load_pipeline(file(tmp_path)), settings)
    assert data == yaml.safe_load(GOOD), "what was given is not changed"
    for setting, text in (
        ("steps.7.threshold=1", "nothing at '7'"),
        ("steps.1.treshold=1", "Did you mean 'threshold'"),
        ("name", "write key.path=value"),
        ("name.x=1", "plain value"),
    ):
        with pytest.raises(PipelineError, match=text):
            load_pipeline(file(tmp_path), [setting])


def test_files_that_are_not_there(tmp_path):
    file(tmp_path)
    with pytest.raises(InputNotFoundError, match="no pipeline file .*pipelin.yaml'. Did you mean 'pipeline.yaml'"):
        load_pipeline(tmp_path / "pipelin.yaml")
    with pytest.raises(PipelineError, match="is a folder, expected a pipeline file"):
        load_pipeline(tmp_path)
    with pytest.raises(PipelineError, match=r"pipeline.yaml:3: not valid YAML"):
        load_pipeline(file(tmp_path, "name: a\nsources: [\n}"))
