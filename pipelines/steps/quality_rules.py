"""`quality_rules`: drops documents by a preset of rules over measured signals; every failing rule of a document is recorded."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from gristmill.errors import did_you_mean
from gristmill.kernels.signals import NAMES, text_signals
from gristmill.pipelines import decisions
from gristmill.pipelines.steps.base import RowStep, text_column
from gristmill.pipelines.steps.presets import PRESETS, Rule


class QualityRules(RowStep):
    """Rows that pass every rule of the preset. `thresholds` overrides some by rule name. Null text fails as `null_text`.

    With `keep_signals` the measured signals stay as columns `_signal_NAME`, to choose thresholds by.
    """

    step: Literal["quality_rules"] = "quality_rules"
    column: str
    preset: str
    thresholds: dict[str, float] = Field(default_factory=dict)
    keep_signals: bool = False

    @model_validator(mode="after")
    def _known(self) -> QualityRules:
        if self.preset not in PRESETS:
            raise ValueError(f"unknown preset '{self.preset}'.{did_you_mean(self.preset, PRESETS)}")
        names = [rule.name for rule in PRESETS[self.preset]]
        for name in self.thresholds:
            if name not in names:
                raise ValueError(f"preset '{self.preset}' has no rule '{name}'.{did_you_mean(name, names)}")
        return self

    def needs(self) -> list[str]:
        return [self.column]

    def output_columns(self, columns: list[str]) -> list[str]:
        return [*columns, *[f"_signal_{name}" for name in NAMES]] if self.keep_signals else columns

    def rules(self) -> list[Rule]:
        """The preset's rules with this step's thresholds."""
        return [
            rule._replace(threshold=self.thresholds.get(rule.name, rule.threshold)) for rule in PRESETS[self.preset]
        ]

    def apply(self, table: pa.Table) -> tuple[pa.Table, pa.Table]:
        column = text_column(table, self.column, self.step)
        signals = text_signals(column)
        uids = table["_uid"]
        keep = pc.is_valid(column)
        found = []
        if column.null_count:
            found.append(decisions.decide(uids.filter(pc.invert(keep)), "drop", "null_text"))
        for rule in self.rules():
            values = signals[rule.signal]
            failed = pc.fill_null((pc.less if rule.bound == "least" else pc.greater)(values, rule.threshold), False)
            if pc.any(failed).as_py():
                keep = pc.and_(keep, pc.invert(failed))
                found.append(
                    decisions.decide(
                        uids.filter(failed), "drop", rule.name, value=values.filter(failed), threshold=rule.threshold
                    )
                )
        if self.keep_signals:
            for name in NAMES:
                table = table.append_column(f"_signal_{name}", signals[name])
        return table.filter(keep) if found else table, pa.concat_tables(found) if found else decisions.none()
