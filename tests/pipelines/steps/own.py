"""Functions for the steps `python` and `pandas`."""

import pyarrow as pa
import pyarrow.compute as pc


def shout(table: pa.Table, mark: str = "!") -> pa.Table:
    """Upper case with a mark at its end; rows without text leave; a row of source b is made into a second one."""
    table = table.filter(pc.is_valid(table["text"]))
    text = pc.binary_join_element_wise(pc.utf8_upper(table["text"]), pa.scalar(mark), "")
    table = table.set_column(table.column_names.index("text"), "text", text)
    table = table.append_column("_parent_uid", pa.nulls(table.num_rows, table.schema.field("_uid").type))
    made = table.filter(pc.equal(table["_source"], "b"))
    uid = pc.binary_join_element_wise(made["_uid"], pa.scalar("made"), "-")
    return pa.concat_tables(
        [
            table,
            made.set_column(made.column_names.index("_parent_uid"), "_parent_uid", made["_uid"]).set_column(
                made.column_names.index("_uid"), "_uid", uid
            ),
        ]
    )


def halve(frame):
    """The even scores, halved."""
    frame = frame[frame["score"] % 2 == 0].copy()
    frame["score"] //= 2
    return frame
