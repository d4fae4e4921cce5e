"""Arrow types by their text, as pipeline files write them: int64, string, timestamp[us], list<int32>, fixed_size_list<float, 4>."""

from __future__ import annotations

import functools
import re

import pyarrow as pa

from gristmill.errors import UsageError, did_you_mean

_PLAIN = {
    **{name: name for name in ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "string", "binary")},
    **{name: name for name in ("large_string", "large_binary", "date32", "date64", "null")},
    "halffloat": "float16", "float16": "float16", "float": "float32", "float32": "float32", "double": "float64", "float64": "float64",
}  # fmt: skip
_UNIT = re.compile(r"^(timestamp|duration|time32|time64)\[(s|ms|us|ns)(?:,\s*(?:tz=)?([\w/+:-]+))?\]$")
_DECIMAL = re.compile(r"^decimal(?:128)?[(\[](\d+),\s*(\d+)[)\]]$")
_LIST = re.compile(r"^(list|large_list)<(.+)>$")
_FIXED = re.compile(r"^fixed_size_list<(.+),\s*(\d+)>$")


@functools.lru_cache(maxsize=1024)
def parse_type(text: str) -> pa.DataType:
    """The Arrow type that the text names.

    Raises:
        UsageError: no such type, with the nearest valid name.
    """
    text = text.strip()
    if text in _PLAIN:
        return pa.type_for_alias(_PLAIN[text])
    if match := _UNIT.match(text):
        kind, unit, zone = match.groups()
        if (kind == "time32") == (unit in ("us", "ns")) and kind.startswith("time") and kind != "timestamp":
            raise UsageError(f"no type '{text}': time32 takes s or ms, time64 takes us or ns")
        return pa.timestamp(unit, tz=zone) if kind == "timestamp" else getattr(pa, kind)(unit)
    if match := _DECIMAL.match(text):
        return pa.decimal128(int(match[1]), int(match[2]))
    if match := _LIST.match(text):
        return (pa.list_ if match[1] == "list" else pa.large_list)(parse_type(match[2]))
    if match := _FIXED.match(text):
        return pa.list_(parse_type(match[1]), int(match[2]))
    raise UsageError(
        f"no type '{text}'.{did_you_mean(text, [*_PLAIN, 'timestamp[us]', 'list<int32>', 'decimal(10, 2)'])}"
    )
