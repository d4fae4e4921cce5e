"""Runs examples/packages.yaml, shows the counts and the story of one dropped row, and says what to try next."""

import gristmill
from gristmill.pipelines.explain import explain_row, story
from gristmill.storage.parquet import read_table

PIPELINE = "examples/packages.yaml"


def dropped_row(dataset: gristmill.Dataset) -> str | None:
    """The uid of a row that left as a near-duplicate, the one with the highest similarity below 1."""
    best: tuple[float, str] | None = None
    for name, *_ in dataset.folder.list(dataset.manifest.ledger or ""):
        if "/decisions-" in name:
            for row in read_table(dataset.folder, name).to_pylist():
                if row["rule"] == "near_duplicate" and row["similarity"] < 1:
                    best = max(best or (0.0, ""), (row["similarity"], row["uid"]))
    return best[1] if best else None


def main() -> None:
    result = gristmill.run(PIPELINE)
    counts = result.counts
    print(f"\nversion {result.version} of {result.path}{'' if result.published else ' (it held this already)'}")
    print(
        f"  {counts['read']:,} texts read = {counts['kept']:,} kept + {counts['dropped']:,} dropped + {counts['quarantined']:,} quarantined"
    )
    print("  splits: " + ", ".join(f"{name} {rows:,}" for name, rows in result.splits.items()))
    print(f"  shards: {result.path}/data/    report: {result.report_path}")
    uid = dropped_row(result.dataset)
    if uid:
        print("\nthe story of one dropped row:\n")
        print(story(explain_row(result.dataset, uid)))
    print(
        f"""
next:
  .venv/bin/gristmill show {result.path}
  .venv/bin/gristmill run {PIPELINE}                 again: nothing new, nothing redone
  .venv/bin/gristmill run {PIPELINE} --set steps.4.threshold=0.9 && .venv/bin/gristmill log {result.path}
  .venv/bin/gristmill verify {result.path}
  .venv/bin/gristmill init mine && .venv/bin/gristmill run mine/pipeline.yaml"""
    )


if __name__ == "__main__":
    main()
