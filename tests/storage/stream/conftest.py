"""Small Parquet folders, with and without uids."""

import pytest

from tests.storage.stream.helpers import write_rows

pytest.importorskip("torch")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """1003 rows in 4 files, one of them empty, in 103 row groups of 1 to 10 rows."""
    base = tmp_path_factory.mktemp("rows")
    start = 0
    for name, count in (("a", 500), ("b", 0), ("c", 402), ("d", 101)):
        write_rows(base / f"{name}.parquet", range(start, start + count))
        start += count
    return base
