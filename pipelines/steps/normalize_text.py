"""`normalize_text`: one Unicode form, one kind of line break, no control characters."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.kernels.buffers import slices, text_array
from gristmill.kernels.normalize import NON_ASCII, NOT_NFC, TO_CLEAN, clean, scan
from gristmill.pipelines import decisions
from gristmill.pipelines.steps.base import RowStep, text_column

U8 = npt.NDArray[np.uint8]


class NormalizeText(RowStep):
    """Text in the Unicode normal form `form`, every line break a line feed, and no control characters but tab and line feed.

    Line breaks: CR LF, CR, U+0085, U+2028, U+2029. Taken out: C0, DEL, C1, U+FEFF. A row that changes has one `edit` decision for each of the
    rules `line_breaks`, `control_characters` (value: how many) and `nfc` or `nfkc` that changed it. Null text passes. The order is: line
    breaks and control characters, then the normal form.
    """

    step: Literal["normalize_text"] = "normalize_text"
    column: str
    form: Literal["NFC", "NFKC", "none"] = "NFC"

    def needs(self) -> list[str]:
        return [self.column]

    def apply(self, table: pa.Table) -> tuple[pa.Table, pa.Table]:
        column = text_column(table, self.column, self.step)
        rows = slices(column)
        flags = scan(rows)
        if not flags.any():
            return table, decisions.none()
        uids = table["_uid"]
        found = []
        array: pa.Array | pa.ChunkedArray = column
        if (flags & TO_CLEAN).any():
            cleaned = clean(rows, flags)
            for rule, counts in (("line_breaks", cleaned.newlines), ("control_characters", cleaned.controls)):
                changed = counts > 0
                if changed.any():
                    found.append(decisions.decide(uids.filter(pa.array(changed)), "edit", rule, value=counts[changed]))
            if found:
                array = text_array(cleaned.data, cleaned.offsets, rows.valid, column.type)
        if self.form != "none":
            array, changed = compose_rows(array, flags, self.form)
            if changed.any():
                found.append(decisions.decide(uids.filter(pa.array(changed)), "edit", self.form.lower()))
        if not found:
            return table, decisions.none()
        return table.set_column(
            table.column_names.index(self.column), table.schema.field(self.column), array
        ), pa.concat_tables(found)


def compose(column: pa.ChunkedArray | pa.Array, form: str = "NFC") -> pa.ChunkedArray | pa.Array:
    """The text in a Unicode normal form; only rows that may not be in it are looked at, and without such rows the column comes back as it is."""
    return compose_rows(column, scan(slices(column)), form)[0]


def compose_rows(
    column: pa.ChunkedArray | pa.Array, flags: U8, form: str
) -> tuple[pa.ChunkedArray | pa.Array, npt.NDArray[np.bool_]]:
    """(the text in the form, which rows changed)."""
    changed = np.zeros(len(column), bool)
    wide = np.flatnonzero(flags & (NOT_NFC if form == "NFC" else NON_ASCII))
    if not len(wide):
        return column, changed
    some = column.take(pa.array(wide))
    composed = pc.utf8_normalize(some, form=form)
    differs = (
        pc.not_equal(some, composed).to_numpy(zero_copy_only=False)
        if isinstance(some, pa.Array)
        else pc.not_equal(some, composed).to_numpy()
    )
    changed[wide] = np.asarray(differs, bool)
    if not changed.any():
        return column, changed
    replacement = composed.filter(pa.array(changed[wide]))
    replacement = replacement.combine_chunks() if isinstance(replacement, pa.ChunkedArray) else replacement
    whole = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    return pc.replace_with_mask(whole, pa.array(changed), replacement), changed
