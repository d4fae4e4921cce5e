"""How well a suite finds the wrong cells of a table that has a clean twin: precision and recall."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pyarrow.csv as pc

from gristmill.validators.api import validate

SUITES = Path(__file__).parent / "suites"


class Score(NamedTuple):
    flagged: int
    wrong: int
    hits: int

    @property
    def precision(self) -> float:
        return self.hits / self.flagged

    @property
    def recall(self) -> float:
        return self.hits / self.wrong


def score(folder: Path, name: str) -> Score:
    """Of the cells that an expectation about their column doesn't expect, how many differ from the clean twin, and the other way round."""
    flagged = set()
    verdict = validate(folder / name / "dirty.csv", SUITES / f"{name}.json")
    for result in verdict.results:
        config = result["expectation_config"]
        flagged |= {(row, config["kwargs"]["column"]) for row in verdict.failing[config["id"]].to_numpy().tolist()}
    return Score(len(flagged), len(wrong := wrong_cells(folder / name)), len(flagged & wrong))


def wrong_cells(folder: Path) -> set[tuple[int, str]]:
    """(row, column) of every cell whose text differs."""
    dirty, clean = (_texts(folder / name) for name in ("dirty.csv", "clean.csv"))
    return {
        (row, column)
        for column in dirty
        for row, pair in enumerate(zip(dirty[column], clean[column], strict=True))
        if pair[0] != pair[1]
    }


def _texts(path: Path) -> dict[str, list[str]]:
    names = path.read_text().splitlines()[0].split(",")
    options = pc.ConvertOptions(column_types=dict.fromkeys(names, "string"), strings_can_be_null=False)
    return pc.read_csv(
        path, parse_options=pc.ParseOptions(newlines_in_values=True), convert_options=options
    ).to_pydict()
