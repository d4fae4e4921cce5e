"""A step of one's own: an Arrow table in, an Arrow table out."""

import pyarrow as pa
import pyarrow.compute as pc


def without_headers(table: pa.Table) -> pa.Table:
    """The table with the header lines of METADATA files taken off their text; what follows the first blank line is the README."""
    readme = pc.equal(table["_source"], "readmes")
    body = pc.replace_substring_regex(table["text"], r"(?s)\A.*?\r?\n\r?\n(.*)\z", r"\1")
    text = pc.if_else(readme, body, table["text"])
    return table.set_column(table.column_names.index("text"), "text", text)
