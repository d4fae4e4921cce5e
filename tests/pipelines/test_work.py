"""The store of finished work: whole or not there, found again by content, shared by runs, swept of what killed processes left."""

from __future__ import annotations

import errno
import multiprocessing
import os
import socket
from pathlib import Path

import pytest

from gristmill.errors import RunError
from gristmill.pipelines import work
from gristmill.pipelines.steps.filter import Filter
from gristmill.pipelines.work import WorkStore, key_of, once
from gristmill.storage.folder import temporary_name


def test_keys_differ_when_any_part_does():
    parts = [
        ("a",),
        ("b",),
        ("a", "b"),
        (["a", "b"],),
        (1,),
        ("1",),
        (None,),
        (b"a",),
        (Filter(where="a > 1"),),
        (Filter(where="a > 2"),),
        (True,),
        (("a", 1),),
    ]
    assert len({key_of(*part) for part in parts}) == len(parts)
    assert key_of({"x": 1, "y": 2}) == key_of({"y": 2, "x": 1}) and len(key_of()) == 32
    with pytest.raises(TypeError, match="no key can be made of set"):
        key_of({1, 2})


def test_a_steps_version_is_part_of_the_key(monkeypatch):
    before = key_of(Filter(where="a > 1"))
    monkeypatch.setattr(Filter, "VERSION", Filter.VERSION + 1)
    assert key_of(Filter(where="a > 1")) != before


def test_work_is_there_whole_or_not_at_all(tmp_path):
    store = WorkStore(str(tmp_path))
    with store.create("aa11") as (folder, summary):
        (folder / "content").write_text("x")
        summary["rows"] = 3
        assert store.done("aa11") is None and not store.folder("aa11").exists()
    assert store.done("aa11") == {"rows": 3} and (store.folder("aa11") / "content").read_text() == "x"
    with pytest.raises(ZeroDivisionError), store.create("bb22") as (folder, summary):
        (folder / "content").write_text("x")
        raise ZeroDivisionError
    assert store.done("bb22") is None and [path for path in tmp_path.rglob("*") if ".tmp-" in path.name] == []


def test_of_two_that_do_the_same_one_stays(tmp_path):
    store = WorkStore(str(tmp_path))
    with store.create("aa11") as (first, _), store.create("aa11") as (second, summary):
        assert first != second
        summary["rows"] = 1
    assert store.done("aa11") == {"rows": 1} and len(list((tmp_path / "items" / "aa").iterdir())) == 1


def test_finished_work_is_not_done_again():
    class Task:
        class store:
            @staticmethod
            def done(key):
                return {"rows": 0} if key == "old" else None

    done = Task()
    done.key = "old"
    fresh = Task()
    fresh.key = "new"
    assert once(lambda _: {"rows": 9}, done) == {"rows": 0} and once(lambda _: {"rows": 9}, fresh) == {"rows": 9}


def test_prune_and_forget(tmp_path):
    store = WorkStore(str(tmp_path))
    for key in ("aa11", "aa22", "bb33"):
        with store.create(key):
            pass
    assert store.prune({"aa22"}) == 2 and store.done("aa22") is not None and store.done("aa11") is None
    store.forget("aa22")
    store.forget("never")
    assert store.done("aa22") is None


def test_sweep_takes_what_the_dead_left_and_spares_the_living(tmp_path):
    store = WorkStore(str(tmp_path))
    dead = multiprocessing.get_context("spawn").Process(target=int)
    dead.start()
    dead.join()
    items = tmp_path / "items" / "aa"
    for host, pid in ((socket.gethostname(), dead.pid), (socket.gethostname(), os.getpid()), ("elsewhere", dead.pid)):
        (items / f".tmp-{host}-{pid}-x_y1").mkdir(parents=True)
    (tmp_path / f".tmp-{socket.gethostname()}-{dead.pid}-a1").write_text("{")
    (tmp_path / f".tmp-elsewhere-{dead.pid}-a1").write_text("{")  # on a disk that machines share a number is not all
    store.sweep()
    assert sorted(path.name.split("-")[1] for path in items.iterdir()) == sorted(
        [socket.gethostname().split("-")[0], "elsewhere"]
    )
    assert [path.name for path in tmp_path.glob(".tmp-*")] == [f".tmp-elsewhere-{dead.pid}-a1"]


def test_stored_frames_of_old_runs_go(tmp_path):
    frames = tmp_path / "frames"
    for name in ("a.arrow", "b.arrow", "c.arrow"):
        frames.mkdir(exist_ok=True)
        (frames / name).write_text("x")
    for name in ("old-1", "used-2"):
        (frames / name).mkdir()
        (frames / name / "part-000000.parquet").write_text("x")
    mine = temporary_name(f"{frames}/mine")
    Path(mine).write_text("x")
    for name in ("a.arrow", "b.arrow", "old-1", "used-2"):
        os.utime(frames / name, (0, 0))
    store = WorkStore(str(tmp_path))
    store.prune_frames([str(frames / "b.arrow"), str(frames / "used-2" / "part-000000.parquet"), "/elsewhere/in.jsonl"])
    store.sweep()
    assert sorted(path.name for path in frames.iterdir()) == [
        Path(mine).name,
        "b.arrow",
        "c.arrow",
        "used-2",
    ]


def _hold(root: str, ready, leave) -> None:
    with WorkStore(root).held():
        ready.set()
        leave.wait(60)


def test_only_a_run_that_is_alone_removes_finished_work(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(tmp_path), ready, leave))
    other.start()
    assert ready.wait(60)
    store = WorkStore(str(tmp_path))
    with store.held() as lock:
        assert not lock.alone()
    other.kill()  # -9: the lock goes with the process
    other.join()
    with store.held() as lock:
        assert lock.alone()
        lock.share()


def test_full_disk_is_said(tmp_path):
    store = WorkStore(str(tmp_path))
    for code in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(RunError, match="no space left for work files in .*--scratch"), store.create("aa11"):
            raise OSError(code, "No space left on device")
    with pytest.raises(OSError, match="Input/output"), store.create("aa11"):
        raise OSError(errno.EIO, "Input/output error")


def test_notes_are_whole(tmp_path):
    store = WorkStore(str(tmp_path))
    store.note("last_run.json", {"files": ["a"]})
    store.note("last_run.json", {"files": ["b"]})
    assert (tmp_path / "last_run.json").read_text() == '{"files": ["b"]}' and len(list(Path(tmp_path).iterdir())) == 1


@pytest.mark.parametrize("remove", [lambda store: store.prune(set()), lambda store: store.forget("aa11")])
def test_work_whose_removal_is_cut_short_counts_as_gone(tmp_path, monkeypatch, remove):
    store = WorkStore(str(tmp_path))
    with store.create("aa11") as (folder, _):
        (folder / "rows-000.arrow").write_text("x")

    def killed(folder: Path, **_: object) -> None:
        next(folder.glob("rows-*")).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(work.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove(store)
    monkeypatch.undo()
    assert store.done("aa11") is None
    with store.create("aa11"):
        pass
    assert store.done("aa11") == {}
