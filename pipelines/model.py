"""The pipeline: what a pipeline file says, as frozen pydantic models. The same model is built in Python."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gristmill.pipelines.sizes import Size
from gristmill.pipelines.sources.base import CsvSource, FrameSource, JsonlSource, ParquetSource, TextSource
from gristmill.pipelines.steps.columns import Cast, RenameColumns, SelectColumns
from gristmill.pipelines.steps.dedupe import DropExactDuplicates, DropNearDuplicates
from gristmill.pipelines.steps.filter import Filter
from gristmill.pipelines.steps.functions import Pandas, Python
from gristmill.pipelines.steps.normalize_text import NormalizeText
from gristmill.pipelines.steps.quality_rules import QualityRules

AnySource = Annotated[JsonlSource | CsvSource | ParquetSource | TextSource | FrameSource, Field(discriminator="kind")]
AnyStep = Annotated[
    NormalizeText
    | QualityRules
    | Filter
    | SelectColumns
    | RenameColumns
    | Cast
    | Python
    | Pandas
    | DropExactDuplicates
    | DropNearDuplicates,
    Field(discriminator="step"),
]


class Block(BaseModel):
    """The root of the models here: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Split(BaseModel):
    """The splits by name and share, and what may not be torn apart by them.

    Every key but the options below is a split's name with its share; shares add up to 1. Rows linked by verified similarity >= `similarity`
    of `column` (chains count), or with the same non-null value of `group_by`, share a split, which is chosen by hash of the smallest `_uid`
    of the cluster. `similarity: null` links nothing by text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shares: dict[str, float]
    similarity: float | None = Field(default=None, gt=0.0, le=1.0)
    group_by: str | None = None
    column: str | None = None
    shingle: int = Field(default=5, ge=1, le=64)
    max_bucket: int = Field(default=256, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _shares_beside_options(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "shares" in value:
            return value
        options = {key: item for key, item in value.items() if key in cls.model_fields}
        return {**options, "shares": {key: item for key, item in value.items() if key not in cls.model_fields}}

    @field_validator("shares")
    @classmethod
    def _add_up(cls, value: dict[str, float]) -> dict[str, float]:
        for name, share in value.items():
            if not name.isidentifier() or name.startswith("_") or name == "all":
                raise ValueError(f"'{name}' can't be a split's name: letters, digits and _, not first, and not 'all'")
            if not 0 < share <= 1:
                raise ValueError(f"split '{name}' has share {share}; shares are over 0 and at most 1")
        if not value or abs(sum(value.values()) - 1) > 1e-6:
            raise ValueError(f"the shares add up to {sum(value.values()):g}, expected 1")
        return value


class Validate(Block):
    """The suite that a version must pass, and what happens when it doesn't. parameters: values for the suite's {"$PARAMETER": name}."""

    suite: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    on_failure: Literal["reject", "quarantine_rows", "publish_unverified"] = "reject"


class Output(Block):
    """Where the dataset is, in which order its rows are and how its shards are cut.

    mode: `replace` makes a version of the sources alone; `append` adds their rows to the newest version, whose shards and rows stay.
    order: `source` has the rows as they were read; `shuffled` in a random order of the whole split, by hash of `seed` and `_uid`, so that each
    shard is a random sample of it. The fingerprint is the same; the layout no longer depends on how the source's files are cut and named.
    """

    path: str
    mode: Literal["replace", "append"] = "replace"
    order: Literal["source", "shuffled"] = "source"
    seed: int = 0
    shard_bytes: Size = 128_000_000
    row_group_bytes: Size = 4_000_000
    row_group_rows: int = Field(default=8192, gt=0)


class Pipeline(Block):
    """One pipeline, whole: sources in, steps in order, split, checks, dataset out."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    sources: list[AnySource] = Field(min_length=1)
    id: str | None = None
    steps: list[AnyStep] = Field(default_factory=list)
    split: Split | None = None
    validate_: Validate | None = Field(default=None, alias="validate")
    output: Output

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @field_validator("sources")
    @classmethod
    def _names_differ(cls, value: list[Any]) -> list[Any]:
        names = [source.name for source in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are named '{twice[0]}'; give each a `name` of its own")
        return value
