"""Suspected wrong labels: rows whose given class is unlikely by out-of-sample probabilities, by confident learning (Northcutt et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import ColumnError, DataCheckError, UsageError, capped
from gristmill.validators.inputs import Data

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
SLACK = 1e-6  # as in the reference implementation, so that rounding hides no confident row
FOUND = pa.schema(
    [
        ("row", pa.int64()),
        ("uid", pa.string()),
        ("given", pa.string()),
        ("suggested", pa.string()),
        ("given_probability", pa.float64()),
        ("suggested_probability", pa.float64()),
    ]
)


@dataclass(frozen=True)
class LabelIssues:
    """suspects: FOUND, the least likely label first. rows: labelled rows looked at. thresholds: the mean probability of each class among the
    rows that bear it, from which a row counts as confidently of that class; None for a class that no row bears.
    """

    suspects: pa.Table
    rows: int
    classes: list[str]
    thresholds: list[float | None]


def suspected_labels(
    data: Data, probabilities: str, label: str = "label", classes: Sequence[str] | None = None
) -> LabelIssues:
    """The rows that are probably labelled wrong. Two passes; 12 bytes a row in memory.

    probabilities: a column of lists, one number a class, by a model that was not trained on the row. label: class numbers, or names of
    `classes` in the order of the probabilities (their sorted order if they aren't given). Rows without a label or probabilities are left out.

    As many rows are suspects as are confidently of another class (the most likely class is not the given one and reaches its threshold); they
    are those with the lowest probability of the given class.

    Raises:
        ColumnError: no such column, or one of another type.
        DataCheckError: probabilities of different lengths or that are no numbers, or a label that is none of the classes.
    """
    for name in (probabilities, label):
        data.check_column(name, data.name)
    names = _classes(data, label, classes)
    sums, counts = np.zeros(0), np.zeros(0, np.int64)
    for _, given, shares in _batches(data, probabilities, label, names):
        if not len(sums):
            sums, counts = np.zeros(shares.shape[1]), np.zeros(shares.shape[1], np.int64)
        if shares.shape[1] != len(sums):
            raise DataCheckError(
                f"{data.name}: column '{probabilities}' has lists of {len(sums)} and of {shares.shape[1]} numbers"
            )
        sums += np.bincount(given, shares[np.arange(len(given)), given], len(sums))
        counts += np.bincount(given, minlength=len(sums))
    thresholds = np.divide(sums, counts, out=np.full(len(sums), np.inf), where=counts > 0)
    scores, rows, confident = [np.zeros(0)], [np.zeros(0, np.int64)], 0
    for numbers, given, shares in _batches(data, probabilities, label, names):
        best = shares.argmax(axis=1)
        confident += int(((best != given) & (shares[np.arange(len(best)), best] >= thresholds[best] - SLACK)).sum())
        scores.append(shares[np.arange(len(given)), given])
        rows.append(numbers)
    score, number = np.concatenate(scores), np.concatenate(rows)
    order = np.argsort(score, kind="stable")[:confident]
    known = names if names is not None else [str(i) for i in range(len(sums))]
    table = _described(data, number[order], probabilities, label, names, known)
    return LabelIssues(table, int(counts.sum()), known, [float(t) if np.isfinite(t) else None for t in thresholds])


def _classes(data: Data, label: str, classes: Sequence[str] | None) -> list[str] | None:
    """The names of the classes; None where labels are their numbers."""
    kind = data.schema.field(label).type
    if pa.types.is_integer(kind):
        return None if classes is None else list(classes)
    if classes is not None:
        return list(classes)
    found: set[Any] = set()
    for batch in data.batches([label]):
        found.update(pc.unique(batch.table[label]).to_pylist())
        if len(found) > 100_000:
            raise UsageError(f"{data.name}: column '{label}' has over 100,000 values; is it a label?")
    return sorted(str(value) for value in found if value is not None)


def _batches(data: Data, probabilities: str, label: str, names: list[str] | None) -> Iterator[tuple[I64, I64, F64]]:
    """(row numbers, class numbers, (rows, classes) probabilities) of the rows that have both."""
    for batch in data.batches(list(dict.fromkeys([probabilities, label]))):
        numbers, given, shares = _read(batch.table, probabilities, label, names, data.name)
        if len(numbers):
            yield numbers + batch.first, given, shares


def _read(table: pa.Table, probabilities: str, label: str, names: list[str] | None, where: str) -> tuple[I64, I64, F64]:
    lists, labels = table[probabilities].combine_chunks(), table[label].combine_chunks()
    kind = lists.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise ColumnError(
            f"{where}: column '{probabilities}' is {kind}, expected lists of numbers", column=probabilities
        )
    there = pc.and_(pc.is_valid(lists), pc.is_valid(labels)).to_numpy(zero_copy_only=False)
    lists, labels = lists.filter(pa.array(there)), labels.filter(pa.array(there))
    sizes = np.unique(pc.list_value_length(lists).to_numpy())
    if len(sizes) > 1:
        raise DataCheckError(f"{where}: column '{probabilities}' has lists of {capped(sizes)} numbers")
    if len(sizes) and names is not None and len(names) < sizes[0]:
        raise DataCheckError(
            f"{where}: column '{probabilities}' has {sizes[0]} classes, but only {len(names)} have names ({capped(names)}); name all with `classes`"
        )
    shares = np.asarray(lists.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)).reshape(len(lists), -1)
    if not np.isfinite(shares).all():
        raise DataCheckError(f"{where}: column '{probabilities}' has null, NaN or infinite numbers")
    by_number = pa.types.is_integer(labels.type)
    given = (
        labels.cast(pa.int64())
        if by_number
        else pc.index_in(labels.cast(pa.string()), value_set=pa.array(names, pa.string())).cast(pa.int64())
    )
    wrong = pc.fill_null(pc.or_(pc.less(given, 0), pc.greater_equal(given, shares.shape[1])), True)
    if pc.any(wrong).as_py():
        value = labels.filter(wrong)[0].as_py()
        expected = f"0 to {shares.shape[1] - 1}" if by_number else f"one of {capped(names or [])}"
        raise DataCheckError(
            f"{where}: column '{label}' has {value!r}, expected {expected}: '{probabilities}' has {shares.shape[1]} classes"
        )
    return np.flatnonzero(there), given.to_numpy(), shares


def _described(
    data: Data,
    rows: I64,
    probabilities: str,
    label: str,
    names: list[str] | None,
    known: Sequence[str],
) -> pa.Table:
    """FOUND for rows in this order."""
    if not len(rows):
        return FOUND.empty_table()
    columns = [probabilities, label, *(["_uid"] if "_uid" in data.columns else [])]
    ascending = np.argsort(rows)
    table = data.take(rows[ascending], columns).table
    _, given, shares = _read(table, probabilities, label, names, data.name)
    best = shares.argmax(axis=1)
    at = np.arange(len(best))
    uids = table["_uid"].cast(pa.string()) if "_uid" in data.columns else pa.nulls(len(best), pa.string())
    found = pa.table(
        [
            pa.array(rows[ascending]),
            uids,
            pa.array([known[i] for i in given]),
            pa.array([known[i] for i in best]),
            pa.array(shares[at, given]),
            pa.array(shares[at, best]),
        ],
        schema=FOUND,
    )
    back = np.empty_like(ascending)
    back[ascending] = np.arange(len(ascending))
    return found.take(pa.array(back))
