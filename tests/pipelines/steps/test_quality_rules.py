"""`quality_rules`: each rule of the preset on both sides of its threshold, all failing rules recorded, the readings where ports of Gopher differ."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest

from gristmill.errors import PipelineError
from gristmill.pipelines.frames import check_step
from gristmill.pipelines.steps.presets import GOPHER

OFF = {rule.name: (-1.0 if rule.bound == "least" else 1e9) for rule in GOPHER}


def judged(*texts: str | None, **options: Any) -> list[dict[str, tuple[float | None, float | None]]]:
    """For each text the rules that it fails, with value and threshold; checks that it stays just if there is none."""
    table = pa.table({"_uid": [str(i) for i in range(len(texts))], "text": pa.array(texts, pa.string())})
    kept, found = check_step({"step": "quality_rules", "column": "text", "preset": "gopher", **options}).apply(table)
    rules: list[dict[str, Any]] = [{} for _ in texts]
    for entry in found.to_pylist():
        assert entry["action"] == "drop"
        rules[int(entry["uid"])][entry["rule"]] = (entry["value"], entry["threshold"])
    assert kept["_uid"].to_pylist() == [str(i) for i, failed in enumerate(rules) if not failed]
    return rules


def only(rule: str) -> dict[str, float]:
    """Thresholds with which just this rule can fail."""
    return {name: value for name, value in OFF.items() if name != rule}


def words(n: int, seed: int = 0) -> str:
    """So many different words of five letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        found["".join(rng.choice(letters) for _ in range(5))] = None
    return " ".join(found)


def lines(*texts: str) -> str:
    return "\n".join(texts)


LONG = [words(12, seed) for seed in range(1, 40)]  # different lines without a common word

# rule: (a text at the threshold, which stays; a text beyond it, which goes; its value)
EDGES = {
    "gopher_short_doc": (words(50), words(49), 49),
    "gopher_long_doc": ("a " * 100_000, "a " * 100_001, 100_001),
    "gopher_below_avg_threshold": ("abc abc", "abc ab", 2.5),
    "gopher_above_avg_threshold": ("abcdefghij " * 2, "abcdefghij abcdefghijk", 10.5),
    "gopher_too_many_hashes": (words(9) + " #", words(8) + " #", 1 / 9),
    "gopher_too_many_ellipsis": (words(9) + " …", words(8) + " ...", 1 / 9),
    "gopher_too_many_bullets": (lines(*["- item"] * 9, "item"), lines(*["• item"] * 10), 1.0),
    "gopher_too_many_end_ellipsis": (
        lines(*["and so on..."] * 3, *["no"] * 7),
        lines(*["and so on…"] * 4, *["no"] * 6),
        0.4,
    ),
    "gopher_below_alpha_threshold": ("a b c d 1", "a b c 1", 0.75),
    "gopher_few_stop_words": ("the mill and", "the mill", 1),
    "dup_line_frac": (lines(*["ok."] * 4, *LONG[:6]), lines(*["ok."] * 5, *LONG[:6]), 4 / 11),
    "dup_line_char_frac": (
        lines("a" * 20, *["b" * 20] * 2, "c" * 37),
        lines("a" * 20, *["b" * 20] * 2, "c" * 36),
        20 / 99,
    ),
    "dup_para_frac": ("\n\n".join([*["ok."] * 4, *LONG[:6]]), "\n\n".join([*["ok."] * 5, *LONG[:6]]), 4 / 11),
    "dup_para_char_frac": ("\n\n".join(["b" * 20] * 2 + ["c" * 56]), "\n\n".join(["b" * 20] * 2 + ["c" * 55]), 20 / 99),
    "top_2_gram": ("aa bb " + "c" * 5 + " aa bb " + "d" * 32, "aa bb " + "c" * 5 + " aa bb " + "d" * 31, 10 / 49),
    "top_3_gram": ("a b c " + "d" * 7 + " a b c " + "e" * 36, "a b c " + "d" * 7 + " a b c " + "e" * 35, 10 / 55),
    "top_4_gram": (
        "a b c d " + "e" * 7 + " a b c d " + "f" * 64,
        "a b c d " + "e" * 7 + " a b c d " + "f" * 62,
        14 / 86,
    ),
}
for _n, _bound in zip(range(5, 11), (0.15, 0.14, 0.13, 0.12, 0.11, 0.10), strict=True):
    _gram = " ".join(f"{chr(97 + i) * 2}" for i in range(_n))  # 2n letters, without spaces
    _fit = round(2 * _n / _bound)  # characters of the whole text at which the share is at most the bound
    _fit += 2 * _n / _fit > _bound
    _rest = _fit - 2 * len(_gram) - 3 - 6
    EDGES[f"duplicated_{_n}_n_grams"] = tuple(f"{_gram} yyyyyy {_gram} {'z' * rest}" for rest in (_rest, _rest - 1)) + (
        2 * _n / (_fit - 1),
    )


def test_every_rule_is_tried():
    assert set(EDGES) == set(OFF)


@pytest.mark.parametrize("rule", EDGES)
def test_a_rule_on_both_sides_of_its_threshold(rule):
    stays, goes, value = EDGES[rule]
    threshold = next(each.threshold for each in GOPHER if each.name == rule)
    assert judged(stays, goes, thresholds=only(rule)) == [{}, {rule: (pytest.approx(value), threshold)}]


def test_thresholds_are_those_of_the_paper():
    assert {rule.name: rule.threshold for rule in GOPHER if rule.name.startswith(("top", "duplicated"))} == {
        "top_2_gram": 0.20, "top_3_gram": 0.18, "top_4_gram": 0.16,
        "duplicated_5_n_grams": 0.15, "duplicated_6_n_grams": 0.14, "duplicated_7_n_grams": 0.13,
        "duplicated_8_n_grams": 0.12, "duplicated_9_n_grams": 0.11, "duplicated_10_n_grams": 0.10,
    }  # fmt: skip
    assert all("Rae et al. 2021" in rule.source for rule in GOPHER)


def test_every_failing_rule_of_a_document_is_recorded():
    (failed,) = judged("# # spam spam spam spam spam ...")
    assert {
        "gopher_short_doc",
        "gopher_too_many_hashes",
        "gopher_too_many_ellipsis",
        "gopher_below_alpha_threshold",
        "gopher_few_stop_words",
        "top_2_gram",
    } <= set(failed)
    assert failed["gopher_short_doc"] == (5.0, 50.0) and failed["gopher_few_stop_words"] == (0.0, 2.0)


@pytest.mark.parametrize(
    ("rule", "text", "dropped"),
    [
        ("dup_line_frac", lines(*["ok."] * 4, *LONG[:6]), False),  # second and later copies count: 3 of 10, not 4
        ("gopher_too_many_bullets", lines(*["* item"] * 10), False),
        ("gopher_too_many_bullets", lines(*["• item"] * 10), True),
        ("gopher_too_many_bullets", lines(*["   - item"] * 10), True),
        ("gopher_too_many_bullets", lines(*["- item"] * 10, "", "", ""), False),  # blank lines count: 10 of 12
        ("gopher_few_stop_words", "the mill and the wheel of the the", False),
        ("gopher_few_stop_words", "the mill the wheel the the", True),  # different words, not how often they come
        ("gopher_few_stop_words", "The mill And the wheel", True),  # in their case
        ("gopher_too_many_end_ellipsis", lines(*["and so on.. ."] * 10), False),
        ("gopher_too_many_end_ellipsis", lines(*["and so on...  "] * 10), True),
        ("top_2_gram", "a b c", True),  # the most frequent one counts even if it comes once
    ],
)
def test_readings_where_ports_differ(rule, text, dropped):
    assert [rule in failed for failed in judged(text, thresholds=only(rule))] == [dropped]


def test_null_and_empty_text():
    nothing, empty, blank = judged(None, "", "   ")
    assert nothing == {"null_text": (None, None)}
    assert "gopher_short_doc" in empty and "null_text" not in empty
    assert empty.keys() == blank.keys()
    assert judged(None, None) == [{"null_text": (None, None)}] * 2
    assert judged("", thresholds=OFF) == [{}], "nothing to measure is 0 everywhere, not an error"


def test_thresholds_can_be_changed_one_by_one():
    text = words(49) + " the and"
    assert judged(text) == [{}]
    assert judged(text, thresholds={"gopher_short_doc": 60}) == [{"gopher_short_doc": (51.0, 60.0)}]
    with pytest.raises(
        PipelineError, match="preset 'gopher' has no rule 'gopher_short'. Did you mean 'gopher_short_doc'"
    ):
        judged(text, thresholds={"gopher_short": 60})


def test_signals_can_be_kept():
    table = pa.table({"_uid": ["a", "b"], "text": [words(60) + " the and of", None]})
    kept, _ = check_step({"step": "quality_rules", "column": "text", "preset": "gopher", "keep_signals": True}).apply(
        table
    )
    row = kept.to_pylist()[0]
    assert (
        row["_signal_words"] == 63.0
        and row["_signal_stop_words"] == 3.0
        and row["_signal_mean_word_length"] == pytest.approx((60 * 5 + 8) / 63)
    )
