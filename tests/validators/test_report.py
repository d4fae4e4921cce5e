"""The report: one page that needs nothing else, the verdict first, small however many expectations there are."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.storage.folder import open_folder
from gristmill.validators.charts import column_chart, line, short
from gristmill.validators.gate import judge_data, short_failures
from gristmill.validators.profile import profile_batches
from gristmill.validators.report import render
from gristmill.validators.words import describe

from .helpers import one
from .versions import publish_version

VOID = {"meta", "br", "link", "img", "input", "hr", "rect", "path", "circle", "polyline", "line"}
OPTIONAL = {"li", "html", "body"}


class Page(HTMLParser):
    """What a page holds; fails where its tags don't match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)
        assert self.open == [], self.open

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID | OPTIONAL:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        if tag not in VOID | OPTIONAL:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def table(seed: int = 0, rows: int = 500) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "_uid": [f"u{i}" for i in range(rows)],
            "age": rng.integers(18, 90, rows),
            "city": rng.choice(["Paris", "Roma", "Köln"], rows).tolist(),
            "at": pa.array(rng.integers(0, 10**9, rows), pa.timestamp("s")),
            "tags": [[1] * int(n) for n in rng.integers(0, 4, rows)],
        }
    )


AGE = {
    "type": "expect_column_values_to_be_between",
    "kwargs": {"column": "age", "max_value": 88},
    "notes": "people are <b>younger</b>",
}
CITY = {
    "type": "expect_column_values_to_be_in_set",
    "kwargs": {"column": "city", "value_set": ["Paris", "Roma"]},
    "severity": "warning",
}
ROWS = {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 3}}


def page_of(data, expectations) -> tuple[str, Page]:
    text = render(judge_data(data, expectations).facts)
    return text, Page(text)


def test_the_verdict_comes_first_then_what_fails_with_examples_and_their_place():
    rows = table()
    text, page = page_of(rows, [ROWS, CITY, AGE])
    assert page.text.startswith("failed: expectations on table Failed 1 critical expectation fails, 1 others")
    assert (
        page.text.index("age is at most 88")
        < page.text.index("city is one of Paris, Roma")
        < page.text.index("What holds")
        < page.text.index("the number of rows is at least 3")
    )
    row = next(i for i, age in enumerate(rows["age"].to_pylist()) if age == 89)
    assert f"row{'s' if rows['age'].to_pylist().count(89) > 1 else ''} {row}" in page.text and " of table" in page.text
    assert "Köln" in page.text and "people are <b>younger</b>" in page.text, "notes are text"
    good, page = page_of(rows, [ROWS])
    assert (
        page.text.startswith("passed: expectations on table Passed All 1 expectations hold")
        and "What fails" not in page.text
    )


def test_a_page_needs_nothing_from_anywhere():
    text, page = page_of(table(), [AGE, CITY])
    assert "<script" not in text and "http" not in text and "url(" not in text and "@import" not in text
    assert not [found for found in page.attributes if found[1] in ("src", "href", "onclick", "onload")]


def test_places_name_the_shard_and_the_row_in_it(tmp_path):
    folder = open_folder(tmp_path / "data")
    rows = table(rows=300)
    ages = rows["age"].to_pylist()
    ages[250] = 200
    dataset = publish_version(folder, rows.set_column(1, "age", pa.array(ages)), shard_bytes=4000)
    assert len(dataset.files()) > 2
    before, at = 0, None
    for entry in dataset.files():
        if before <= 250 < before + entry.rows:
            at = (250 - before, entry.path)
        before += entry.rows
    _, page = page_of(dataset, [{"type": AGE["type"], "kwargs": {"column": "age", "max_value": 100}}])
    name = at[1].rpartition("/")[2]
    assert f"200 row {at[0]} of data/all/{name[:12]}" in page.text.replace("\u2026", "")


def test_errors_are_shown_as_failures():
    _, page = page_of(table(), [{"type": AGE["type"], "kwargs": {"column": "agee", "max_value": 88}}])
    assert "Could not be evaluated" in page.text and "Did you mean 'age'" in page.text


def test_estimates_and_answers_from_footers_say_that_they_are(tmp_path):
    rng = np.random.default_rng(1)
    pq.write_table(pa.table({"n": np.arange(90_000), "x": rng.normal(size=90_000)}), tmp_path / "a.parquet")
    suite = [
        one("column_unique_value_count_to_be_between", column="n", max_value=10),
        one("column_median_to_be_between", column="x", min_value=-1, max_value=1),
        one("column_max_to_be_between", column="n", max_value=10),
        one("column_mean_to_be_between", column="x", max_value=1),
    ]
    judged = judge_data(tmp_path / "a.parquet", suite, approximate=True)
    text = Page(render(judged.facts)).text
    count, median, most, mean = judged.verdict.results
    assert "2 are estimates" in text
    assert "an estimate (HyperLogLog): standard error 0.81 %" in text
    share = median["approximate"]["rank_error"]
    assert f"an estimate (halved sorted buffers): no rank is off by more than {100 * share:.2g} % of the rows" in text
    assert text.count("an estimate (") == 2 and text.count("from file footers: no row was read") == 1
    assert most["evaluated"] == "footer" and mean["evaluated"] == "one pass"
    assert any("an estimate (HyperLogLog)" in line for line in short_failures([count]))
    columns = judged.facts.profile.columns
    assert f"about {columns['n'].distinct:,} different" in text
    assert f"about {sum(columns['x'].numbers.outliers):,} outliers" in text
    exact = Page(render(judge_data(tmp_path / "a.parquet", suite).facts)).text
    assert "an estimate (" not in exact and "are estimates" not in exact and "from file footers" in exact


def test_drift_and_trends_against_the_versions_before(tmp_path):
    folder = open_folder(tmp_path / "data")
    for seed in range(4):
        judge_data(publish_version(folder, table(seed)), [ROWS])  # which keeps its profile
    moved = table(9)
    dataset = publish_version(folder, moved.set_column(1, "age", pa.array(np.asarray(moved["age"]) + 40)))
    text, page = page_of(dataset, [ROWS])
    assert f"Against {dataset.path}@4" in page.text and "Over 5 versions" in page.text
    table_of_drift = page.text[page.text.index("Against") : page.text.index("columns as before")]
    assert "age value" in table_of_drift and "city" not in table_of_drift
    assert "age.mean" in page.text[page.text.index("Over 5 versions") :] and "usual:" in page.text
    assert 'class="old"' in text, "the version before is in the pictures"


def test_a_page_stays_small_with_hundreds_of_expectations_and_columns():
    wide = pa.table({f"c{i:03d}": np.random.default_rng(i).normal(size=400) for i in range(300)})
    expectations = [
        {"type": AGE["type"], "kwargs": {"column": name, "min_value": -9, "max_value": 0.5}}
        for name in wide.column_names
    ]
    expectations += [
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": name}} for name in wide.column_names
    ]
    text, page = page_of(wide, expectations)
    assert len(text) < 600_000
    assert "200 more that fail" in page.text and "300 expectations" in page.text and "240 more columns" in page.text
    assert all(f"c{i:03d}" in page.text for i in range(300))


def test_texts_can_t_break_the_page():
    evil = "</td><script>alert('x')</script>\"&'"
    rows = pa.table({evil: [evil, evil, "fine"] * 10})
    text, page = page_of(
        rows,
        {
            "name": evil,
            "expectations": [
                {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": evil, "value_set": ["fine"]}}
            ],
        },
    )
    assert "<script" not in text and evil in page.text


@pytest.mark.parametrize(
    "values",
    [
        [],
        [None, None],
        [1.0],
        [5, 5, 5],
        [0.0, 1e300],
        [float("inf"), 1.0],
        ["a"],
        [""],
        ["x" * 5000, "y"],
        [True, None],
        [[1, 2], []],
        [b"a"],
    ],
    ids=str,
)
def test_every_column_has_a_picture_or_none(values):
    rows = pa.table({"x": pa.array(values)})
    column = profile_batches(rows.schema, [rows]).columns["x"]
    chart = column_chart(column, column)
    Page(chart)
    assert "nan" not in chart and "inf" not in chart.replace("information", "")
    known = [value for value in values if value is not None and value != float("inf")]
    assert bool(chart) == bool(known)


def test_bars_of_a_histogram_are_the_shares():
    rows = pa.table({"x": [1] * 30 + [2] * 10 + [3] * 60})
    chart = column_chart(profile_batches(rows.schema, [rows]).columns["x"])
    heights = [float(found) for found in re.findall(r'height="([\d.]+)" class="now"', chart)]
    assert heights == pytest.approx([42.0, 14.0, 84.0])


def test_lines_and_numbers_for_people():
    assert line([1.0]) == "" and line([None, 2.0]) == "" and line([1.0, None, 3.0]).count(",") == 2
    assert [short(value) for value in (1234567, 0.000123456, 12.5, 1e9, "text", True)] == [
        "1,234,567",
        "0.0001235",
        "12.5",
        "1,000,000,000",
        "text",
        "True",
    ]


def test_expectations_in_words():
    assert (
        describe(AGE["type"], {"column": "age", "min_value": 0, "max_value": 120, "mostly": 0.95})
        == "age is between 0 and 120, in at least 95 % of the rows"
    )
    assert describe(AGE["type"], {"column": "x", "min_value": 0.5, "strict_min": True}) == "x is more than 0.5"
    assert (
        describe(CITY["type"], {"column": "c", "value_set": list(range(9))})
        == "c is one of 0, 1, 2, 3, 4, 5 and 3 more"
    )
    assert describe("expect_something_new", {"column": "x", "limit": 3}) == "x: something new (limit 3)"
