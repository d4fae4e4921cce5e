"""Named sets of quality rules: each rule a signal, a bound and where it comes from. Names are versioned by the step's VERSION."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Rule(NamedTuple):
    """A row fails where its signal is beyond the threshold. least: the signal must be at least that; most: at most that."""

    name: str
    signal: str
    bound: Literal["least", "most"]
    threshold: float
    source: str


_QUALITY = "Rae et al. 2021, Scaling Language Models (Gopher), appendix A.1.1"
_REPETITION = "Rae et al. 2021, Scaling Language Models (Gopher), table A1"

GOPHER: tuple[Rule, ...] = (
    Rule("gopher_short_doc", "words", "least", 50, _QUALITY),
    Rule("gopher_long_doc", "words", "most", 100_000, _QUALITY),
    Rule("gopher_below_avg_threshold", "mean_word_length", "least", 3, _QUALITY),
    Rule("gopher_above_avg_threshold", "mean_word_length", "most", 10, _QUALITY),
    Rule("gopher_too_many_hashes", "hash_ratio", "most", 0.1, _QUALITY),
    Rule("gopher_too_many_ellipsis", "ellipsis_ratio", "most", 0.1, _QUALITY),
    Rule("gopher_too_many_bullets", "bullet_lines", "most", 0.9, _QUALITY),
    Rule("gopher_too_many_end_ellipsis", "ellipsis_lines", "most", 0.3, _QUALITY),
    Rule("gopher_below_alpha_threshold", "alpha_words", "least", 0.8, _QUALITY),
    Rule("gopher_few_stop_words", "stop_words", "least", 2, _QUALITY),
    Rule("dup_line_frac", "duplicate_lines", "most", 0.30, _REPETITION),
    Rule("dup_line_char_frac", "duplicate_line_chars", "most", 0.20, _REPETITION),
    Rule("dup_para_frac", "duplicate_paragraphs", "most", 0.30, _REPETITION),
    Rule("dup_para_char_frac", "duplicate_paragraph_chars", "most", 0.20, _REPETITION),
    Rule("top_2_gram", "top_2_gram", "most", 0.20, _REPETITION),
    Rule("top_3_gram", "top_3_gram", "most", 0.18, _REPETITION),
    Rule("top_4_gram", "top_4_gram", "most", 0.16, _REPETITION),
    Rule("duplicated_5_n_grams", "duplicate_5_grams", "most", 0.15, _REPETITION),
    Rule("duplicated_6_n_grams", "duplicate_6_grams", "most", 0.14, _REPETITION),
    Rule("duplicated_7_n_grams", "duplicate_7_grams", "most", 0.13, _REPETITION),
    Rule("duplicated_8_n_grams", "duplicate_8_grams", "most", 0.12, _REPETITION),
    Rule("duplicated_9_n_grams", "duplicate_9_grams", "most", 0.11, _REPETITION),
    Rule("duplicated_10_n_grams", "duplicate_10_grams", "most", 0.10, _REPETITION),
)
"""Gopher's quality and repetition rules, with the names and the readings of datatrove's port where the paper leaves a choice: blank lines
count, a stop word counts once and in its case, repeats are the second and later copies. Tokens are those of `gristmill.kernels.signals`."""

PRESETS: dict[str, tuple[Rule, ...]] = {"gopher": GOPHER}
