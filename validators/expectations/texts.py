"""Expectations about text: lengths, regexes, LIKE patterns, dates, JSON."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from gristmill.validators.columns import Column, Mask
from gristmill.validators.expectations.base import Between, ColumnMapExpectation, Need, Setting, each
from gristmill.validators.patterns import as_text, like, search

ONLY_TEXT = "Values passed to {} must be of type string.\nIf you want to validate a column of dates or timestamps, please call the expectation before converting from string format."


class LengthsBetween(Between, ColumnMapExpectation):
    """Every value has so many characters; other values than text are counted as `str(value)`."""

    type: ClassVar[str] = "expect_column_value_lengths_to_be_between"

    def needs(self, setting: Setting) -> dict[str, Need]:
        self.check_bounds()
        return super().needs(setting)

    def unexpected(self, column: Column) -> Mask | None:
        counts = lengths(column)
        wrong = np.zeros(column.rows, bool)
        if self.min_value is not None:
            wrong |= counts <= self.min_value if self.strict_min else counts < self.min_value
        if self.max_value is not None:
            wrong |= counts >= self.max_value if self.strict_max else counts > self.max_value
        return wrong


class LengthsEqual(ColumnMapExpectation):
    """Every value has `value` characters."""

    type: ClassVar[str] = "expect_column_value_lengths_to_equal"
    value: float

    def unexpected(self, column: Column) -> Mask | None:
        return np.asarray(lengths(column) != self.value)


def lengths(column: Column) -> Any:
    """(rows,) int: characters of the text of each value; anything where null."""
    if column.kind == "int":
        return Column(column.name, column.array.cast(pa.string())).lengths
    return as_text(column).lengths


class MatchRegex(ColumnMapExpectation):
    """The regex is found in every value, as `re.search` finds it."""

    type: ClassVar[str] = "expect_column_values_to_match_regex"
    regex: str = "(?s).*"

    def unexpected(self, column: Column) -> Mask | None:
        return ~search(self.regex, column)


class NotMatchRegex(ColumnMapExpectation):
    """The regex is found in no value."""

    type: ClassVar[str] = "expect_column_values_to_not_match_regex"
    regex: str = "a^"

    def unexpected(self, column: Column) -> Mask | None:
        return search(self.regex, column)


class MatchRegexList(ColumnMapExpectation):
    """Any, or all, of the regexes are found in every value."""

    type: ClassVar[str] = "expect_column_values_to_match_regex_list"
    regex_list: list[str] = Field(min_length=1)
    match_on: Literal["any", "all"] = "any"

    def unexpected(self, column: Column) -> Mask | None:
        return ~_joined(self.regex_list, self.match_on, column)


class NotMatchRegexList(ColumnMapExpectation):
    """None of the regexes is found in any value."""

    type: ClassVar[str] = "expect_column_values_to_not_match_regex_list"
    regex_list: list[str] = Field(min_length=1)

    def unexpected(self, column: Column) -> Mask | None:
        return _joined(self.regex_list, "any", column)


def _joined(patterns: list[str], match_on: str, column: Column) -> Mask:
    texts = as_text(column)
    join = np.logical_or if match_on == "any" else np.logical_and
    return np.asarray(join.reduce([search(pattern, texts) for pattern in patterns]))


class _Like(ColumnMapExpectation):
    escape: str | None = None

    @field_validator("escape")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        if value is not None and len(value) != 1:
            raise ValueError("escape must be a single character.")
        return value


class MatchLike(_Like):
    """Every value matches a SQL LIKE pattern: % is any text, _ any one character. Great Expectations has it for databases only."""

    type: ClassVar[str] = "expect_column_values_to_match_like_pattern"
    like_pattern: str

    def unexpected(self, column: Column) -> Mask | None:
        return ~search(like(self.like_pattern, self.escape), column)


class NotMatchLike(_Like):
    """No value matches the LIKE pattern."""

    type: ClassVar[str] = "expect_column_values_to_not_match_like_pattern"
    like_pattern: str

    def unexpected(self, column: Column) -> Mask | None:
        return search(like(self.like_pattern, self.escape), column)


class MatchLikeList(_Like):
    """Any, or all, of the LIKE patterns match every value."""

    type: ClassVar[str] = "expect_column_values_to_match_like_pattern_list"
    like_pattern_list: list[str] = Field(min_length=1)
    match_on: Literal["any", "all"] = "any"

    def unexpected(self, column: Column) -> Mask | None:
        return ~_joined([like(pattern, self.escape) for pattern in self.like_pattern_list], self.match_on, column)


class NotMatchLikeList(_Like):
    """None of the LIKE patterns matches any value."""

    type: ClassVar[str] = "expect_column_values_to_not_match_like_pattern_list"
    like_pattern_list: list[str] = Field(min_length=1)

    def unexpected(self, column: Column) -> Mask | None:
        return _joined([like(pattern, self.escape) for pattern in self.like_pattern_list], "any", column)


class _Parseable(ColumnMapExpectation):
    def parse(self, value: str) -> object:
        """What the text says; ValueError or OverflowError where it can't be read."""
        raise NotImplementedError(type(self).__name__)

    def unexpected(self, column: Column) -> Mask | None:
        def parses(value: Any) -> bool:
            if not isinstance(value, str):
                raise TypeError(ONLY_TEXT.format(self.type))
            try:
                self.parse(value)
            except (ValueError, OverflowError):
                return False
            return True

        return by_distinct(column, parses)


class MatchStrftime(_Parseable):
    """Every value is a date in a format of `strptime`."""

    type: ClassVar[str] = "expect_column_values_to_match_strftime_format"
    strftime_format: str

    @field_validator("strftime_format")
    @classmethod
    def _reads_back(cls, value: str) -> str:
        try:
            written = datetime.datetime.now(tz=datetime.UTC).strftime(value)
            datetime.datetime.strptime(written, value)  # noqa: DTZ007  only whether it reads
        except ValueError as error:
            raise ValueError(f"Unable to use provided strftime_format. {error}") from error
        return value

    def parse(self, value: str) -> object:
        return datetime.datetime.strptime(value, self.strftime_format)  # noqa: DTZ007  only whether it parses


class DateutilParseable(_Parseable):
    """dateutil can read every value as a date or time."""

    type: ClassVar[str] = "expect_column_values_to_be_dateutil_parseable"

    def parse(self, value: str) -> object:
        from dateutil import parser

        return parser.parse(value)


class JsonParseable(ColumnMapExpectation):
    """Every value is JSON."""

    type: ClassVar[str] = "expect_column_values_to_be_json_parseable"

    def unexpected(self, column: Column) -> Mask | None:
        def parses(value: Any) -> bool:
            try:
                json.loads(value)
            except (ValueError, TypeError, RecursionError):
                return False
            return True

        return by_distinct(column, parses)


class MatchJsonSchema(ColumnMapExpectation):
    """Every value is JSON that a JSON Schema allows; a value that is no JSON is an error, as in Great Expectations."""

    type: ClassVar[str] = "expect_column_values_to_match_json_schema"
    json_schema: dict[str, Any]

    def unexpected(self, column: Column) -> Mask | None:
        import jsonschema

        kind = jsonschema.validators.validator_for(self.json_schema)
        kind.check_schema(self.json_schema)
        validator = kind(self.json_schema)
        return by_distinct(column, lambda value: validator.is_valid(json.loads(value)))


def by_distinct(column: Column, expected: Callable[[Any], bool]) -> Mask:
    """(rows,) bool: True where `expected` is false; each distinct text of the batch is asked once."""
    if column.kind != "text":
        return each(column, expected)
    codes = column.array if pa.types.is_dictionary(column.array.type) else column.array.dictionary_encode()
    wrong = np.array([value is not None and not expected(value) for value in codes.dictionary.to_pylist()], bool)
    at = pc.fill_null(codes.indices, len(wrong)).to_numpy(zero_copy_only=False)
    return np.append(wrong, False)[at]


TEXTS = (
    LengthsBetween,
    LengthsEqual,
    MatchRegex,
    NotMatchRegex,
    MatchRegexList,
    NotMatchRegexList,
    MatchLike,
    NotMatchLike,
    MatchLikeList,
    NotMatchLikeList,
    MatchStrftime,
    DateutilParseable,
    JsonParseable,
    MatchJsonSchema,
)
