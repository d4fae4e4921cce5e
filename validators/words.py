"""An expectation in plain words, for reports and the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

LISTED = 6


def describe(kind: str, kwargs: Mapping[str, Any]) -> str:
    """What is expected, in one line: "age is between 0 and 120"; for a type without words of its own its name and parameters."""
    words = _WORDS.get(kind)
    text = words(kwargs) if words is not None else _plain(kind, kwargs)
    mostly = kwargs.get("mostly")
    if isinstance(mostly, (int, float)) and mostly < 1:
        text += (
            f", in at least {100 * mostly:.2g} % of the rows"
            if mostly < 0.01
            else f", in at least {100 * mostly:.4g} % of the rows"
        )
    return text + (" (only some rows)" if kwargs.get("row_condition") else "")


def basis(result: Mapping[str, Any]) -> str:
    """What a result rests on where that isn't all rows, exactly: an estimate with its error, or Parquet footers; "" for all others."""
    if found := result.get("approximate"):
        if "rank_error" in found:
            return f"an estimate ({found['method']}): no rank is off by more than {100 * found['rank_error']:.2g} % of the rows"
        return f"an estimate ({found['method']}): standard error {100 * found['relative_standard_error']:.2g} %"
    return "from file footers: no row was read" if result.get("evaluated") == "footer" else ""


def subject(kwargs: Mapping[str, Any]) -> str:
    """The column or columns that an expectation is about, or `table`."""
    if "column" in kwargs:
        return str(kwargs["column"])
    if "column_A" in kwargs:
        return f"{kwargs['column_A']}, {kwargs.get('column_B')}"
    if isinstance(kwargs.get("column_list"), list):
        return ", ".join(map(str, kwargs["column_list"]))
    return "table"


def bounds(kwargs: Mapping[str, Any]) -> str:
    """The bounds in words: between 1 and 5, at least 1, less than 5."""
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    over = "more than" if kwargs.get("strict_min") else "at least"
    under = "less than" if kwargs.get("strict_max") else "at most"
    if low is None:
        return f"{under} {_value(high)}"
    if high is None:
        return f"{over} {_value(low)}"
    if kwargs.get("strict_min") or kwargs.get("strict_max"):
        return f"{over} {_value(low)} and {under} {_value(high)}"
    return f"between {_value(low)} and {_value(high)}"


def listed(values: Any) -> str:
    """The first values of a list."""
    every = list(values or [])
    more = len(every) - LISTED
    return ", ".join(_value(value) for value in every[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if not value.is_integer() or abs(value) >= 1e15 else f"{int(value):,}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _plain(kind: str, kwargs: Mapping[str, Any]) -> str:
    name = kind.removeprefix("expect_").removeprefix("gristmill_").replace("_", " ")
    skipped = ("column", "mostly", "row_condition", "condition_parser", "batch_id")
    rest = ", ".join(
        f"{key} {_short(value)}" for key, value in kwargs.items() if key not in skipped and value is not None
    )
    about = f"{kwargs['column']}: " if "column" in kwargs else ""
    return f"{about}{name.removeprefix('column ').removeprefix('values ')}{f' ({rest})' if rest else ''}"


def _short(value: Any) -> str:
    text = listed(value) if isinstance(value, (list, tuple)) else _value(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _of(form: str) -> Callable[[Mapping[str, Any]], str]:
    """Words from a template: {column}, {bounds}, {set} and the parameters."""

    def words(kwargs: Mapping[str, Any]) -> str:
        values = {key: _short(value) for key, value in kwargs.items()}
        for key in ("column", "column_A", "column_B"):
            values[key] = str(kwargs.get(key, "?"))
        return form.format_map(_Known(values, bounds=bounds(kwargs), set=listed(kwargs.get("value_set"))))

    return words


class _Known(dict[str, str]):
    """A parameter that isn't there is a dash."""

    def __missing__(self, key: str) -> str:
        return "-"


_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    f"expect_{kind}": _of(form)
    for kind, form in {
        "column_to_exist": "{column} exists",
        "column_values_to_not_be_null": "{column} is never missing",
        "column_values_to_be_null": "{column} is always missing",
        "column_values_to_be_unique": "every value of {column} is there once",
        "column_values_to_be_between": "{column} is {bounds}",
        "column_values_to_be_in_set": "{column} is one of {set}",
        "column_values_to_not_be_in_set": "{column} is none of {set}",
        "column_values_to_match_regex": "{column} matches {regex}",
        "column_values_to_not_match_regex": "{column} does not match {regex}",
        "column_value_lengths_to_be_between": "the length of {column} is {bounds}",
        "column_value_lengths_to_equal": "the length of {column} is {value}",
        "column_mean_to_be_between": "the mean of {column} is {bounds}",
        "column_median_to_be_between": "the median of {column} is {bounds}",
        "column_sum_to_be_between": "the sum of {column} is {bounds}",
        "column_stdev_to_be_between": "the standard deviation of {column} is {bounds}",
        "column_quantile_values_to_be_between": "the quantiles of {column} lie in their ranges",
        "column_min_to_be_between": "the least {column} is {bounds}",
        "column_max_to_be_between": "the greatest {column} is {bounds}",
        "column_unique_value_count_to_be_between": "the number of different values of {column} is {bounds}",
        "column_proportion_of_unique_values_to_be_between": "the share of different values of {column} is {bounds}",
        "column_distinct_values_to_be_in_set": "the values of {column} are among {set}",
        "column_distinct_values_to_contain_set": "{column} has each of {set}",
        "column_distinct_values_to_equal_set": "the values of {column} are {set}",
        "column_kl_divergence_to_be_less_than": "the shares of {column} are as given (KL divergence under {threshold})",
        "column_values_to_be_of_type": "{column} is of type {type_}",
        "column_values_to_be_increasing": "{column} increases",
        "column_values_to_be_decreasing": "{column} decreases",
        "column_pair_values_a_to_be_greater_than_b": "{column_A} is not less than {column_B}",
        "column_pair_values_to_be_equal": "{column_A} equals {column_B}",
        "compound_columns_to_be_unique": "every combination of {column_list} is there once",
        "table_row_count_to_be_between": "the number of rows is {bounds}",
        "table_row_count_to_equal": "the number of rows is {value}",
        "table_column_count_to_equal": "the number of columns is {value}",
        "table_columns_to_match_set": "the columns are {column_set}",
        "table_columns_to_match_ordered_list": "the columns are, in order, {column_list}",
        "gristmill_column_drift_to_be_less_than": "{column} is as before: {metric} under {threshold}",
        "gristmill_table_drift_to_be_less_than": "the columns are distributed as before",
        "gristmill_column_categories_to_match_reference": "{column} has the same categories as before",
        "gristmill_splits_to_share_no_rows": "no row is in two splits",
        "gristmill_splits_to_share_no_near_duplicates": "no {column} is nearly the same in two splits",
        "gristmill_slice_row_counts_to_be_at_least": "every combination of {columns} has at least {min_value} rows",
        "gristmill_class_balance_to_be_between": "the classes of {column} are balanced",
        "gristmill_metric_to_match_history": "{metric} is as in the versions before",
    }.items()
}
