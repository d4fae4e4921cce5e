"""gristmill's own expectation types, about a whole dataset: drift, leakage between splits, coverage, history. Usable in any suite.

| type | holds if |
|---|---|
| `expect_gristmill_column_drift_to_be_less_than` | one distance between the column and its reference is under the threshold |
| `expect_gristmill_table_drift_to_be_less_than` | at most `max_columns` columns differ from the reference, p-values corrected for their number |
| `expect_gristmill_column_categories_to_match_reference` | few rows have values that the reference lacks, and few of its values are gone |
| `expect_gristmill_splits_to_share_no_rows` | no row of a split has the content of a row of another |
| `expect_gristmill_splits_to_share_no_near_duplicates` | no text of a split is nearly that of another |
| `expect_gristmill_slice_row_counts_to_be_at_least` | every combination of values of some columns has enough rows |
| `expect_gristmill_class_balance_to_be_between` | every class has its share of the rows |
| `expect_gristmill_metric_to_match_history` | a metric is not unusual among those of the versions before |

Great Expectations itself does not know these names: keep them in a suite of their own if that suite is to be read by it as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from gristmill.errors import UsageError, did_you_mean
from gristmill.validators import coverage, leakage
from gristmill.validators.drift import DRIFTED, ColumnDrift, compare
from gristmill.validators.expectations.base import Expectation, Found, Outcome, Setting
from gristmill.validators.history import (
    Method,
    compare_with_history,
    explain_unusual,
    kept_profile,
    metrics,
    versions_before,
)
from gristmill.validators.inputs import Data, open_data
from gristmill.validators.profile import profile
from gristmill.validators.reference import Reference, reference_profile

PREFIX = "expect_gristmill_"
SHOWN = 20
NO_VERSION_BEFORE = "there is no version before this one to compare with"
Result = tuple[bool, dict[str, Any]]


class DatasetExpectation(Expectation):
    """About all rows at once, without a row condition."""

    def run(self, data: Data) -> Result:
        """(success, the `result`)."""
        raise NotImplementedError(type(self).__name__)

    def outcome(self, setting: Setting, found: Found) -> Outcome:
        return Outcome(*self.run(setting.data))

    @model_validator(mode="after")
    def _all_rows(self) -> Self:
        if self.row_condition is not None:
            raise ValueError("row_condition: this expectation is about all rows; leave it out")
        return self


class Compared(DatasetExpectation):
    """The data, or one `split` of it, against its `reference`; it holds where that is the version before and there is none."""

    reference: Reference = Field(default_factory=Reference)
    split: str | None = None

    def run(self, data: Data) -> Result:
        columns = self.compared_columns()
        before = reference_profile(self.reference, data, columns)
        if before is None:
            return True, {"observed_value": None, "details": {"note": NO_VERSION_BEFORE}}
        own = profile(one_split(data, self.split), columns=columns)  # not the kept one of a version: these are few
        return self.judge(compare(before, own, columns))

    def compared_columns(self) -> list[str] | None:
        """None: all."""
        return self.columns_used()

    def judge(self, found: Sequence[ColumnDrift]) -> Result:
        """(success, the `result`) for the columns that can be compared."""
        raise NotImplementedError(type(self).__name__)


class ColumnDrifts(Compared):
    """`p_value`: the difference only counts where it is no chance: its own p-value is under this."""

    type = f"{PREFIX}column_drift_to_be_less_than"
    column: str
    threshold: float = Field(gt=0)
    metric: Literal["psi", "jensen_shannon", "kolmogorov_smirnov", "cramers_v", "missing_rate"] = "psi"
    p_value: float | None = Field(default=None, gt=0, le=1)

    def columns_used(self) -> list[str]:
        return [self.column]

    def judge(self, found: Sequence[ColumnDrift]) -> Result:
        if not found:
            text = f"column '{self.column}' can't be compared: its values are of another kind than the reference's, or nested"
            raise UsageError(text, column=self.column)
        value, chance = self._value(found[0])
        drifted = value >= self.threshold and (self.p_value is None or chance < self.p_value)
        return not drifted, {"observed_value": value, "details": found[0].to_json_dict()}

    def _value(self, found: ColumnDrift) -> tuple[float, float]:
        """(the distance, the p-value that goes with it)."""
        wanted = {"kolmogorov_smirnov": "kolmogorov_smirnov", "cramers_v": "chi_squared"}.get(self.metric)
        if wanted is not None and found.test != wanted:
            text = f"{self.metric} does not suit column '{self.column}', which is compared by {found.of}; write psi, jensen_shannon or "
            raise UsageError(text + ("cramers_v" if found.test == "chi_squared" else "kolmogorov_smirnov"))
        if self.metric == "missing_rate":
            return abs(found.missing_change), found.missing_p_value
        values = {"psi": found.psi, "jensen_shannon": found.jensen_shannon}
        return values.get(self.metric, found.effect), found.p_value


class TableDrifts(Compared):
    """effect: from which a column has drifted: the largest difference of the distribution functions, Cramer's V, or the change of the missing
    rate. alpha: of the p-values adjusted by Benjamini and Hochberg over all columns.
    """

    type = f"{PREFIX}table_drift_to_be_less_than"
    columns: list[str] | None = None
    effect: float = Field(default=DRIFTED, gt=0, le=1)
    alpha: float = Field(default=0.05, gt=0, le=1)
    max_columns: int = Field(default=0, ge=0)

    def columns_used(self) -> list[str]:
        return self.columns or []

    def compared_columns(self) -> list[str] | None:
        return self.columns

    def judge(self, found: Sequence[ColumnDrift]) -> Result:
        drifted = sorted(
            (each for each in found if each.drifted(self.effect, self.alpha)), key=lambda each: -each.effect
        )
        details = {"compared": len(found), "drifted": [each.to_json_dict() for each in drifted[:SHOWN]]}
        return len(drifted) <= self.max_columns, {
            "observed_value": [each.column for each in drifted],
            "details": details,
        }


class Categories(Compared):
    """The shares are of rows: of the data for new values, of the reference for those that are gone."""

    type = f"{PREFIX}column_categories_to_match_reference"
    column: str
    max_new_share: float = Field(default=0.0, ge=0, le=1)
    max_vanished_share: float = Field(default=0.0, ge=0, le=1)

    def columns_used(self) -> list[str]:
        return [self.column]

    def judge(self, found: Sequence[ColumnDrift]) -> Result:
        if not found or found[0].of == "length":
            raise UsageError(
                f"column '{self.column}' is no category: it has over 200 values, or values that aren't text, booleans or whole numbers"
            )
        one = found[0]
        success = one.new_share <= self.max_new_share and one.vanished_share <= self.max_vanished_share
        observed = {"new_share": one.new_share, "vanished_share": one.vanished_share}
        details = {
            "new": [list(pair) for pair in one.new[:SHOWN]],
            "vanished": [list(pair) for pair in one.vanished[:SHOWN]],
        }
        return success, {"observed_value": observed, "details": details}


class SharedRows(DatasetExpectation):
    """splits: at least two of the dataset's; all for null. columns: that make up the content; all but those with _ in front for null."""

    type = f"{PREFIX}splits_to_share_no_rows"
    splits: list[str] | None = None
    columns: list[str] | None = None
    max_share: float = Field(default=0.0, ge=0, le=1)

    def columns_used(self) -> list[str]:
        return self.columns or []

    def run(self, data: Data) -> Result:
        return leaked(leakage.shared_rows(splits_of(data, self.splits), self.columns), self.max_share)


class SharedTexts(DatasetExpectation):
    """threshold: the least Jaccard similarity of sets of `shingle` words."""

    type = f"{PREFIX}splits_to_share_no_near_duplicates"
    column: str
    threshold: float = Field(default=0.8, gt=0, le=1)
    shingle: int = Field(default=5, ge=1, le=64)
    splits: list[str] | None = None
    max_share: float = Field(default=0.0, ge=0, le=1)

    def columns_used(self) -> list[str]:
        return [self.column]

    def run(self, data: Data) -> Result:
        found = leakage.near_duplicates(splits_of(data, self.splits), self.column, self.threshold, self.shingle)
        return leaked(found, self.max_share)


class SliceRows(DatasetExpectation):
    """values: for each column those whose combinations must all be there; without them only combinations that occur are looked at."""

    type = f"{PREFIX}slice_row_counts_to_be_at_least"
    columns: list[str] = Field(min_length=1)
    min_value: int = Field(ge=1)
    values: list[list[Any]] | None = None
    split: str | None = None

    @model_validator(mode="after")
    def _values_for_each_column(self) -> Self:
        if self.values is not None and len(self.values) != len(self.columns):
            raise ValueError(
                f"values has {len(self.values)} lists for {len(self.columns)} columns; write one for each column"
            )
        return self

    def columns_used(self) -> list[str]:
        return self.columns

    def run(self, data: Data) -> Result:
        counts = coverage.slice_counts(one_split(data, self.split), self.columns)
        thin = coverage.thin_slices(counts, self.min_value, self.values)
        least = min([rows for _, rows in thin] or list(counts.values()) or [0])
        shown = [
            {"values": dict(zip(self.columns, values, strict=True)), "rows": rows} for values, rows in thin[:SHOWN]
        ]
        success = not thin and bool(counts)
        return success, {
            "observed_value": least,
            "details": {"slices": len(counts), "thin_slices": len(thin), "thinnest": shown},
        }


class ClassBalance(DatasetExpectation):
    """The shares of every class among the rows that have one; max_ratio: of the largest class to the smallest."""

    type = f"{PREFIX}class_balance_to_be_between"
    column: str
    min_share: float = Field(default=0.0, ge=0, le=1)
    max_share: float = Field(default=1.0, ge=0, le=1)
    max_ratio: float | None = Field(default=None, ge=1)
    split: str | None = None

    def columns_used(self) -> list[str]:
        return [self.column]

    def run(self, data: Data) -> Result:
        shares = coverage.class_shares(coverage.slice_counts(one_split(data, self.split), [self.column]))
        if not shares:
            return False, {"observed_value": None, "details": {"classes": 0}}
        low, high = min(shares.values()), max(shares.values())
        success = (
            low >= self.min_share
            and high <= self.max_share
            and (self.max_ratio is None or high / low <= self.max_ratio)
        )
        few = list(shares.items())
        shown = few if len(few) <= SHOWN else [*few[: SHOWN // 2], *few[-SHOWN // 2 :]]
        details = {"classes": len(shares), "ratio": high / low, "shares": [[value, share] for value, share in shown]}
        return success, {"observed_value": {"min_share": low, "max_share": high}, "details": details}


class MetricHistory(DatasetExpectation):
    """metric: `row_count`, or one of a column: missing_rate, distinct, mean, std, min, q05, median, q95, max, outlier_rate, mean_length,
    empty_rate. threshold: 3.5 robust z-scores or a relative change of 0.25 for null. With under `min_versions` before it, it holds.
    """

    type = f"{PREFIX}metric_to_match_history"
    metric: str
    column: str | None = None
    versions: int = Field(default=10, ge=1)
    min_versions: int = Field(default=3, ge=1)
    method: Method = "z_score"
    threshold: float | None = Field(default=None, gt=0)

    def columns_used(self) -> list[str]:
        return [] if self.column is None else [self.column]

    def run(self, data: Data) -> Result:
        dataset = _dataset(data, self.type)
        name = self.metric if self.column is None else f"{self.column}.{self.metric}"
        mine = metrics(kept_profile(dataset))
        if name not in mine:
            raise UsageError(f"{data.name} has no metric '{name}'.{did_you_mean(name, mine)}")
        found = [metrics(kept_profile(each)) for each in versions_before(dataset, self.versions)]
        history = [values[name] for values in found if name in values]
        if len(history) < self.min_versions:
            details = {
                "metric": name,
                "history": history,
                "note": f"fewer than {self.min_versions} versions before this one",
            }
            return True, {"observed_value": mine[name], "details": details}
        judged = compare_with_history(mine[name], history, self.method, self.threshold)
        return not judged.unusual, {"observed_value": mine[name], "details": explain_unusual(name, judged)}


DATASETS: tuple[type[DatasetExpectation], ...] = (
    ColumnDrifts,
    TableDrifts,
    Categories,
    SharedRows,
    SharedTexts,
    SliceRows,
    ClassBalance,
    MetricHistory,
)


def one_split(data: Data, split: str | None) -> Data:
    """The data, or one split of the dataset that it is."""
    return data if split is None else open_data(_dataset(data, f"split '{split}'"), split=split)


def splits_of(data: Data, names: Sequence[str] | None) -> dict[str, Data]:
    """The splits by name.

    Raises:
        UsageError: the data has none, or fewer than two were named.
    """
    dataset = _dataset(data, "a check between splits")
    chosen = list(dataset.splits) if names is None else list(names)
    if len(chosen) < 2:
        raise UsageError(f"{data.name}: a check between splits needs two of them, it has {len(chosen)}")
    return {name: open_data(dataset, split=name) for name in chosen}


def leaked(found: Sequence[leakage.Leak], max_share: float) -> Result:
    """The result of leaks between splits: the worst share of any split."""
    worst = max(each.share for each in found)
    pairs = [
        {"split": each.split, "other": each.other, "rows": each.rows, "share": each.share, "left_out": each.left_out}
        | {
            "examples": [
                {"row": row, "other_row": other, "similarity": similarity} for row, other, similarity in each.examples
            ]
        }
        for each in found
    ]
    return worst <= max_share, {"observed_value": sum(each.rows for each in found), "details": {"pairs": pairs}}


def _dataset(data: Data, what: str) -> Any:
    if data.dataset is None:
        raise UsageError(f"{what} needs a dataset version; {data.name} is none")
    return data.dataset
