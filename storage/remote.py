"""Files behind a URL, through fsspec: one uncached client for each process, and the operations that stores do differently."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from typing import Any

from gristmill.errors import InputError, MissingDependencyError

S3 = ("s3", "s3a")
ATOMIC_PUT = (
    *S3,
    "gs",
    "gcs",
    "az",
    "abfs",
    "abfss",
)  # an upload there is visible when it is whole; elsewhere it needs a rename
CONFLICT_TRIES = 5

_clients: dict[tuple[str, str, str, int], Any] = {}


def client(protocol: str, options: Mapping[str, Any]) -> Any:
    """The file system, one for each process (after a fork the parent's event loop would hang) and environment. It caches no listings."""
    key = (protocol, repr(sorted(options.items())), settings_of(protocol), os.getpid())
    if key not in _clients:
        import fsspec

        try:
            _clients[key] = fsspec.filesystem(
                protocol, **{"use_listings_cache": False, "skip_instance_cache": True, **options}
            )
        except ImportError as error:
            hint = "gristmill[s3]" if protocol in S3 else f"the fsspec package for {protocol}"
            raise MissingDependencyError(
                f"{protocol}:// needs a package that isn't installed: pip install '{hint}' ({error})"
            ) from error
        except ValueError as error:
            raise InputError(f"no file system for '{protocol}://': {error}") from error
    return _clients[key]


def settings_of(protocol: str) -> str:
    """The environment variables that a client of S3 reads when it is made; another client is needed when they change."""
    return repr(sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))) if protocol in S3 else ""


def upload(store: Any, local: str, url: str, temporary: str) -> None:
    """Makes or replaces the file at the URL with a local one, all at once."""
    if _protocol(url) in ATOMIC_PUT:
        store.put_file(local, url)
        return
    try:
        store.put_file(local, temporary)
        store.mv(temporary, url)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            store.rm_file(temporary)
        raise


def put(store: Any, url: str, content: bytes, temporary: str) -> None:
    """Makes or replaces the file at the URL, all at once."""
    if _protocol(url) in ATOMIC_PUT:
        store.pipe_file(url, content)
        return
    store.makedirs(url.rpartition("/")[0], exist_ok=True)
    store.pipe_file(temporary, content)
    store.mv(temporary, url)


def create(store: Any, url: str, content: bytes) -> None:
    """Makes the file, or fails if there is one. On S3 of several at once exactly one succeeds; elsewhere as fsspec's file system does it.

    Raises:
        FileExistsError: the file exists.
    """
    if _protocol(url) not in S3:
        store.makedirs(url.rpartition("/")[0], exist_ok=True)
        store.pipe_file(url, content, mode="create")
        return
    bucket, _, key = store._strip_protocol(url).partition("/")  # noqa: SLF001  fsspec's own way to split a URL
    for attempt in range(CONFLICT_TRIES):
        try:
            store.call_s3("put_object", Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
        except OSError as error:
            code = _s3_code(error)
            if isinstance(error, FileExistsError) or code in ("PreconditionFailed", "412"):
                raise FileExistsError(errno.EEXIST, "exists", url) from error
            if (
                code != "ConditionalRequestConflict" or attempt == CONFLICT_TRIES - 1
            ):  # S3: a delete was under way, ask again
                raise
        else:
            return


def list_files(store: Any, place: str, base: str, *, recursive: bool) -> list[tuple[str, int, float]]:
    """(path relative to `base`, bytes, seconds since 1970) of the files under the URL `place`, sorted; none if there are none."""
    try:
        if recursive:
            found = list(store.find(place, detail=True).values())
        else:
            found = [info for info in store.ls(place, detail=True) if info["type"] == "file"]
    except FileNotFoundError:
        return []
    root = store._strip_protocol(base).rstrip("/") + "/"  # noqa: SLF001
    return sorted((info["name"].removeprefix(root), int(info["size"]), _changed(info)) for info in found)


def is_connection_error(error: BaseException) -> bool:
    """Whether a client of the store gave up for lack of credentials or an answer; such errors have no common class but their package.
    An answer that says the store can't is an OSError of s3fs with theirs as its cause.
    """
    packages = {type(each).__module__.split(".")[0] for each in (error, error.__cause__)}
    return not packages.isdisjoint({"botocore", "aiobotocore", "aiohttp"})


def _changed(info: Mapping[str, Any]) -> float:
    """When the file last changed; stores name and type it differently."""
    when = next(
        (info[name] for name in ("LastModified", "mtime", "updated", "last_modified", "created") if info.get(name)), 0.0
    )
    return float(when.timestamp() if hasattr(when, "timestamp") else when)


def _s3_code(error: BaseException) -> str:
    """The code in S3's answer: s3fs keeps it in the cause."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _protocol(url: str) -> str:
    return url.split("://", maxsplit=1)[0]
