"""A suite suggested from a profile: core Great Expectations types, each with its reason. It holds on the data it came from and leaves room for
more data of the same kind; null bursts, other units, new categories, swapped, truncated, shifted or damaged columns break it.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from gristmill.validators.profile import ColumnProfile, Numbers, Profile, Text
from gristmill.validators.sketches import share_below
from gristmill.validators.summaries import DAMAGED, LONG

ENOUGH = 20  # values, below which nothing is said of a distribution
CATEGORIES = 200
SAMPLED = 0.999  # `mostly` of a shape that was seen in a sample
PER_CATEGORY = 10  # a column is categorical where its values come so often on average
_NAMESPACE = uuid.UUID("6f2a1a52-6f0c-5d6e-9d58-6c7f3b0f7a11")
_KEY_NAME = re.compile(r"(^|_|-|\b)(id|uid|uuid|guid|key|index|pk|code)$|[a-z](Id|ID|Key)$", re.ASCII)
_ZONE = re.compile(r"(Z|[+-]\d\d:?\d\d)$")


class Suggestion(NamedTuple):
    """One expectation and why."""

    type: str
    kwargs: dict[str, Any]
    reason: str
    severity: str = "critical"


def suggest(profile: Profile, name: str) -> dict[str, Any]:
    """The suite, as Great Expectations' JSON; `notes` and `meta.reason` of each expectation say why. The same profile gives the same bytes."""
    found = list(_table(profile))
    for column in profile.columns.values():
        if not column.name.startswith("_"):
            for rule in RULES:
                found += rule(column)
    found += _orders(profile)
    return {
        "name": name,
        "expectations": [_entry(each) for each in found],
        "meta": {"suggested_from_rows": profile.rows},
        "notes": None,
    }


def suggest_for(data: Any, profile: Profile, name: str, *, split: str | None = None) -> dict[str, Any]:
    """The suite suggested by the data's profile, without what does not hold on the data itself: sketches and rounding can err. One more pass.

    Arguments as for `validate`.
    """
    from gristmill.validators.api import validate

    suite = suggest(profile, name)
    verdict = validate(data, suite, result_format="BOOLEAN_ONLY", split=split, states=False)
    failed = {result["expectation_config"]["id"] for result in verdict.failed}
    return {**suite, "expectations": [entry for entry in suite["expectations"] if entry["id"] not in failed]}


def _entry(each: Suggestion) -> dict[str, Any]:
    text = json.dumps([each.type, each.kwargs], sort_keys=True)
    return {
        "type": each.type,
        "kwargs": each.kwargs,
        "meta": {"reason": each.reason},
        "notes": each.reason,
        "severity": each.severity,
        "id": str(uuid.uuid5(_NAMESPACE, text)),
    }


def _table(profile: Profile) -> Iterator[Suggestion]:
    names = [name for name in profile.columns if not name.startswith("_")]
    yield Suggestion(
        "expect_table_columns_to_match_set",
        {"column_set": names, "exact_match": False},
        "these columns are there; others may come",
    )
    if profile.rows:
        kwargs = {"min_value": profile.rows // 2, "max_value": profile.rows * 2}
        yield Suggestion(
            "expect_table_row_count_to_be_between",
            kwargs,
            f"{profile.rows:,} rows; half to twice that is usual",
            "warning",
        )


def _nulls(column: ColumnProfile) -> Iterator[Suggestion]:
    missing = column.nulls + column.nans
    if not column.rows or missing == column.rows:
        return
    mostly = _tolerated(missing, column.rows)
    if mostly <= 0:
        return
    reason = (
        "never missing" if not missing else f"{missing:,} of {column.rows:,} are missing; somewhat more is let pass"
    )
    yield Suggestion("expect_column_values_to_not_be_null", _on(column, mostly), reason)


def _keys(column: ColumnProfile) -> Iterator[Suggestion]:
    if is_unique(column):
        yield Suggestion("expect_column_values_to_be_unique", _on(column), f"all {column.present:,} values differ")


def _range(column: ColumnProfile) -> Iterator[Suggestion]:
    numbers = column.numbers
    if numbers is None or not numbers.count or column.kind not in ("number", "time"):
        return
    if column.kind == "time":
        kwargs = {"min_value": _bound(column.low), "max_value": _bound(column.high)}
        reason = f"from {column.low} to {column.high}; widen the end for data that grows, an hour's shift breaks it on purpose"
        yield Suggestion("expect_column_values_to_be_between", {**_on(column), **kwargs}, reason)
        return
    low, high = float(column.low), float(column.high)
    slack = (high - low) / 4
    least, most = 0.0 if low >= 0 > low - slack else low - slack, high + slack
    if numbers.infinite:
        return
    if is_key(column):
        most = math.inf
    kwargs = {"min_value": _floor(least, column), **({} if math.isinf(most) else {"max_value": _ceil(most, column)})}
    yield Suggestion(
        "expect_column_values_to_be_between",
        {**_on(column), **kwargs},
        f"from {column.low} to {column.high}, and a quarter of that span more",
    )


def _distribution(column: ColumnProfile) -> Iterator[Suggestion]:
    numbers = column.numbers
    if numbers is None or column.kind != "number" or numbers.count < ENOUGH or is_key(column):
        return
    shares = [0.05, 0.25, 0.5, 0.75, 0.95]
    ranges = [_quantile_range(numbers, share) for share in shares]
    kwargs = {**_on(column), "quantile_ranges": {"quantiles": shares, "value_ranges": ranges}}
    reason = "the quantiles, each with the values at 5 % of the rows more and less (or 3.5 standard errors)"
    yield Suggestion("expect_column_quantile_values_to_be_between", kwargs, reason)
    if numbers.std and numbers.mean is not None and not numbers.infinite:
        slack = numbers.std * max(0.25, 6 / math.sqrt(numbers.count))
        kwargs = {**_on(column), "min_value": numbers.mean - slack, "max_value": numbers.mean + slack}
        yield Suggestion(
            "expect_column_mean_to_be_between",
            kwargs,
            f"mean {numbers.mean:.6g}, with a quarter of the standard deviation to each side",
        )


def _categories(column: ColumnProfile) -> Iterator[Suggestion]:
    if not is_categorical(column):
        return
    values = [value for value, _ in column.top]
    reason = f"{len(values)} values in {column.present:,} rows: a category"
    yield Suggestion("expect_column_values_to_be_in_set", {**_on(column), "value_set": values}, reason)
    if column.kind == "text" and 2 <= len(values) <= 50 and column.present >= 5 * ENOUGH:
        shares = [count / column.present for _, count in column.top]
        threshold = round(max(0.1, 3 * (len(values) - 1) / column.present), 4)
        kwargs = {**_on(column), "partition_object": {"values": values, "weights": shares}, "threshold": threshold}
        yield Suggestion(
            "expect_column_kl_divergence_to_be_less_than", kwargs, "the shares of the categories, with room for chance"
        )


def _variety(column: ColumnProfile) -> Iterator[Suggestion]:
    if column.distinct is None or column.distinct < 2 or column.present < ENOUGH or is_unique(column):
        return
    if column.distinct <= CATEGORIES:
        kwargs = {**_on(column), "min_value": max(2, column.distinct // 2)}
        yield Suggestion(
            "expect_column_unique_value_count_to_be_between",
            kwargs,
            f"{column.distinct} different values; under half of them is strange",
        )
    else:
        kwargs = {**_on(column), "min_value": _round_down(column.distinct / column.present / 2)}
        reason = (
            f"about {column.distinct:,} different values in {column.present:,} rows; under half that share is strange"
        )
        yield Suggestion("expect_column_proportion_of_unique_values_to_be_between", kwargs, reason)


def _lengths(column: ColumnProfile) -> Iterator[Suggestion]:
    numbers = column.numbers
    if (
        column.kind != "text"
        or numbers is None
        or numbers.count < ENOUGH
        or numbers.low is None
        or numbers.high is None
    ):
        return
    low, high = int(numbers.low), int(numbers.high)
    if low == high:
        yield Suggestion(
            "expect_column_value_lengths_to_equal", {**_on(column), "value": low}, f"all have {low} characters"
        )
        return
    kwargs = {**_on(column), "min_value": math.floor(low * 0.75), "max_value": math.ceil(high * 1.25)}
    yield Suggestion(
        "expect_column_value_lengths_to_be_between", kwargs, f"{low} to {high} characters, and a quarter more or less"
    )
    seen = set()
    for share in (0.5, 0.9):
        length = int(numbers.at(share))
        held = 1 - share_below(numbers.points, length) - numbers.rank_error
        mostly = _round_down(
            held - max(held / 2 if share > 0.5 else 0.1, 4 * math.sqrt(held * (1 - held) / numbers.count))
        )
        if length > low and mostly > 0 and length not in seen:
            seen.add(length)
            reason = f"{held:.0%} have at least {length} characters; fewer if text is cut off"
            yield Suggestion(
                "expect_column_value_lengths_to_be_between", {**_on(column, mostly), "min_value": length}, reason
            )


def _shapes(column: ColumnProfile) -> Iterator[Suggestion]:
    text = column.text
    if text is None or column.present < ENOUGH or is_categorical(column):
        return
    if found := shape_regex(text):
        regex, covered = found
        whole = covered == text.shaped and not text.unshaped
        mostly = 1.0 if whole else _tolerated(text.shaped - covered + text.unshaped, text.shaped + text.unshaped)
        if text.shaped + text.unshaped < column.present:
            mostly = min(mostly, SAMPLED)
        reason = (
            "every value has this shape"
            if whole
            else f"{covered / (text.shaped + text.unshaped):.1%} of the values have this shape"
        )
        yield Suggestion("expect_column_values_to_match_regex", {**_on(column, mostly), "regex": regex}, reason)
    if len(text.prefix) >= 3 and not text.prefix.isdigit():
        yield Suggestion(
            "expect_column_values_to_match_regex",
            {**_on(column), "regex": f"^{_literal(text.prefix)}"},
            "every value begins with this",
        )
    if _ZONE.search(text.suffix) or (len(text.suffix) >= 3 and not text.suffix.isdigit()):
        yield Suggestion(
            "expect_column_values_to_match_regex",
            {**_on(column), "regex": f"{_literal(text.suffix)}$"},
            "every value ends with this",
        )


def _encoding(column: ColumnProfile) -> Iterator[Suggestion]:
    text = column.text
    if text is None or not column.present:
        return
    mostly = _tolerated(text.damaged, column.present)
    if mostly > 0:
        reason = (
            "no sign of UTF-8 read in another encoding"
            if not text.damaged
            else f"{text.damaged:,} values look like UTF-8 read in another encoding"
        )
        yield Suggestion("expect_column_values_to_not_match_regex", {**_on(column, mostly), "regex": DAMAGED}, reason)
    share = text.non_ascii / column.present
    if share >= 0.05 and column.present >= ENOUGH:
        kwargs = {**_on(column, _round_down(share / 2)), "regex": "[^\\x00-\\x7f]"}
        yield Suggestion(
            "expect_column_values_to_match_regex",
            kwargs,
            f"{share:.1%} have characters beyond ASCII; fewer if they got lost",
        )


def _orders(profile: Profile) -> Iterator[Suggestion]:
    for more, less, rows in profile.orders:
        a, b = profile.columns[more], profile.columns[less]
        if rows >= ENOUGH and b.high > a.low:  # else their ranges say it already
            kwargs = {"column_A": more, "column_B": less, "or_equal": True, "ignore_row_if": "either_value_is_missing"}
            reason = f"{more} is never less than {less}"
            yield Suggestion("expect_column_pair_values_a_to_be_greater_than_b", kwargs, reason)


RULES: tuple[Callable[[ColumnProfile], Iterator[Suggestion]], ...] = (
    _nulls,
    _keys,
    _range,
    _distribution,
    _categories,
    _variety,
    _lengths,
    _shapes,
    _encoding,
)


def is_unique(column: ColumnProfile) -> bool:
    """Whether no value of text or whole numbers comes twice, as far as the profile can tell: a sketched count is within 3 standard errors."""
    if column.distinct is None or column.present < ENOUGH or not (column.kind == "text" or "int" in column.type):
        return False
    if column.distinct_error:
        return column.distinct >= column.present * (1 - 3 * column.distinct_error) and not any(
            count > 1 for _, count in column.top
        )
    return column.distinct == column.present


def is_key(column: ColumnProfile) -> bool:
    """Whether a column of whole numbers names rows rather than measures them: unique, and dense or called so."""
    if column.kind != "number" or not is_unique(column):
        return False
    return bool(_KEY_NAME.search(column.name)) or column.high - column.low < 4 * column.present


def is_categorical(column: ColumnProfile) -> bool:
    """Whether every value is counted and each comes often."""
    if column.kind not in ("text", "number") or not column.distinct or column.distinct_error or column.present < ENOUGH:
        return False
    if column.kind == "number" and ("int" not in column.type or column.distinct > ENOUGH):
        return False
    if column.kind == "text" and column.numbers is not None and (column.numbers.high or 0) > LONG:
        return False
    return column.distinct <= CATEGORIES and column.present >= PER_CATEGORY * column.distinct


def shape_regex(text: Text) -> tuple[str, int] | None:
    """(regex, values that match) of the few shapes that cover 95 % of the values looked at; None if there are no such few."""
    present = text.shaped + text.unshaped
    for shapes, error, form, most in (
        (text.shapes, text.shapes_error, _exact_shape, 5),
        (text.runs, text.runs_error, _run_shape, 8),
    ):
        covered, chosen = 0, []
        for shape, count in shapes[:most]:
            if count + error < 0.001 * present and covered >= 0.95 * present:
                break
            covered += count
            chosen.append(shape)
        if covered >= 0.95 * present and any(chosen):
            parts = sorted(form(shape) for shape in chosen)
            return f"^{parts[0]}$" if len(parts) == 1 else f"^({'|'.join(parts)})$", covered
    return None


_SIGNS = {"9": "[0-9]", "A": "[A-Z]", "a": "[a-z]", "\u00a4": "[^\\x00-\\x7f]"}


def _exact_shape(shape: str) -> str:
    parts = []
    for run in re.finditer(r"(.)\1*", shape, re.DOTALL):
        one, n = run[1], len(run[0])
        parts.append(_SIGNS.get(one, _literal(one)) + (f"{{{n}}}" if n > 1 else ""))
    return "".join(parts)


def _run_shape(shape: str) -> str:
    return "".join(f"{_SIGNS[one]}+" if one in _SIGNS else _literal(one) for one in shape)


def _literal(text: str) -> str:
    """A regex for the text itself; blanks and hyphens need no backslash outside a set."""
    return re.escape(text).replace("\\ ", " ").replace("\\-", "-")


def _quantile_range(numbers: Numbers, share: float) -> list[float]:
    slack = max(0.05, 3.5 * math.sqrt(share * (1 - share) / numbers.count)) + numbers.rank_error
    assert numbers.low is not None
    assert numbers.high is not None
    low = numbers.low if share - slack <= 0 else numbers.at(share - slack)
    return [low, numbers.high if share + slack >= 1 else numbers.at(share + slack)]


def _on(column: ColumnProfile, mostly: float = 1.0) -> dict[str, Any]:
    return {"column": column.name, **({"mostly": mostly} if mostly < 1 else {})}


def _tolerated(count: int, of: int) -> float:
    """`mostly` for something that `count` of `of` rows do: none if none does, else a quarter or 4 standard errors more."""
    if not count:
        return 1.0
    share = count / of
    return _round_down(1 - share - max(share / 4, 4 * math.sqrt(share * (1 - share) / of)))


def _round_down(share: float) -> float:
    return max(0.0, math.floor(share * 10_000) / 10_000)


def _bound(value: Any) -> Any:
    return (
        value.isoformat()
        if isinstance(value, (dt.date, dt.datetime))
        else float(value)
        if isinstance(value, decimal.Decimal)
        else value
    )


def _floor(value: float, column: ColumnProfile) -> float:
    return math.floor(value) if "int" in column.type else value


def _ceil(value: float, column: ColumnProfile) -> float:
    return math.ceil(value) if "int" in column.type else value
