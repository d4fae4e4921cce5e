"""`gristmill init`: a small working pipeline to edit."""

from __future__ import annotations

import glob
import json
import shlex
from pathlib import Path

from gristmill.errors import UsageError

PIPELINE = """\
# A gristmill pipeline: raw text in, a versioned, de-duplicated, split shard set out.
#   gristmill plan {file}     what a run would do
#   gristmill run {file}      do it; the same command resumes
name: starter
sources:
  - {{kind: jsonl, path: {raw}, name: notes}}
id: id                                        # leave out to name rows by their content
steps:
  - {{step: normalize_text, column: text}}
  - {{step: filter, where: "length(text) > 20"}}
  - {{step: drop_exact_duplicates, column: text}}
  - {{step: drop_near_duplicates, column: text, threshold: 0.8}}
split: {{train: 0.8, validation: 0.2, similarity: 0.5}}
output: {{path: {shards}}}
"""

PLACES = [
    "the mill by the river",
    "the old stone barn",
    "the bakery in the square",
    "the field behind the church",
    "the granary on the hill",
]
GRAINS = ["wheat", "rye", "oats", "barley", "spelt", "maize", "millet", "buckwheat"]


def make_starter(folder: Path) -> Path:
    """The path of the new pipeline file, with 43 raw rows beside it: some repeated, some nearly so, one too short, one broken line.

    Raises:
        UsageError: the folder exists and isn't empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"'{folder}' exists and is not an empty folder; choose a new one")
    try:
        (folder / "raw").mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"can't make the folder '{folder}': {error.strerror}; choose another one") from error
    rows = []
    for i, grain in enumerate(GRAINS):
        for j, place in enumerate(PLACES):
            text = (
                f"Note {i * len(PLACES) + j}. The {grain} that came from {place} was weighed, cleaned of {GRAINS[(i + j + 1) % 8]} and chaff, "
                f"and put aside in sack number {i * 7 + j * 3} for the {['first', 'second', 'third', 'last'][(i + j) % 4]} milling of the week."
            )
            rows.append({"id": f"note-{i}-{j}", "text": text})
    rows.append({"id": "repeat-1", "text": rows[0]["text"] + "  "})
    rows.append({"id": "repeat-2", "text": rows[7]["text"] + " It was a good day."})
    rows.append({"id": "short", "text": "Too short."})
    lines = [json.dumps(row) for row in rows]
    lines.insert(12, '{"id": "broken", "text": "this line has no end')
    (folder / "raw" / "notes.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = folder / "pipeline.yaml"
    raw, shards = f"{glob.escape(str(folder))}/raw/*.jsonl", f"{folder}/shards"
    text = PIPELINE.format(file=shlex.quote(str(path)), raw=json.dumps(raw), shards=json.dumps(shards))
    path.write_text(text, encoding="utf-8")
    return path
