"""Trace from a state file alone, and the commands around streaming."""

import json
import sys
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

import gristmill.storage.stream as gs
from gristmill.cli.main import main
from gristmill.errors import DataChangedError, StateError, UsageError
from gristmill.storage.folder import Folder, open_folder
from gristmill.storage.parquet import ParquetSettings, ShardWriter
from gristmill.storage.stream.batching import Batching
from gristmill.storage.stream.layout import Layout
from gristmill.storage.stream.lookup import open_run
from gristmill.storage.stream.order import fit_shuffle
from gristmill.storage.stream.sources import make_order
from gristmill.storage.stream.state import State
from gristmill.storage.stream.trace import finder, places_at, resolve_skip, steps_of
from gristmill.storage.versions import newest_version, publish
from tests.storage.stream.helpers import ids_of

OPTIONS = {"global_batch_size": 48, "seed": 5, "shuffle_bytes": 16_000, "threads": 0, "epochs": 2}


def run(capsys, *words):
    """(exit status, stdout, stderr) of the command line."""
    sys.argv = ["gristmill", *map(str, words)]
    status = 0
    try:
        main()
    except SystemExit as stop:
        status = stop.code or 0
    return status, *capsys.readouterr()


@pytest.fixture
def saved(folder, tmp_path):
    """(a state file after 9 of the steps, the ids of every step)."""
    steps = [ids_of(batch) for batch in gs.stream(folder, **OPTIONS)]
    loader = gs.stream(folder, **OPTIONS)
    iterator = iter(loader)
    for _ in range(9):
        next(iterator)
    path = tmp_path / "state.json"
    path.write_text(json.dumps(loader.state_dict()))
    return path, steps


def test_the_rows_of_any_step_from_the_state_file_alone(folder, saved, capsys):
    path, steps = saved
    for step in (0, 8, 9, 21, len(steps) - 1):
        status, out, err = run(capsys, "trace", folder, "--state", path, "--step", step, "--json")
        found = json.loads(out)
        assert (status, err) == (0, "")
        assert [row["uid"] for row in found["rows"]] == [f"u{i}" for i in steps[step]]
        assert found["step"] == step and found["done"] == (step < 9)
        assert all(row["file"].endswith(".parquet") and row["row"] < 10 for row in found["rows"])
    text = run(capsys, "trace", folder, "--state", path, "--step", 3)[1].splitlines()
    assert len(text) == 48 and text[0].startswith(f"u{steps[3][0]}  {folder}")


def test_the_steps_of_a_row(folder, saved, capsys):
    path, steps = saved
    row = steps[4][7]
    expected = [step for step, ids in enumerate(steps) if row in ids]
    status, out, _ = run(capsys, "trace", folder, "--state", path, "--uid", f"u{row}", "--json")
    assert status == 0 and json.loads(out) == {
        "uid": f"u{row}",
        "steps": [{"step": step, "done": step < 9} for step in expected],
    }
    further = json.loads(run(capsys, "trace", folder, "--state", path, "--uid", f"u{row}", "--epochs", 5, "--json")[1])
    assert len(further["steps"]) == 5 and [entry["step"] for entry in further["steps"]][:2] == expected


def test_what_cant_be_meant_has_exit_status_2(folder, saved, capsys, tmp_path):
    path, steps = saved
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text("{}")
    for words, text in [
        (["--state", path], "either --step K or --uid"),
        (["--state", path, "--step", 1, "--uid", "u1"], "either --step K or --uid"),
        (["--state", path, "--step", len(steps)], f"step {len(steps)} is not in this run"),
        (["--state", path, "--uid", "nobody"], "nobody"),
        (["--state", tmp_path / "none.json", "--step", 1], "can't read the state"),
        (["--state", tmp_path / "broken.json", "--step", 1], "is not JSON"),
        (["--state", tmp_path / "other.json", "--step", 1], "not the state of a gristmill stream"),
    ]:
        status, out, err = run(capsys, "trace", folder, *words)
        assert (status, out) == (2, "") and text in err and "Traceback" not in err, words


def dataset(base, count, start=0):
    folder = open_folder(base)
    table = pa.table({"_uid": [f"u{i}" for i in range(start, start + count)], "id": range(start, start + count)})
    files = []
    for split, share in (("train", slice(0, count - 20)), ("test", slice(count - 20, count))):
        with ShardWriter(folder, ParquetSettings(row_group_rows=16), table.schema, split=split) as writer:
            writer.write(table.slice(share.start, share.stop - share.start))
        files += writer.files
    publish(folder, files, table.schema, expected_parent=newest_version(folder))
    return folder


def test_a_dataset_is_opened_at_the_states_version_and_split(tmp_path, capsys):
    dataset(tmp_path / "d", 300)
    loader = gs.stream(str(tmp_path / "d"), "train", **OPTIONS)
    expected = [[f"u{i}" for i in ids_of(batch)] for batch in loader]
    state = loader.state_dict()
    assert state["data"] == f"{tmp_path / 'd'}@1#train"
    dataset(tmp_path / "d", 400)
    assert [row["uid"] for row in open_run(str(tmp_path / "d"), state).step(2)["rows"]] == expected[2]
    with pytest.raises(DataChangedError, match="added"):
        open_run(f"{tmp_path / 'd'}@2", state)
    with pytest.raises(StateError, match="knows no steps"):
        open_run(str(tmp_path / "d"), state | {"history": []})


def test_a_mix_is_opened_at_the_states_versions_and_splits(tmp_path, capsys):
    for name in "ab":
        dataset(tmp_path / name, 300)
    datasets = [
        {"data": str(tmp_path / name), "split": split, "weight": 1} for name, split in (("a", "train"), ("b", "test"))
    ]
    (tmp_path / "mix.json").write_text(json.dumps({"datasets": datasets}))
    loader = gs.stream(tmp_path / "mix.json", **OPTIONS)
    expected = [[f"u{i}" for i in ids_of(batch)] for batch in loader]
    (tmp_path / "state.json").write_text(json.dumps(loader.state_dict()))
    for name in "ab":
        dataset(tmp_path / name, 400)
    for step in (0, 5, len(expected) - 1):
        status, out, _ = run(
            capsys, "trace", tmp_path / "mix.json", "--state", tmp_path / "state.json", "--step", step, "--json"
        )
        assert status == 0 and [row["uid"] for row in json.loads(out)["rows"]] == expected[step]
    mapping = {f"{tmp_path / 'a'}@1": 1}
    with pytest.raises(DataChangedError):
        open_run(mapping, loader.state_dict() | {"data": loader.state_dict()["data"].partition(" + ")[0]})


def test_bench_stream_prints_speed_and_how_well_rows_are_mixed(folder, capsys):
    status, out, _ = run(
        capsys,
        "bench",
        "stream",
        folder,
        "--global-batch-size",
        50,
        "--shuffle-bytes",
        10**8,
        "--columns",
        "id,text",
        "--seconds",
        5,
        "--json",
    )
    found = json.loads(out)
    assert status == 0 and found["rows"] == 1003 and found["steps"] == 21
    assert found["bytes"] == 1003 * 8 + sum(len(f"row {i}") for i in range(1003))
    assert 0 < found["first_batch"] <= found["seconds"]
    assert found["ideal"] == pytest.approx(sum(1 - (1 - rows / 1003) ** 50 for rows in [10] * 100 + [2, 1]), abs=0.5)
    assert 8 < found["groups"] <= 51
    assert "row groups; rows drawn at random" in run(capsys, "bench", "stream", folder, "--seconds", 0.1)[1]
    assert run(capsys, "bench", "stream", folder, "--columns", "nope")[0] == 2


def huge(groups=100_000, rows=10_000):
    """The layout of a billion rows that are nowhere."""
    sizes = np.full(groups, rows)
    files = groups // 100
    return Layout(
        folders=(Folder("/nowhere"),),
        files=tuple(f"{i}.parquet" for i in range(files)),
        file_folder=np.zeros(files, np.int64),
        file_bytes=np.ones(files, np.int64),
        checksums=(),
        group_file=np.repeat(np.arange(files), 100),
        group_index=np.tile(np.arange(100), files),
        group_rows=sizes,
        schema=pa.schema([("_uid", pa.string())]),
        digest="d",
        row_bytes=400.0,
    )


def test_a_billion_rows_take_no_memory_per_row():
    """Resume, a step's rows, a row's steps and skipping at 10^9 rows in 10^5 row groups."""
    layout = huge()
    shuffle = fit_shuffle(layout.group_rows, layout.row_bytes, 2**30)
    state = State(
        1_987_654_144,
        1_941_068,
        3,
        (tuple(shuffle),),
        ((0, 0, 1024, "carry"),),
        "d",
        "x",
        1000,
        layout.num_rows,
        epochs=3,
    )
    tracemalloc.start()
    order = make_order(layout, (100_000,), state.seed, state.shuffles, ())
    batching = Batching(layout.num_rows, 3, 1024, "carry", find=finder(layout, order))
    skipped = resolve_skip(state, layout, batching, order, [1_950_000, 2_000_000])
    found = places_at(state, batching, order, 1_941_068)
    row = int(found.group[5]) * 10_000 + int(found.row[5])
    steps = steps_of(state, batching, [row])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 1_941_068 in steps and len(steps) == 3
    assert len(skipped.skip_ranges) == 2 and not skipped.skip_rows
    skipping = Batching(layout.num_rows, 3, 1024, "carry", skip=skipped.skip, find=finder(layout, order))
    assert batching.steps_from(state.position) - skipping.steps_from(state.position) == 2
    assert peak < 60 * 2**20
