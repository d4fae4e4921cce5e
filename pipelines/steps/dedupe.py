"""`drop_exact_duplicates` and `drop_near_duplicates`: what they compare and which copy stays. The work is in `pipelines/duplicates.py`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gristmill.pipelines.steps.base import Step


class WideStep(Step):
    """A step that compares rows with each other.

    Of a group of duplicates the survivor is the first by: rows already published, `priority` (source names, most wanted first; unnamed ones
    after them), the higher value of the column `quality` (null last), the smaller `_uid`. None of these depends on the order of files.
    """

    column: str
    priority: list[str] = Field(default_factory=list)
    quality: str | None = None

    def needs(self) -> list[str]:
        return [self.column, *([self.quality] if self.quality else [])]


class DropExactDuplicates(WideStep):
    """Drops all but one of the rows with the same text after NFC, white space runs made one space, and strip; case counts.

    Null text matches nothing; so all nulls stay. The compared value is a 128-bit hash (XXH3). Text that is empty after this matches itself.
    """

    step: Literal["drop_exact_duplicates"] = "drop_exact_duplicates"


class DropNearDuplicates(WideStep):
    """Drops rows whose word-shingle Jaccard similarity to a kept row is at least `threshold`; every removal is verified and names the kept row.

    Words are runs of letters, marks and digits of any script, lower-cased; in unspaced scripts each character. A shingle is `shingle` words in
    a row; a shorter row is one shingle, so that it matches only rows of the same words. Candidates share one of the MinHash bands, chosen so
    that a pair at the threshold is found with probability >= .98. A row is compared with at most `max_bucket` kept rows of one band bucket;
    comparisons left out are counted in the run report.
    """

    step: Literal["drop_near_duplicates"] = "drop_near_duplicates"
    threshold: float = Field(default=0.8, gt=0.0, le=1.0)
    shingle: int = Field(default=5, ge=1, le=64)
    permutations: int = Field(default=112, ge=16, le=512)
    max_bucket: int = Field(default=256, ge=1)
