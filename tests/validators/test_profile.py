"""The profile against plain Python, its sketches against their bounds, and the suggested suite against planted faults in real data."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import ColumnError
from gristmill.validators.api import validate
from gristmill.validators.profile import Profile, Profiler, profile, profile_batches
from gristmill.validators.sketches import Counts, Quantiles, quantile, share_below
from gristmill.validators.suggest import suggest, suggest_for

FLOATS = st.none() | st.floats(allow_infinity=False, width=32) | st.integers(-5, 5).map(float)
TEXTS = st.none() | st.text(max_size=12) | st.sampled_from(["", "a", "AB-12", "é", " pad", "Ã©t"])


def of(**columns: pa.Array) -> Profile:
    table = pa.table(columns)
    return profile_batches(table.schema, [table])


@given(st.lists(FLOATS, max_size=80))
def test_numbers_are_those_of_numpy(values):
    column = of(x=pa.array(values, pa.float64())).columns["x"]
    known = [value for value in values if value is not None and not math.isnan(value)]
    assert (column.rows, column.nulls) == (len(values), values.count(None))
    assert column.nans == len(values) - len(known) - column.nulls and column.present == len(known)
    assert (column.distinct, column.distinct_error) == (len(set(known)), 0.0)
    if not known:
        assert column.numbers is None
        return
    numbers = column.numbers
    assert (column.low, column.high, numbers.low, numbers.high) == (min(known), max(known), min(known), max(known))
    assert numbers.mean == pytest.approx(np.mean(known), rel=1e-9, abs=1e-9)
    assert (numbers.std is None) == (len(known) < 2)
    if len(known) > 1:
        assert numbers.std == pytest.approx(np.std(known, ddof=1), rel=1e-9, abs=1e-9)
    assert (
        numbers.zeros == known.count(0)
        and numbers.negative == sum(value < 0 for value in known)
        and numbers.rank_error == 0
    )
    for share, value in numbers.quantiles.items():
        assert value == np.quantile(known, float(share), method="inverted_cdf")
    low, high = numbers.fences
    assert numbers.outliers == (sum(value < low for value in known), sum(value > high for value in known))


@given(st.lists(TEXTS, max_size=60))
def test_texts_are_those_of_python(values):
    column = of(t=pa.array(values, pa.string())).columns["t"]
    known = [value for value in values if value is not None]
    expected = sorted(Counter(known).items(), key=lambda pair: (-pair[1], pair[0].encode()))
    assert column.top == expected and column.distinct == len(expected)
    text = column.text
    assert text.empty == known.count("") and text.non_ascii == sum(not value.isascii() for value in known)
    if known:
        assert column.numbers.low == min(map(len, known)) and column.numbers.high == max(map(len, known))
        first = known[0]
        assert all(value.startswith(text.prefix) and value.endswith(text.suffix) for value in known)
        longer = first[: len(text.prefix) + 1]
        assert longer == text.prefix or not all(value.startswith(longer) for value in known)


def test_shapes_say_what_values_look_like():
    text = of(t=pa.array(["NY-2041", "CA-1999", "TX-0001", "é1"])).columns["t"].text
    assert text.shapes == [("AA-9999", 3), ("¤9", 1)] and text.runs == [("A-9", 3), ("¤9", 1)]
    assert (text.damaged, text.padded) == (0, 0)
    damaged = of(t=pa.array(["Ã©tÃ©", "itâ€™s", "\ufffd", "été", "it’s", " pad", "à la"])).columns["t"].text
    assert (damaged.damaged, damaged.padded) == (3, 1)


def test_every_type_has_a_profile_and_times_keep_theirs():
    moment = dt.datetime(2024, 2, 29, 23, 59, 1, tzinfo=dt.UTC)
    table = pa.table(
        {
            "flag": pa.array([True, None, False, True]),
            "day": pa.array([dt.date(2024, 1, 1), dt.date(2024, 1, 3), None, dt.date(2024, 1, 2)]),
            "at": pa.array([moment] * 3 + [None], pa.timestamp("ns", "UTC")),
            "money": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("-2.25"), decimal.Decimal("9.00")]),
            "tags": pa.array([["a"], [], None, ["b", "c"]]),
            "bytes": pa.array([b"", b"x", b"x", None]),
            "kind": pa.array(["x", "y", "x", None]).dictionary_encode(),
            "deep": pa.array([{"a": 1}, None, {"a": 2}, {"a": 3}]),
            "none": pa.nulls(4),
            "big": pa.array([2**62, 2**62 + 1, None, -1]),
        }
    )
    found = profile_batches(table.schema, [table]).columns
    assert [column.nulls for column in found.values()] == [1, 1, 1, 1, 1, 1, 1, 1, 4, 1]
    assert found["flag"].top == [(True, 2), (False, 1)] and found["kind"].top == [("x", 2), ("y", 1)]
    assert (found["day"].low, found["day"].value(found["day"].numbers.at(0.5))) == (
        dt.date(2024, 1, 1),
        dt.date(2024, 1, 2),
    )
    assert found["at"].high == moment == found["at"].value(found["at"].numbers.at(0.5))
    assert found["money"].low == decimal.Decimal("-2.25") and found["money"].numbers.mean == pytest.approx(2.75)
    assert (found["tags"].numbers.low, found["tags"].numbers.high, found["tags"].distinct) == (0, 2, None)
    assert found["bytes"].distinct == 2 and found["bytes"].numbers.high == 1
    assert found["deep"].numbers is None and found["none"].present == 0
    assert found["big"].high == 2**62 + 1, "whole numbers are not rounded"


def test_infinite_numbers_are_counted_apart():
    numbers = of(x=pa.array([1.0, math.inf, -math.inf, 3.0])).columns["x"].numbers
    assert (numbers.infinite, numbers.count, numbers.mean, numbers.high) == (2, 2, 2.0, 3.0)
    assert of(x=pa.array([math.inf])).columns["x"].numbers.count == 0


def test_cuts_don_t_matter_while_all_is_exact_and_merging_is_adding():
    rng = np.random.default_rng(0)
    table = pa.table(
        {"x": rng.normal(size=3000), "c": rng.choice(list("abcd"), 3000).tolist(), "n": rng.integers(0, 9, 3000)}
    )
    whole = profile_batches(table.schema, [table]).to_json_dict()
    for step in (37, 1000):
        cut = profile_batches(table.schema, [table.slice(i, step) for i in range(0, 3000, step)]).to_json_dict()
        assert json.loads(json.dumps(cut), parse_float=lambda f: round(float(f), 9)) == json.loads(
            json.dumps(whole), parse_float=lambda f: round(float(f), 9)
        )
    one, other = Profiler(table.schema), Profiler(table.schema)
    one.update(table.slice(0, 1234))
    other.update(table.slice(1234))
    one.merge(other)
    merged = one.finish().to_json_dict()
    assert json.loads(json.dumps(merged), parse_float=lambda f: round(float(f), 9)) == json.loads(
        json.dumps(whole), parse_float=lambda f: round(float(f), 9)
    )


@pytest.mark.parametrize("values", [20_000, 300_000])
def test_distinct_counts_stay_within_their_error(values):
    counts = Counts(pa.int64(), 4096)
    rng = np.random.default_rng(values)
    for _ in range(6):
        counts.update(pa.array(rng.permutation(values)))
    found, error = counts.distinct()
    assert error == pytest.approx(1.04 / 128) and abs(found - values) <= 4 * error * values


def test_frequent_values_are_found_and_no_count_is_off_by_more_than_said():
    rng = np.random.default_rng(1)
    one, other = Counts(pa.int64(), 500), Counts(pa.int64(), 500)
    truth: Counter[int] = Counter()
    for sketch in (one, other) * 10:
        values = np.concatenate([rng.integers(0, 100_000, 20_000), np.repeat([7, 8, 9], [900, 600, 300])])
        truth.update(values.tolist())
        sketch.update(pa.array(values))
    one.merge(other)
    assert not one.exact and one.error < 436_000 / 62
    top = dict(one.top(3))
    assert list(top) == [7, 8, 9]
    assert all(truth[value] - one.error <= count <= truth[value] for value, count in one.top(60))


@given(st.integers(8, 64), st.integers(0, 10_000), st.integers(1, 5))
def test_ranks_are_never_off_by_more_than_said(capacity, seed, parts):
    rng = np.random.default_rng(seed)
    sketches = [Quantiles(capacity) for _ in range(parts)]
    every = []
    for sketch in sketches:
        values = rng.normal(size=int(rng.integers(0, 2000)))
        every.append(values)
        sketch.update(values)
    for other in sketches[1:]:
        sketches[0].merge(other)
    whole = np.sort(np.concatenate(every))
    points = sketches[0].points()
    assert points[1].sum() == len(whole) == sketches[0].count
    for value in rng.normal(size=10):
        true = np.searchsorted(whole, value) / max(len(whole), 1)
        assert abs(share_below(points, value) - true) <= sketches[0].error + 1e-12


def test_a_bound_that_is_tight_enough_to_be_of_use():
    sketch = Quantiles(1 << 15)
    sketch.update(np.random.default_rng(2).permutation(2_000_000).astype(float))
    assert 0 < sketch.error < 1e-3 and quantile(sketch.points(), 0.5) == pytest.approx(
        1_000_000, abs=2_000_000 * sketch.error
    )


def test_very_wide_tables_take_little_each():
    table = pa.table({f"c{i}": np.arange(6000.0) for i in range(1000)})
    profiler = Profiler(table.schema)
    profiler.update(table)
    assert max(len(state.counts.values) for state in profiler._states.values()) <= 4194
    assert profiler.finish().columns["c999"].numbers.high == 5999


def test_orders_between_columns_are_noticed():
    table = pa.table({"start": [1, 2, 3, None], "end": [1, 5, 9, 2], "other": [9, 1, 5, 7], "text": list("abcd")})
    assert profile_batches(table.schema, [table.slice(0, 2), table.slice(2)]).orders == [("end", "start", 3)]


def test_columns_and_splits_can_be_chosen_and_an_empty_table_is_fine(tmp_path):
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    assert list(profile(frame, columns=["b"]).columns) == ["b"]
    with pytest.raises(ColumnError, match="Did you mean 'a'"):
        profile(frame, columns=["aa"])
    empty = of(x=pa.array([], pa.int64()), t=pa.array([], pa.string()))
    assert empty.rows == 0 and empty.columns["x"].numbers is None
    assert Profile.from_json_dict(json.loads(json.dumps(empty.to_json_dict()))).to_json_dict() == empty.to_json_dict()
    assert validate(
        pa.table({"x": pa.array([], pa.int64())}), suggest_for(pa.table({"x": pa.array([], pa.int64())}), empty, "e")
    ).success


def test_halves_are_profiled_as_floats():
    halves = np.array([0.5, -0.0, 0.0, math.nan, 2.0, 2.0], np.float16)
    table = pa.table({"x": pa.array(halves, mask=np.arange(6) == 5), "y": pa.array(halves, pa.float16())})
    found = profile(table).columns["x"]
    assert (found.type, found.nulls, found.nans, found.distinct) == ("halffloat", 1, 1, 3)
    assert (found.low, found.high, found.numbers.mean) == (0.0, 2.0, 0.625)
    assert validate(table, suggest_for(table, profile(table), "halves")).success


# --- the suggested suite -------------------------------------------------------------------------------------------------------------------


def orders() -> pd.DataFrame:
    """A shop's orders: what real tables have and the public ones here lack: times, prices, ordered pairs of columns."""
    rng = np.random.default_rng(11)
    n = 4000
    placed = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(np.sort(rng.integers(0, 365 * 86400, n)), unit="s")
    return pd.DataFrame(
        {
            "order_id": np.arange(100_000, 100_000 + n),
            "customer": [f"C{i:05d}" for i in rng.integers(0, 900, n)],
            "placed": placed,
            "shipped": placed + pd.to_timedelta(rng.integers(3600, 9 * 86400, n), unit="s"),
            "price": np.round(rng.lognormal(3, 0.6, n), 2),
            "weight": np.round(rng.normal(2.0, 0.4, n), 3),
            "country": rng.choice(["DE", "FR", "ES", "IT", "PT"], n, p=[0.4, 0.3, 0.15, 0.1, 0.05]),
            "city": rng.choice(["München", "Köln", "Paris", "Málaga", "Évora", "Roma"], n),
            "note": [
                " ".join(
                    rng.choice(["please", "leave", "at", "the", "door", "thank", "you", "größer"], rng.integers(3, 20))
                )
                for _ in range(n)
            ],
        }
    )


def reviews(folder: Path) -> pd.DataFrame:
    rows = [
        (path.stem, path.parent.name, path.read_text(encoding="latin-1")) for path in sorted(folder.glob("*/*.txt"))
    ]
    return pd.DataFrame(rows, columns=["name", "label", "text"])


def null_burst(frame, column):
    frame.loc[frame.index[: len(frame) // 5], column] = None


def unit_change(frame, column):
    frame[column] = frame[column] * 1000


def new_category(frame, column):
    frame.loc[frame.index[::50], column] = "something new"


def shifted_mean(frame, column):
    frame[column] = frame[column] + frame[column].std()


def swapped(frame, column):
    one, other = column.split("|")
    frame[[one, other]] = frame[[other, one]].to_numpy()


def truncated(frame, column):
    frame[column] = frame[column].str[: max(int(frame[column].str.len().median()) // 2, 1)]


def duplicated_keys(frame, column):
    frame.loc[frame.index[10:20], column] = frame[column].iloc[0]


def time_zone_shift(frame, column):
    frame[column] = frame[column] + pd.Timedelta(hours=2)


def encoding_damage(frame, column):
    frame[column] = frame[column].map(
        lambda text: text if text is None or pd.isna(text) else text.encode().decode("cp1252", "replace")
    )


def constant(frame, column):
    frame[column] = frame[column].mode().iloc[0]


FAULTS = {
    "orders": [
        (null_burst, "price"),
        (null_burst, "placed"),
        (unit_change, "weight"),
        (unit_change, "price"),
        (new_category, "country"),
        (shifted_mean, "price"),
        (shifted_mean, "weight"),
        (swapped, "price|weight"),
        (swapped, "placed|shipped"),
        (swapped, "country|customer"),
        (truncated, "note"),
        (truncated, "customer"),
        (duplicated_keys, "order_id"),
        (time_zone_shift, "placed"),
        (encoding_damage, "city"),
        (encoding_damage, "note"),
        (constant, "price"),
        (constant, "country"),
        (constant, "note"),
    ],
    "beers": [
        (null_burst, "city"),
        (unit_change, "abv"),
        (new_category, "state"),
        (new_category, "style"),
        (shifted_mean, "ibu"),
        (swapped, "city|beer-name"),
        (swapped, "abv|ounces"),
        (truncated, "beer-name"),
        (truncated, "brewery-name"),
        (duplicated_keys, "id"),
        (constant, "ibu"),
        (constant, "city"),
    ],
    "hospital": [
        (null_burst, "City"),
        (new_category, "HospitalType"),
        (new_category, "MeasureCode"),
        (swapped, "City|CountyName"),
        (swapped, "ZipCode|PhoneNumber"),
        (truncated, "HospitalName"),
        (truncated, "MeasureName"),
        (duplicated_keys, "index"),
        (constant, "Condition"),
        (constant, "PhoneNumber"),
    ],
    "reviews": [
        (null_burst, "text"),
        (new_category, "label"),
        (swapped, "text|label"),
        (truncated, "text"),
        (duplicated_keys, "name"),
        (constant, "label"),
        (constant, "text"),
    ],
}


@pytest.fixture(scope="module")
def bases(request: pytest.FixtureRequest) -> dict[str, tuple[pd.DataFrame, dict]]:
    """name -> (frame, the suite suggested by it)."""
    frames = {"orders": orders()}
    shared = (
        request.getfixturevalue("shared_data")
        if (Path(__file__).resolve().parents[3] / "shared" / "data").is_dir()
        else None
    )
    if shared is not None:
        for name in ("beers", "hospital"):
            frames[name] = pyarrow.csv.read_csv(shared / "tabular" / "raha" / name / "clean.csv").to_pandas()
        frames["reviews"] = reviews(shared / "text" / "movie_reviews")
    return {name: (frame, suggest_for(frame, profile(frame), name)) for name, frame in frames.items()}


@pytest.mark.parametrize("name", list(FAULTS))
def test_a_suggested_suite_holds_on_its_own_data_with_a_reason_for_each(bases, name):
    if name not in bases:
        pytest.skip("real data is absent: ../shared/data beside the checkout")
    frame, suite = bases[name]
    verdict = validate(frame, suite)
    assert verdict.success and verdict.failed == [] and len(verdict.results) >= 2 * len(frame.columns)
    assert suite["expectations"] == suggest(profile(frame), name)["expectations"], "nothing had to be taken back"
    assert all(entry["meta"]["reason"] == entry["notes"] and len(entry["notes"]) > 8 for entry in suite["expectations"])
    assert len({entry["id"] for entry in suite["expectations"]}) == len(suite["expectations"])


@pytest.mark.parametrize(
    ("name", "fault", "column"), [(name, fault, column) for name, faults in FAULTS.items() for fault, column in faults]
)
def test_a_planted_fault_breaks_it(bases, name, fault: Callable, column):
    if name not in bases:
        pytest.skip("real data is absent: ../shared/data beside the checkout")
    frame, suite = bases[name][0].copy(), bases[name][1]
    fault(frame, column)
    verdict = validate(frame, suite, result_format="BOOLEAN_ONLY")
    touched = set(column.split("|"))
    failed = [result for result in verdict.failed if result["expectation_config"]["severity"] == "critical"]
    assert failed and not verdict.success
    for result in failed:
        kwargs = result["expectation_config"]["kwargs"]
        assert touched & {kwargs.get(key) for key in ("column", "column_A", "column_B")}, (
            "what fails is about what was done"
        )


@pytest.mark.parametrize("name", list(FAULTS))
def test_other_rows_of_the_same_kind_pass_all_but_what_is_about_all_rows(bases, name):
    """A suite from half of the rows, on the other half: it is the kind of data that it describes, not the rows."""
    if name not in bases:
        pytest.skip("real data is absent: ../shared/data beside the checkout")
    frame = bases[name][0].sample(frac=1, random_state=0)
    half = frame.iloc[: len(frame) // 2]
    suite = suggest_for(half, profile(half), name)
    failed = validate(frame.iloc[len(frame) // 2 :], suite, result_format="BOOLEAN_ONLY").failed
    share = len(failed) / len(suite["expectations"])
    assert share <= 0.12, [
        (each["expectation_config"]["type"], each["expectation_config"]["kwargs"].get("column")) for each in failed
    ]


def test_great_expectations_reads_a_suggested_suite_and_agrees(bases):
    gx = pytest.importorskip("great_expectations")
    frame, suite = bases["orders"]
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("p").add_dataframe_asset("a").add_batch_definition_whole_dataframe("b")
    theirs = gx.ExpectationSuite(name="orders", expectations=[dict(entry) for entry in suite["expectations"]])
    result = asset.get_batch(batch_parameters={"dataframe": frame}).validate(theirs)
    assert result.success, [r.expectation_config.type for r in result.results if not r.success]


def test_sketches_that_err_cost_an_expectation_not_the_suite():
    """Over 2^15 different values the profile can't be sure that a column is unique; the data is asked."""
    n = 40_000
    values = [f"k{i}" for i in range(n)]
    unique = pa.table({"key": values})
    twice = pa.table({"key": [*values[:-1], values[0]]})
    for table, expected in ((unique, True), (twice, False)):
        suite = suggest_for(table, profile(table), "s")
        assert any(e["type"] == "expect_column_values_to_be_unique" for e in suite["expectations"]) is expected
        assert validate(table, suite).failed == []
