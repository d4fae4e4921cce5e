"""Exit statuses, what goes to which stream, and how errors read."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time

import pytest

from gristmill import __version__
from gristmill.cli.main import app

from .conftest import SCRIPT, console

COMMANDS = sorted(command.name or command.callback.__name__ for command in app.registered_commands)


def test_version_and_help(cli):
    assert cli("--version").out == f"gristmill {__version__}\n"
    done = cli("--help")
    assert done.status == 0 and all(re.search(rf"^  {name}\s+\S", done.out, re.M) for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_its_options(cli, command):
    done = cli(command, "--help")
    assert done.status == 0 and not done.err
    text = re.sub(r"\s+", " ", done.out)
    options = re.split(r"(?= --[a-z])", text)[1:]
    assert all(re.search(r"--[\w-]+(?: \S+)?\s+.*[a-z]{2}", option) for option in options)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], ""),
        (["rnu", "x"], "No such command 'rnu'. Did you mean 'run'? (see gristmill --help)"),
        (["run"], "Missing argument 'pipeline'. (see gristmill run --help)"),
        (["run", "mine/pipeline.yaml", "--wrokers", "2"], "No such option: --wrokers"),
        (["run", "mine/pipeline.yaml", "--workers", "0"], "--workers"),
        (["run", "mine/pipeline.yaml", "--engine", "ray"], "no engine 'ray'. Valid: dask, spark."),
        (["run", "mine/pipeline.yaml", "--memory", "1KB"], "--memory 1KB is too little"),
        (["run", "mine/pipeline.yaml", "--memory", "much"], "'much' is not a size"),
        (["run", "mine/pipelines.yaml"], "no pipeline file 'mine/pipelines.yaml'. Did you mean 'pipeline.yaml'?"),
        (["run", "mine"], "'mine' is a folder, expected a pipeline file"),
        (["plan", "nowhere.yaml"], "no pipeline file 'nowhere.yaml'"),
        (["init", "mine"], "'mine' exists and is not an empty folder"),
        (["init", "mine/pipeline.yaml/x"], "can't make the folder"),
        (["show", "mine/shrads"], "no dataset at '{}/mine/shrads'. Did you mean 'shards'?"),
        (["show", "mine"], "'{}/mine' is not a gristmill dataset"),
        (["show", "mine/shards@7"], "no version 7; versions: 1"),
        (["diff", "mine/shards", "1", "two"], "'b'"),
        (["diff", "mine/shards", "1", "2"], "no version 2"),
        (["rollback", "mine/shards", "9"], "no version 9"),
        (["gc", "mine/shards", "--keep", "0"], "at least the newest version stays"),
        (["publish", "mine/shards"], "write DATASET@CANDIDATE"),
        (["publish", "mine/shards@abc"], "has no candidate 'abc'. It has no candidates."),
        (["reject", "mine/shards@abc"], "has no candidate 'abc'"),
        (["explain", "mine/shards", "nobody"], "never saw a row 'nobody'"),
    ],
)
def test_what_cannot_be_meant_is_status_2_and_one_text(cli, mine, words, text):
    done = cli(*words)
    assert done.status == 2, done
    assert text.format(mine) in done.err
    assert "Traceback" not in done.err and (not words or done.out == "")


def test_damaged_data_is_status_1(cli, mine):
    shard = next(mine.glob("mine/shards/data/train/*.parquet"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(bytes(content))
    done = cli("verify", "mine/shards", "--json")
    assert done.status == 1 and not done.json["whole"] and "sha256" in done.json["problems"][0]["what"]
    done = cli("verify", "mine/shards")
    assert done.status == 1 and done.out.endswith("@1: 1 problem (2 files)\n")
    assert cli("verify", "mine/shards", "--fast").status == 0, "the sizes are right"
    shard.unlink()
    assert cli("verify", "mine/shards", "--fast").status == 1


FAILING = """
import time
def fail(table):
    if table.num_rows: raise ValueError("no luck today")
    return table
def slow(table):
    if table.num_rows: print("at work", flush=True); time.sleep(60)
    return table
"""


def with_step(mine, function: str) -> None:
    """The pipeline with a python step at its end."""
    (mine / "own_steps.py").write_text(FAILING)
    text = (mine / "mine" / "pipeline.yaml").read_text()
    (mine / "own.yaml").write_text(
        text.replace("split:", f"  - {{step: python, function: 'own_steps:{function}'}}\nsplit:")
    )


def test_a_run_that_fails_is_status_3_and_says_where(mine):
    with_step(mine, "fail")
    done = console("run", "own.yaml", "--json", cwd=mine)
    assert done.status == 3 and done.out == ""
    assert (
        "no luck today" in done.err
        and "own_steps:fail" in done.err.replace("own_steps.fail", "own_steps:fail")
        and "Traceback" not in done.err
    )
    for words in (["--debug", "run", "own.yaml"], ["run", "own.yaml", "--debug"]):
        assert "Traceback" in console(*words, cwd=mine).err


def test_interrupted_run_says_that_it_resumes(mine):
    with_step(mine, "slow")
    process = subprocess.Popen(
        [SCRIPT, "run", "own.yaml"], cwd=mine, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "at work\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (
        process.returncode == 130
        and err.endswith("gristmill: stopped; the same command resumes\n")
        and "Traceback" not in err
    )
    done = console("run", "mine/pipeline.yaml", "--json", cwd=mine)
    assert done.json["published"] is False and done.json["version"] == 1


def test_a_reader_that_leaves_is_no_error(mine):
    for words in (["schema"], ["log", "mine/shards"]):  # more than a pipe's buffer of Python, and less
        process = subprocess.Popen([SCRIPT, *words], cwd=mine, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(30) == 141


def test_output_is_utf8_text_whatever_the_locale(mine):
    done = console("show", "mine/shards", cwd=mine, env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"})
    assert done.status == 0 and "40 rows in 2 files" in done.out
