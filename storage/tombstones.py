"""Tombstones: marks of rows that were erased, by keyed hashes of their uids, which every later run honours."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.storage.folder import Folder
from gristmill.storage.parquet import table_from_bytes, table_to_bytes

KEY = "erased/key"
MARKS = "erased/tombstones"
MARK_BYTES = 16
ERASED = "erased:"  # before a mark that stands for a uid in a ledger
COPY = r"~[0-9]+$"  # what repeats of a row without an id of its own have behind the hash of their content


@dataclass(frozen=True)
class Tombstones:
    """The marks of a dataset; picklable, read once a process. digest: "" where nothing was ever erased, else it names the set of marks."""

    folder: Folder
    digest: str

    def __bool__(self) -> bool:
        return bool(self.digest)

    def find(self, uids: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
        """(which of the uids are erased; the names that stand for all of them in a ledger). Hashes each uid in Python: only where rows were erased."""
        names = pa.array(mark_names(_key(self.folder), uids.to_pylist()), pa.large_string())
        return pc.is_in(names, value_set=_names(self.folder, self.digest)), names

    def since(self, uid: str) -> tuple[float | None, str]:
        """(when the uid was marked, by the time of the file that holds its mark, in seconds since 1970, or None; its name in a ledger)."""
        name = mark_names(_key(self.folder), [uid])[0]
        times = [
            changed
            for path, _, changed in self.folder.list(MARKS)
            if name in table_from_bytes(self.folder.read_bytes(path))["mark"].to_pylist()
        ]
        return min(times, default=None), name


def read_tombstones(folder: Folder) -> Tombstones:
    """The dataset's tombstones as they are now."""
    found = [path for path, *_ in folder.list(MARKS)]
    return Tombstones(folder, hashlib.sha256("\n".join(found).encode()).hexdigest()[:32] if found else "")


def write_tombstones(folder: Folder, uids: Iterable[str]) -> Tombstones:
    """Marks the uids as erased, for good; the ones of a dataset without ids without their copy numbers."""
    if not folder.exists(KEY):
        with contextlib.suppress(FileExistsError):  # another erasure made it: its key is the key
            folder.create(KEY, secrets.token_bytes(32))
    names = sorted(mark_names(_key(folder), uids))
    content = table_to_bytes(pa.table({"mark": pa.array(names, pa.large_string())}))
    folder.write_atomic(f"{MARKS}/{hashlib.sha256(content).hexdigest()[:32]}.parquet", content)
    return read_tombstones(folder)


def base_uids(uids: pa.Array | pa.ChunkedArray, *, by_id: bool) -> pa.Array | pa.ChunkedArray:
    """The uids without copy numbers, where they are hashes of content."""
    return uids if by_id else pc.replace_substring_regex(uids, COPY, "")


def mark_names(key: bytes, uids: Iterable[str]) -> list[str]:
    """`erased:` and BLAKE2b of each uid under the dataset's key, as 32 hex digits."""
    return [
        ERASED + hashlib.blake2b(uid.encode(errors="surrogatepass"), key=key, digest_size=MARK_BYTES).hexdigest()
        for uid in uids
    ]


@functools.lru_cache(maxsize=16)
def _key(folder: Folder) -> bytes:
    return folder.read_bytes(KEY)


@functools.lru_cache(maxsize=4)
def _names(folder: Folder, digest: str) -> pa.Array:  # noqa: ARG001  keeps what was read of an older set apart
    tables = [table_from_bytes(folder.read_bytes(path)) for path, *_ in folder.list(MARKS)]
    return pa.concat_tables(tables)["mark"].combine_chunks()
