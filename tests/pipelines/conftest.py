"""Small corpora with known families of near-duplicates, and one way to run a pipeline."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import gristmill
from gristmill.pipelines.run import RunResult

WORDS = [f"w{i}" for i in range(400)]


def document(seed: int, words: int = 60) -> str:
    """Text of random words: two of different seeds share next to nothing."""
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) + str(rng.randrange(50)) for _ in range(words))


def variant(text: str, seed: int, changes: int) -> str:
    """The text with so many words replaced."""
    rng = random.Random(seed)
    words = text.split()
    for place in rng.sample(range(len(words)), changes):
        words[place] = f"x{seed}y{place}"
    return " ".join(words)


def corpus(families: int = 40, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with id, text, family, score: of each family an original, two near copies (one word changed), a cousin (a few changed)."""
    rows = []
    for family in range(families):
        text = document(seed * 10_000 + family)
        versions = [
            text,
            variant(text, family * 3 + 1, 1),
            variant(text, family * 3 + 2, 1),
            variant(text, family * 3 + 3, 4),
        ]
        for number, content in enumerate(versions):
            rows.append(
                {
                    "id": f"{family:03d}-{number}",
                    "text": content,
                    "family": family,
                    "score": (family * 7 + number * 3) % 11,
                }
            )
    random.Random(seed).shuffle(rows)
    return rows


def write_jsonl(
    folder: Path, rows: Sequence[dict[str, Any]], files: int = 4, prefix: str = "part", packed: bool = True
) -> None:
    """The rows over so many files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[number::files])
        name = folder / f"{prefix}-{number:02d}.jsonl{'.gz' if packed else ''}"
        if packed:
            name.write_bytes(gzip.compress(lines.encode(), mtime=0))
        else:
            name.write_text(lines, encoding="utf-8")


STEPS = [
    {"step": "normalize_text", "column": "text"},
    {"step": "filter", "where": "length(text) > 20"},
    {"step": "drop_exact_duplicates", "column": "text"},
    {"step": "drop_near_duplicates", "column": "text", "threshold": 0.8},
]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., RunResult]:
    """run(path, steps=..., out=..., ...) -> RunResult: a pipeline over JSON lines."""

    def call(
        path: str | Path | None = None, *, steps: Any = STEPS, out: str = "out", split: Any = None, **options: Any
    ) -> RunResult:
        sources = options.pop("sources", None) or [{"kind": "jsonl", "path": str(path), "name": "web"}]
        model: dict[str, Any] = {
            "name": "test",
            "sources": sources,
            "steps": steps,
            "output": {"path": str(tmp_path / out), **options.pop("output", {})},
        }
        if split:
            model["split"] = split
        if "id" in options:
            model["id"] = options.pop("id")
        return gristmill.run(model, progress="quiet", **options)

    return call


def rows_of(result: RunResult) -> list[dict[str, Any]]:
    """The version's rows, sorted by uid."""
    return sorted(result.dataset.to_table().to_pylist(), key=lambda row: row["_uid"])


def ledger_of(result: RunResult) -> list[dict[str, Any]]:
    """Every decision in the version's ledger."""
    from gristmill.storage.parquet import read_table

    dataset = result.dataset
    names = [name for name, *_ in dataset.folder.list(dataset.manifest.ledger) if "/decisions-" in name]
    return [row for name in names for row in read_table(dataset.folder, name).to_pylist()]


def shingles(text: str, n: int = 5) -> set[tuple[str, ...]]:
    """The word shingles of ASCII text, in plain Python."""
    import re

    words = re.findall(r"[^\W_]+", text.lower())
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))} if words else set()


def jaccard(a: set[Any], b: set[Any]) -> float:
    return len(a & b) / len(a | b) if a and b else 0.0
