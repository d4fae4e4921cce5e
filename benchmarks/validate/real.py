"""Precision and recall of suites on real dirty tables: `python benchmarks/validate/real.py FOLDER` with hospital/ and beers/, each dirty.csv and clean.csv."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.validators.wrong_cells import score  # noqa: E402

for name in ("hospital", "beers"):
    found = score(Path(sys.argv[1]), name)
    print(
        f"{name:10} wrong cells {found.wrong:5}  flagged {found.flagged:5}  precision {found.precision:.3f}  recall {found.recall:.3f}"
    )
