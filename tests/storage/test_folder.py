"""Folders: what is written appears whole or not at all, on disk and in S3."""

from __future__ import annotations

import builtins
import errno
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.errors import InputError, RunError
from gristmill.storage import folder as folder_module
from gristmill.storage.folder import SPOOLED, Folder, is_alive, is_temporary, open_folder

from .conftest import names


def test_what_is_written_is_read_at_once(folder: Folder) -> None:
    for content in (b"one", b"", b"three" * 1000):
        folder.write_atomic("a/b.bin", content)
        assert folder.read_bytes("a/b.bin") == content
        assert folder.size("a/b.bin") == len(content)
        with folder.open_input("a/b.bin") as source:
            source.seek(1)
            assert source.read() == content[1:]
    folder.delete("a/b.bin")
    assert not folder.exists("a/b.bin")
    folder.delete("a/b.bin")
    for use in (folder.read_bytes, folder.size, lambda path: folder.open_input(path).read()):
        with pytest.raises(FileNotFoundError):
            use("a/b.bin")


def test_list_is_sorted_and_keeps_to_its_folder(folder: Folder) -> None:
    assert folder.list() == [] == folder.list("a")
    for path in ("a/z", "ab/y", "a/c/x", "top"):
        folder.write_atomic(path, b"1234")
    assert [path for path, *_ in folder.list()] == ["a/c/x", "a/z", "ab/y", "top"]
    assert [(path, size) for path, size, _ in folder.list("a")] == [("a/c/x", 4), ("a/z", 4)]
    assert [path for path, *_ in folder.list("a", recursive=False)] == ["a/z"]
    assert [path for path, *_ in folder.list("", recursive=False)] == ["top"]
    assert all(abs(changed - os.path.getmtime(__file__)) < 1e10 and changed > 1.7e9 for *_, changed in folder.list())
    assert folder.sizes(["ab/y", "none", "top"]) == [4, None, 4] and folder.sizes([]) == []
    assert folder.exists("a") and not folder.exists("b")


def test_a_folder_pickles(folder: Folder) -> None:
    folder.write_atomic("x", b"1")
    again = pickle.loads(pickle.dumps(folder))
    assert again == folder and hash(again) == hash(folder) and again.read_bytes("x") == b"1"


def test_nested_options_work(s3_endpoint: str, s3_folder: Folder) -> None:
    nested = open_folder(s3_folder.base, {"client_kwargs": {"endpoint_url": s3_endpoint}})
    s3_folder.write_atomic("x", b"1")
    assert nested.read_bytes("x") == b"1"


def test_the_environment_names_the_endpoint(
    s3_endpoint: str, s3_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    s3_folder.write_atomic("x", b"1")
    assert open_folder(f"{s3_folder.base}/").read_bytes("x") == b"1"


def test_a_link_outlives_what_it_was_made_of(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write_atomic("old/a", b"one")
    folder.write_atomic("new/a", b"other")
    if not folder.remote:
        os.utime(folder.url("old/a"), (1e9, 1e9))
    folder.link("old/a", "new/a")
    assert all(changed > 1.7e9 for *_, changed in folder.list("new"))  # young, so that gc leaves it to who needs it
    folder.delete("old/a")
    assert names(folder) == ["new/a"] and folder.read_bytes("new/a") == b"one"
    with pytest.raises(FileNotFoundError):
        folder.link("old/a", "new/b")

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    folder.link("new/a", "copied/a")
    folder.write_atomic("new/a", b"two")
    assert folder.read_bytes("copied/a") == b"one" and names(folder) == ["copied/a", "new/a"]


def test_create_never_replaces(folder: Folder) -> None:
    folder.create("m/1", b"first")
    for content in (b"second", b"first", b""):
        with pytest.raises(FileExistsError):
            folder.create("m/1", content)
    assert folder.read_bytes("m/1") == b"first"
    assert names(folder) == ["m/1"]


def test_of_many_creators_one_wins(folder: Folder) -> None:
    for number in range(10):
        wins: list[bytes] = []
        start = threading.Barrier(8)

        def run(
            content: bytes, number: int = number, start: threading.Barrier = start, wins: list[bytes] = wins
        ) -> None:
            start.wait()
            try:
                folder.create(f"race/{number}", content)
                wins.append(content)
            except FileExistsError:
                pass

        threads = [threading.Thread(target=run, args=(bytes([i]) * 10_000,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(wins) == 1 and folder.read_bytes(f"race/{number}") == wins[0]
    assert len(names(folder)) == 10


def test_create_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(folder_module.os, "link", refused)
    folder = open_folder(tmp_path)
    folder.create("x", b"1")
    with pytest.raises(FileExistsError):
        folder.create("x", b"2")
    assert folder.read_bytes("x") == b"1" and names(folder) == ["x"]


def test_a_failed_writer_leaves_nothing(folder: Folder) -> None:
    folder.write_atomic("a/x", b"old")
    for error in (ValueError("mine"), KeyboardInterrupt(), FileExistsError("mine"), InputError("mine")):
        with pytest.raises(type(error)) as caught, folder.writer("a/x") as target:
            target.sink.write(b"new" * 10_000)
            raise error
        assert caught.value is error
        assert names(folder) == ["a/x"] and folder.read_bytes("a/x") == b"old"


def test_a_writer_appears_at_its_end_under_its_last_name(folder: Folder) -> None:
    with folder.writer("a/x") as target:
        target.sink.write(b"12")
        target.rename("b/y")
        assert [path for path in names(folder) if not is_temporary(path)] == []
    assert names(folder) == ["b/y"] and folder.read_bytes("b/y") == b"12"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = open_folder(tmp_path / "d")
    folder.write_atomic("x", b"old")
    usual = Path.open

    def full(self: Path, mode: str = "r", *rest: object) -> object:
        return builtins.open("/dev/full", "wb") if "x" in mode else usual(self, mode, *rest)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)
    for write in (folder.write_atomic, folder.create):
        with pytest.raises(RunError, match=r"no space left to write '.*d/[xy]'.*run the same command again"):
            write("x" if write == folder.write_atomic else "y", b"1" * 100_000)
    monkeypatch.undo()
    assert names(folder) == ["x"] and folder.read_bytes("x") == b"old"


def test_what_a_killed_writer_left_on_its_way_to_a_store_goes(
    s3_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys; from gristmill.storage.folder import open_folder\n"
            "with open_folder(sys.argv[1]).writer('a') as target:\n target.sink.write(b'row'); target.sink.flush(); os.kill(os.getpid(), 9)",
            s3_folder.base,
        ],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )
    left = [path.name for path in tmp_path.iterdir()]
    assert killed.returncode == -9 and len(left) == 1 and left[0].startswith(SPOOLED)
    with s3_folder.writer("b") as target:
        assert [path.name for path in tmp_path.iterdir()] == [Path(target.sink.name).name], "the living one's"
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = open_folder(tmp_path / "file")
    for write in (folder.write_atomic, folder.create):
        with pytest.raises(InputError, match="is a file; choose another folder"):
            write("manifests/x", b"1")


@pytest.fixture
def closed() -> Iterator[Path]:
    """A folder with a file in it that only root can use; outside pytest's own folder, which others can't enter."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "closed"
        folder.mkdir()
        (folder / "x").write_text("1")
        Path(place).chmod(0o755)
        folder.chmod(0)
        yield folder
        folder.chmod(0o755)


def test_missing_permission_is_told(closed: Path) -> None:
    program = f"""
import os
if os.getuid() == 0:
    from gristmill.storage import folder, remote, parquet   # imported while files can be read
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
from gristmill.errors import InputError
from gristmill.storage.folder import open_folder
from gristmill.storage.parquet import open_parquet
f = open_folder({str(closed)!r})
for use in (lambda: f.read_bytes("x"), lambda: f.list(), lambda: f.create("y", b""), lambda: f.write_atomic("y", b""), lambda: f.delete("x"), lambda: open_parquet(f, "x")):
    try:
        use()
    except InputError as error:
        assert "no permission to" in str(error) and "closed" in str(error), error
        print("told")
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert found.stdout.split() == ["told"] * 6, found.stderr


def test_a_missing_bucket_and_a_dead_server_are_told(s3_folder: Folder) -> None:
    nowhere = open_folder("s3://no-such-bucket-here/x", s3_folder.options)
    assert nowhere.list() == []
    with pytest.raises(OSError, match="bucket"):
        nowhere.write_atomic("a", b"1")
    options = {
        "endpoint_url": "http://127.0.0.1:9",
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1},
    }
    with pytest.raises(InputError, match=r"can't read 's3://bucket-x/a'.*Check the address"):
        open_folder("s3://bucket-x", options).read_bytes("a")


def test_other_schemes_come_through_fsspec() -> None:
    folder = open_folder("memory://some/where")
    folder.write_atomic("a/x", b"1")
    folder.write_atomic("a/x", b"2")
    with folder.writer("a/y") as target:
        target.sink.write(b"3")
    folder.create("a/z", b"4")
    with pytest.raises(FileExistsError):
        folder.create("a/z", b"5")
    assert [(path, folder.read_bytes(path)) for path in names(folder)] == [("a/x", b"2"), ("a/y", b"3"), ("a/z", b"4")]
    with pytest.raises(InputError, match="no file system for 'nosuch://'"):
        open_folder("nosuch://x").read_bytes("a")


def test_a_forked_child_reads_with_its_own_client(s3_folder: Folder) -> None:
    s3_folder.write_atomic("x", b"from S3")
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, s3_folder.read_bytes("x"))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as found:
        ready, _, _ = select.select([found], [], [], 30)
        if not ready:
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert found.read() == b"from S3"


def test_a_process_is_alive_until_it_ends() -> None:
    """Not until somebody asks how it ended: in a container often nobody does."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_alive(child.pid) and is_alive(os.getpid())
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(child.pid)
    child.wait()
    assert not is_alive(child.pid)
