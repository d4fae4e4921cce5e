"""A small project for the DAGs: real texts of the installed packages, and notes of the last days, one folder a day."""

from __future__ import annotations

import json
import sys
import sysconfig
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gristmill.pipelines.starter import PLACES

PACKAGES = """\
# The licence and README texts of the packages installed beside gristmill: real text, full of near-duplicates.
name: packages
sources:
  - {{kind: text, name: licences, path: ["{site}/*.dist-info/LICEN[CS]E*", "{site}/*.dist-info/licenses/**/*"]}}
  - {{kind: text, name: readmes, path: "{site}/*.dist-info/METADATA"}}
steps:
  - {{step: normalize_text, column: text}}
  - {{step: filter, where: "length(text) >= 200"}}
  - {{step: drop_exact_duplicates, column: text, priority: [licences]}}
  - {{step: drop_near_duplicates, column: text, threshold: 0.8, priority: [licences]}}
split: {{train: 0.9, validation: 0.1, similarity: 0.8}}
output: {{path: shards/packages}}
"""

DAILY = """\
# One dataset a day: {date} is the day of the run. Days don't depend on each other, so they may be run in any order.
name: daily
sources:
  - {kind: jsonl, name: notes, path: "raw/daily/{date}/*.jsonl"}
id: id
steps:
  - {step: normalize_text, column: text}
  - {step: filter, where: "length(text) > 20"}
  - {step: drop_exact_duplicates, column: text}
output: {path: "shards/daily/{date}"}
"""

MIX = """\
# What training gets: one dataset here; several share the batches by their weights.
datasets:
  - {data: shards/packages, split: train, weight: 1}
stream: {global_batch_size: 8, seed: 7, columns: [text]}
command: %s
"""

SUITES: dict[str, list[tuple[str, dict[str, object]]]] = {
    "packages": [
        ("expect_table_row_count_to_be_between", {"min_value": 10}),
        ("expect_column_values_to_not_be_null", {"column": "text"}),
        ("expect_column_value_lengths_to_be_between", {"column": "text", "min_value": 200}),
        ("expect_column_values_to_be_unique", {"column": "_uid"}),
    ],
    "daily": [
        ("expect_table_row_count_to_be_between", {"min_value": 5}),
        ("expect_column_values_to_not_be_null", {"column": "text"}),
        ("expect_column_values_to_not_match_regex", {"column": "text", "regex": "password"}),
    ],
}


def make_project(folder: Path, days: int = 8, train: str | None = None) -> Path:
    """The folder, with pipelines, suites, a mix and raw data of the last days up to today; what is there already stays as it is.

    train: the training command of the mix.
    """
    site = sysconfig.get_paths()["purelib"]
    command = train or f"{sys.executable} -c \"import os; print('training on', os.environ['GRISTMILL_MIX'])\""
    files = {
        "pipelines/packages.yaml": PACKAGES.format(site=site),
        "pipelines/daily.yaml": DAILY,
        "mixes/base.yaml": MIX % json.dumps(command),
        **{f"suites/{name}.json": suite_text(name, SUITES[name]) for name in SUITES},
    }
    today = datetime.now(UTC).date()
    for day in (today - timedelta(days=back) for back in range(days)):
        files[f"raw/daily/{day}/notes.jsonl"] = "".join(json.dumps(row) + "\n" for row in notes(str(day)))
    for name, text in files.items():
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return folder


def suite_text(name: str, expectations: list[tuple[str, dict[str, object]]]) -> str:
    """A Great Expectations suite as JSON."""
    listed = [{"type": kind, "kwargs": kwargs, "meta": {}, "severity": "critical"} for kind, kwargs in expectations]
    return json.dumps({"name": name, "expectations": listed, "meta": {}}, indent=1)


def notes(day: str, count: int = 12) -> list[dict[str, str]]:
    """Rows of one day: of the last two, one repeats the first and one is too short."""
    rows = [
        {
            "id": f"{day}-{number}",
            "text": f"On {day} sack {number * 7 + 3} of grain came from {PLACES[number % len(PLACES)]}; it weighed {40 + number} kilograms.",
        }
        for number in range(count - 2)
    ]
    return [*rows, {"id": f"{day}-again", "text": rows[0]["text"]}, {"id": f"{day}-short", "text": "Nothing."}]
