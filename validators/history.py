"""A dataset's versions over time: the profile of each kept beside its verdicts, their metrics in a table, and what is unusual about the newest."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from gristmill.errors import CorruptDatasetError, UsageError, did_you_mean
from gristmill.storage.dataset import Dataset, tainted_path
from gristmill.storage.versions import read_manifest, version_numbers
from gristmill.validators.profile import ColumnProfile, Profile, profile

SMALL = 0.01  # a relative change that is never called unusual
COLUMN_METRICS = (
    "missing_rate",
    "distinct",
    "mean",
    "std",
    "min",
    "q05",
    "median",
    "q95",
    "max",
    "outlier_rate",
    "mean_length",
    "empty_rate",
)

Method = Literal["z_score", "relative_change"]


def profile_path(fingerprint: str) -> str:
    """Where the profile of a content is kept: beside its verdicts."""
    return f"verdicts/{fingerprint}/profile-1.json.gz"


def kept_profile(dataset: Dataset) -> Profile:
    """The version's profile: the one kept, else made in one pass and kept. Distributions are condensed to 257 points (`Profile`)."""
    path = profile_path(dataset.fingerprint)
    try:
        return _read(dataset, path)
    except FileNotFoundError:
        found = profile(dataset)
    return keep_profile(dataset, found)


def known_profile(dataset: Dataset) -> Profile | None:
    """The version's profile if one is kept; nothing is read for it otherwise."""
    path = profile_path(dataset.fingerprint)
    return _read(dataset, path) if dataset.folder.exists(path) else None


def keep_profile(dataset: Dataset, found: Profile) -> Profile:
    """Keeps the profile of the version's content beside its verdicts, unless there is one; gives it as it will be read."""
    path = profile_path(dataset.fingerprint)
    content = gzip.compress(json.dumps(found.to_json_dict()).encode(), mtime=0)
    try:
        dataset.folder.create(path, content)
    except FileExistsError:
        return _read(dataset, path)
    return Profile.from_json_dict(json.loads(gzip.decompress(content)))


def _read(dataset: Dataset, path: str) -> Profile:
    content = dataset.folder.read_bytes(path)
    try:
        return Profile.from_json_dict(json.loads(gzip.decompress(content)))
    except (ValueError, KeyError, TypeError, OSError, EOFError) as error:
        text = f"'{dataset.folder.url(path)}' is not a readable profile: {error}; remove it, it will be made again"
        raise CorruptDatasetError(text, file=path) from error


def versions_before(dataset: Dataset, count: int | None = None) -> list[Dataset]:
    """The last `count` published versions before this one (all for None), oldest first; those with erased rows are left out."""
    limit = dataset.version or (dataset.manifest.parent or 0) + 1
    numbers = [number for number in version_numbers(dataset.folder) if number < limit]
    numbers = [number for number in numbers if not dataset.folder.exists(tainted_path(number))]
    chosen = numbers if count is None else numbers[max(len(numbers) - count, 0) :]
    return [Dataset(dataset.folder, read_manifest(dataset.folder, number)) for number in chosen]


def metrics(found: Profile) -> dict[str, float]:
    """The numbers that are followed over versions: row_count, and COLUMN.METRIC for each of COLUMN_METRICS that the column has."""
    values: dict[str, float] = {"row_count": float(found.rows)}
    for column in found.columns.values():
        if not column.name.startswith("_"):
            values |= {f"{column.name}.{name}": value for name, value in _column_metrics(column).items()}
    return values


def _column_metrics(column: ColumnProfile) -> dict[str, float]:
    values: dict[str, float] = {}
    if column.rows:
        values["missing_rate"] = (column.nulls + column.nans) / column.rows
    if column.distinct is not None:
        values["distinct"] = float(column.distinct)
    numbers = column.numbers
    if numbers is not None and numbers.count and numbers.mean is not None:
        if column.kind in ("text", "list", "binary"):
            values["mean_length"] = numbers.mean
        else:
            quantiles = {name: numbers.at(share) for name, share in (("q05", 0.05), ("median", 0.5), ("q95", 0.95))}
            ends = {"min": numbers.low, "max": numbers.high}
            values |= {
                "mean": numbers.mean,
                "std": numbers.std or 0.0,
                **quantiles,
                **{k: v for k, v in ends.items() if v is not None},
            }
            values["outlier_rate"] = sum(numbers.outliers) / numbers.count
    if column.text is not None and column.present:
        values["empty_rate"] = column.text.empty / column.present
    return values


def trend(dataset: Dataset, versions: int = 10, names: Sequence[str] | None = None, *, known: bool = False) -> pa.Table:
    """metric, then a column for each of the last versions up to this one (v3, v4, ...), oldest first; null where a version lacks the metric.

    Profiles that aren't kept yet are made and kept: one pass over each such version. known: those versions are left out instead.

    Raises:
        UsageError: none of the versions has a metric of that name.
    """
    every = [*versions_before(dataset, versions - 1), dataset]
    profiles = [known_profile(each) if known and each is not dataset else kept_profile(each) for each in every]
    every = [each for each, profile in zip(every, profiles, strict=True) if profile is not None]
    found = [metrics(profile) for profile in profiles if profile is not None]
    there = list(dict.fromkeys(name for values in reversed(found) for name in values))
    for name in names or ():
        if name not in there:
            raise UsageError(f"{dataset.name} has no metric '{name}'.{did_you_mean(name, there)}")
    chosen = there if names is None else list(names)
    columns = {
        f"v{each.version}" if each.version else "candidate": [values.get(name) for name in chosen]
        for each, values in zip(every, found, strict=True)
    }
    return pa.table(
        {
            "metric": pa.array(chosen, pa.string()),
            **{name: pa.array(values, pa.float64()) for name, values in columns.items()},
        }
    )


@dataclass(frozen=True)
class Unusual:
    """How far a metric is from its history. score: robust z-score or relative change; usual: the values that would pass."""

    value: float
    history: list[float]
    method: Method
    score: float
    usual: tuple[float, float]
    unusual: bool


def compare_with_history(
    value: float, history: Sequence[float], method: Method = "z_score", threshold: float | None = None
) -> Unusual:
    """Whether a value is unusual among those before it.

    z_score: 0.6745 |x - median| / MAD (Iglewicz and Hoaglin 1993), unusual over 3.5; where over half of the values are the same, so that MAD
    is 0, the mean absolute deviation takes its place (x 1 / 1.2533). relative_change: |x - median| / |median|, unusual over 0.25. A change of
    under 1 % of the median is never unusual.
    """
    known = np.asarray(history, np.float64)
    middle = float(np.median(known))
    least = SMALL * abs(middle)
    if method == "z_score":
        limit = 3.5 if threshold is None else threshold
        deviation = float(np.median(np.abs(known - middle))) / 0.6745 or float(np.abs(known - middle).mean()) * 1.2533
        room = limit * deviation
        score = abs(value - middle) / deviation if deviation else (0.0 if value == middle else math.inf)
    else:
        limit = 0.25 if threshold is None else threshold
        room = limit * abs(middle)
        score = abs(value - middle) / abs(middle) if middle else (0.0 if value == middle else math.inf)
    room = max(room, least)
    return Unusual(
        value,
        [float(each) for each in known],
        method,
        score,
        (middle - room, middle + room),
        abs(value - middle) > room,
    )


def unusual_metrics(
    dataset: Dataset, versions: int = 10, method: Method = "z_score", least: int = 3, *, known: bool = False
) -> dict[str, Unusual]:
    """The metrics of this version that are unusual among the last `versions` before it; none with fewer than `least` of them.

    known: as for `trend`.
    """
    profiles = [known_profile(each) if known else kept_profile(each) for each in versions_before(dataset, versions)]
    before = [metrics(profile) for profile in profiles if profile is not None]
    found = {}
    for name, value in metrics(kept_profile(dataset)).items():
        history = [values[name] for values in before if name in values]
        if len(history) >= least and (judged := compare_with_history(value, history, method)).unusual:
            found[name] = judged
    return found


def explain_unusual(name: str, found: Unusual) -> dict[str, Any]:
    """The facts of a metric for a result."""
    return {
        "metric": name,
        "history": found.history,
        "method": found.method,
        "score": found.score if math.isfinite(found.score) else None,
        "usual": list(found.usual),
    }
