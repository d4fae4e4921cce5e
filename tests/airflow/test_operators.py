"""Operators: the command lines that they make, what becomes of each exit status, and what goes into XComs."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from gristmill.airflow import (
    GristmillOperator,
    GristmillPlanOperator,
    GristmillPublishOperator,
    GristmillRunOperator,
    GristmillValidateOperator,
    base,
    operators,
    summaries,
)
from gristmill.airflow.checks import GristmillCheckOperator, GristmillGcOperator, GristmillVerifyOperator, verdict_of
from gristmill.airflow.credentials import connection_env
from gristmill.airflow.decorators import _GristmillDecoratedOperator
from gristmill.airflow.training import GristmillTrainOperator


class Pushed(dict[str, Any]):
    """The part of a task's context that operators write to."""

    def __init__(self) -> None:
        super().__init__(ti=self)
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value


def execute(operator: Any, context: Any = None) -> Any:
    """`execute` without Airflow's wrapper, that only a task runner may pass."""
    return type(operator).execute.__wrapped__(operator, context if context is not None else Pushed())


@pytest.fixture
def saying(tmp_path: Path) -> Any:
    """saying(status, result, error) -> the path of a Python that answers like this instead of running gristmill."""

    def make(status: int, result: Any = None, error: str = "") -> str:
        path = tmp_path / f"python-{status}-{len(list(tmp_path.iterdir()))}"
        answer = f"print({json.dumps(result)!r})" if result is not None else "pass"
        path.write_text(
            f"#!{sys.executable}\nimport sys\n{answer}\nprint({error!r}, file=sys.stderr)\nsys.exit({status})\n"
        )
        path.chmod(0o755)
        return str(path)

    return make


@pytest.mark.parametrize(
    ("status", "error", "raised", "retried"),
    [
        (1, "gristmill: the data failed suite docs", AirflowFailException, False),
        (2, "gristmill: no pipeline file 'x.yaml'", AirflowFailException, False),
        (3, "gristmill: item 7 failed 3 times", AirflowException, True),
        (130, "gristmill: stopped; the same command resumes", AirflowException, True),
        (137, "ingest: 1/1", AirflowException, True),
    ],
)
def test_exit_status(saying: Any, status: int, error: str, raised: type[Exception], retried: bool) -> None:
    operator = GristmillOperator(task_id="t", arguments=["show", "x"], python=saying(status, error=error))
    with pytest.raises(raised) as caught:
        execute(operator)
    assert isinstance(caught.value, AirflowFailException) is not retried
    how = "was killed by SIGKILL (9), as happens where memory runs out: no message"
    expected = how if status == 137 else f"ended with {status}: {error.removeprefix('gristmill: ')}"
    assert str(caught.value) == f"gristmill show x {expected}"


def test_a_real_error_is_in_the_text(tmp_path: Path) -> None:
    (tmp_path / "docs.yaml").write_text("name: docs\nsteps:\n  - {step: fliter, where: 'a > 1'}\n")
    with pytest.raises(AirflowFailException) as caught:
        execute(GristmillPlanOperator(task_id="t", pipeline="docs.yaml", cwd=str(tmp_path)))
    assert "docs.yaml:3: unknown step 'fliter'. Did you mean 'filter'?" in str(
        caught.value
    ) and "sources: required" in str(caught.value)
    with pytest.raises(AirflowFailException, match="Did you mean 'docs.yaml'"):
        execute(GristmillPlanOperator(task_id="t", pipeline="dosc.yaml", cwd=str(tmp_path)))


def test_a_python_without_gristmill_and_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AirflowFailException, match="GRISTMILL_PYTHON, must be the path of a Python that has gristmill"):
        execute(GristmillOperator(task_id="t", arguments=["show", "x"], python="/no/such/python"))
    with pytest.raises(AirflowFailException, match="set cwd to a folder that the worker has"):
        execute(GristmillOperator(task_id="t", arguments=["show", "x"], cwd=str(tmp_path / "absent")))


def test_the_defaults_of_retries_and_that_they_can_be_set() -> None:
    operator = GristmillRunOperator(task_id="t", pipeline="p.yaml")
    assert (operator.retries, operator.retry_exponential_backoff, operator.retry_delay.total_seconds()) == (3, 2, 60)
    assert GristmillRunOperator(task_id="t", pipeline="p.yaml", retries=0, pool="spark", priority_weight=7).retries == 0


def test_command_lines() -> None:
    run = GristmillRunOperator(
        task_id="t",
        pipeline="p.yaml",
        candidate=True,
        engine="spark",
        address="spark://h:7077",
        workers="",
        memory=None,
        settings=["a.b=1", "output.path=x y"],
    )
    assert run.command() == [
        "run",
        "p.yaml",
        "--candidate",
        "--engine",
        "spark",
        "--address",
        "spark://h:7077",
        "--set",
        "a.b=1",
        "--set",
        "output.path=x y",
    ]
    assert base.shown(run.command()).endswith("--set 'output.path=x y'")
    validate = GristmillValidateOperator(task_id="t", data="d@3", suite="s.json", quarantine="q", report_file="r.html")
    assert validate.command() == ["validate", "d@3", "--suite", "s.json", "--quarantine", "q", "--report", "r.html"]
    assert GristmillVerifyOperator(task_id="t", dataset="d", fast="True").command() == ["verify", "d", "--fast"]
    assert GristmillVerifyOperator(task_id="t", dataset="d", fast="False").command() == ["verify", "d"]
    assert GristmillGcOperator(task_id="t", dataset="d", keep="3", dry_run=True).command() == [
        "gc",
        "d",
        "--keep",
        "3",
        "--dry-run",
    ]


def result(**expectation: Any) -> dict[str, Any]:
    config = {
        "type": "expect_column_values_to_not_be_null",
        "kwargs": {"column": "text"},
        "severity": expectation.pop("severity", "critical"),
    }
    return {
        "success": False,
        "expectation_config": config,
        "result": {"unexpected_count": 3},
        "exception_info": {},
        **expectation,
    }


def test_verdicts(saying: Any) -> None:
    good = {
        "success": True,
        "results": [{"success": True}],
        "statistics": {"evaluated_expectations": 1},
        "suite_name": "docs",
        "num_rows": 9,
    }
    warned = {**good, "results": [result(severity="warning")]}
    bad = {**good, "success": False, "results": [result()]}
    for answer, status, expected in ((good, 0, "passed"), (warned, 0, "warned")):
        found = execute(GristmillValidateOperator(task_id="t", data="d@1", suite="s", python=saying(status, answer)))
        assert (found["verdict"], found["suite"], found["rows"]) == (expected, "docs", 9)
    context = Pushed()
    with pytest.raises(
        AirflowFailException,
        match=r"d@1 failed suite docs: expect_column_values_to_not_be_null of 'text' \(critical, 3 rows\)",
    ):
        execute(GristmillValidateOperator(task_id="t", data="d@1", suite="s", python=saying(1, bad)), context)
    assert context.xcoms["verdict"]["verdict"] == "failed"
    assert (
        execute(
            GristmillValidateOperator(task_id="t", data="d@1", suite="s", python=saying(1, bad), data_failed="return")
        )["verdict"]
        == "failed"
    )


def test_a_validation_fails_closed(saying: Any) -> None:
    with pytest.raises(AirflowFailException, match="gave no verdict"):
        execute(GristmillValidateOperator(task_id="t", data="d@1", suite="s", python=saying(0)))
    with pytest.raises(AirflowFailException, match="no suite for d@1: name one"):
        execute(GristmillValidateOperator(task_id="t", data="d@1", required=True))
    said_good = {"success": True, "results": [], "statistics": {}}
    with pytest.raises(AirflowFailException):  # the exit status counts more than what was printed
        execute(GristmillValidateOperator(task_id="t", data="d@1", suite="s", python=saying(1, said_good)))
    assert execute(GristmillValidateOperator(task_id="t", data="d@1"))["verdict"] == "unverified"


def test_what_was_found_is_a_line_of_the_log(saying: Any, capsys: pytest.CaptureFixture[str]) -> None:
    good = {"success": True, "results": [], "statistics": {"evaluated_expectations": 3}, "num_rows": 80}
    execute(GristmillValidateOperator(task_id="t", data="d@1", suite="s", python=saying(0, good)))
    whole = {"path": "d", "version": 2, "whole": True, "problems": []}
    execute(GristmillVerifyOperator(task_id="t", dataset="d", python=saying(0, whole)))
    drift = {"check": "drift", "verdict": "passed", "against": 4, "found": []}
    execute(GristmillCheckOperator(task_id="t", check="drift", data="d@5", python=saying(0, drift)))
    alone = {"check": "leakage", "verdict": "unverified", "found": []}
    execute(GristmillCheckOperator(task_id="t", check="leakage", data="d@5", python=saying(0, alone)))
    diff = {"added": 3, "removed": 0, "columns": list(range(1000))}
    execute(GristmillOperator(task_id="t", arguments=["diff", "d", "1", "2"], python=saying(0, diff)))
    said = capsys.readouterr().out
    for line in (
        "d@1: passed, 3 expectations on 80 rows",
        "version 2 of d is whole",
        "drift against version 4: passed, 0 findings",
        "leakage: nothing to compare, fewer than two splits with rows",
        "added 3, removed 0, columns [0, 1, 2",
    ):
        assert line in said


def test_a_function_that_returns_no_arguments_fails_at_once() -> None:
    for returned in (None, "run docs.yaml", []):
        task = _GristmillDecoratedOperator(task_id="t", python_callable=lambda found=returned: found)
        with pytest.raises(AirflowFailException, match="it must return the command and its arguments"):
            execute(task)


def test_a_suite_file_that_is_missing_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(AirflowFailException, match=r"ended with 2: no suite at 'suites/absent.json'"):
        execute(GristmillValidateOperator(task_id="t", data="d@1", suite="suites/absent.json", cwd=str(tmp_path)))


def test_nothing_to_publish_is_skipped() -> None:
    with pytest.raises(AirflowSkipException, match="nothing new: version 3 of d"):
        execute(GristmillPublishOperator(task_id="t", target="d@3"))


def test_verify_says_what_is_wrong(saying: Any) -> None:
    answer = {"path": "d", "version": 1, "whole": False, "problems": [{"path": "data/a.parquet", "what": "missing"}]}
    with pytest.raises(AirflowFailException, match=r"data/a.parquet: missing"):
        execute(GristmillVerifyOperator(task_id="t", dataset="d", python=saying(1, answer)))


def test_summaries_stay_small() -> None:
    many = [
        {"item": f"file-{i}", "bytes": 10, "action": "read" if i % 2 else "reuse", "reason": "new"}
        for i in range(50_000)
    ]
    plan = summaries.of_plan(
        {"pipeline": "p", "output": "o", "newest_version": 3, "items": many, "removed_files": [], "segments": []}
    )
    assert (plan["read"], plan["reuse"], plan["read_bytes"]) == (25_000, 25_000, 250_000)
    verdict = summaries.of_verdict(
        {"success": False, "results": [result(result={"unexpected_list": list(range(10_000))}) for _ in range(500)]},
        "d",
    )
    assert verdict["unmet"] == 500 and len(verdict["expectations"]) == summaries.SHOWN
    other = summaries.of_command(["gc", "d"], {"files": list(range(5000)), "versions": [1, 2], "bytes": 9}, None)
    assert other == {"files": list(range(100)), "files_total": 5000, "versions": [1, 2], "bytes": 9}
    assert len(json.dumps(plan)) < 500 and len(json.dumps(verdict)) < 5000


def test_the_approval_is_asked_for_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.providers.standard.operators.hitl import ApprovalOperator

    from gristmill.airflow.approval import GristmillApprovalOperator

    monkeypatch.setattr(ApprovalOperator, "execute", lambda self, context: "asked")
    passed, warned = [{"verdict": "passed"}, {"verdict": "unverified"}], [{"verdict": "passed"}, {"verdict": "warned"}]
    answers = [
        execute(GristmillApprovalOperator(task_id="t", subject="?", found=found, wanted=wanted))
        for found in (passed, warned)
        for wanted in ("True", "False")
    ]
    assert answers == [None, None, "asked", None]
    warned[0]["data"] = "/data/docs@4"
    operator = GristmillApprovalOperator(task_id="t", subject="?", body="See the logs.", found=warned, wanted=True)
    assert execute(operator) == "asked" and operator.body == "/data/docs@4 passed with warnings. See the logs."
    assert (verdict_of(passed), verdict_of(warned)) == ("passed", "warned")


def test_credentials_come_from_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    store = {
        "conn_type": "aws",
        "login": "key",
        "password": "s3cret",
        "extra": {"endpoint_url": "http://127.0.0.1:9000", "region_name": "eu-north-1", "env": {"X": 1}},
    }
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(store))
    assert connection_env("lake") == {
        **{"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_DEFAULT_REGION": "eu-north-1"},
        **{"AWS_ENDPOINT_URL": "http://127.0.0.1:9000", "X": "1"},
    }
    monkeypatch.setenv(
        "AIRFLOW_CONN_GCP", json.dumps({"conn_type": "google_cloud_platform", "extra": {"key_path": "/k.json"}})
    )
    assert connection_env("gcp") == {"GOOGLE_APPLICATION_CREDENTIALS": "/k.json"}
    monkeypatch.setenv("AIRFLOW_CONN_MAIL", json.dumps({"conn_type": "smtp", "host": "h"}))
    with pytest.raises(ValueError, match="'mail' of type 'smtp' has nothing for a storage client"):
        connection_env("mail")
    assert connection_env(None) == {}


def test_secrets_of_connections_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of which Airflow doesn't know that they are: in the extra of a Connection it masks by a list of names."""
    from airflow.sdk.log import redact

    azure = {
        "conn_type": "wasb",
        "login": "account",
        "extra": {"account_key": "azure-account-k", "sas_token": "azure-sas-t"},
    }
    other = {
        "conn_type": "generic",
        "extra": {"env": {"HF_TOKEN": "hugging-t", "MY_KEY": "own-k", "REGION": "eu-north-1", "KEY_ID": "the-key-id"}},
    }
    for name, made in (("AZURE", azure), ("OTHER", other)):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(made))
        connection_env(name.lower())
    said = redact("azure-account-k azure-sas-t hugging-t own-k eu-north-1 the-key-id account")
    assert said == "*** *** *** *** eu-north-1 the-key-id account"


@pytest.mark.parametrize(
    ("command", "raised", "retried"),
    [
        ("python -c 'raise SystemExit(1)'", "ended with 1", True),
        ("python -c 'import os; os.kill(os.getpid(), 9)'", "killed by SIGKILL", True),
        ("no-such-program --lr 1", "no-such-program", False),
    ],
)
def test_training_that_fails_is_tried_again(command: str, raised: str, retried: bool, tmp_path: Path) -> None:
    """torchrun ends with 1 whatever befell a worker; the loss of a node isn't a failed check of data."""
    with pytest.raises(AirflowException, match=raised) as caught:
        execute(GristmillTrainOperator(task_id="t", command=command, mix=str(tmp_path / "m.json")))
    assert isinstance(caught.value, AirflowFailException) is not retried
    assert not (tmp_path / "m.trained").exists()


def test_training_tells_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "import os, sys; print('step 1', sys.argv[1] == os.environ['GRISTMILL_MIX'], os.environ['GRISTMILL_STREAM'])"
    command = f"python -c {shlex.quote(code)} {{mix}}"
    execute(GristmillTrainOperator(task_id="t", command=command, mix=str(tmp_path / "m.json"), stream={"seed": 1}))
    assert 'step 1 True {"seed": 1}' in capsys.readouterr().out and (tmp_path / "m.trained").exists()
    with pytest.raises(AirflowSkipException, match="no training command"):
        execute(GristmillTrainOperator(task_id="t", command="None", mix="m.json"))


def test_the_command_gets_the_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps({"conn_type": "aws", "login": "key", "password": "s3cret"}))
    path = tmp_path / "python"
    path.write_text(
        f"#!{sys.executable}\nimport os, json\nprint(json.dumps({{'key': os.environ['AWS_ACCESS_KEY_ID'], 'x': os.environ['X']}}))\n"
    )
    path.chmod(0o755)
    assert execute(
        GristmillOperator(task_id="t", arguments=["log", "d"], python=str(path), conn_id="lake", env={"X": "1"})
    ) == {"key": "key", "x": "1"}


def test_storage_that_does_not_answer_is_tried_again(tmp_path: Path) -> None:
    """A real client against a port where nobody listens."""
    (tmp_path / "raw.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "p.yaml").write_text(
        "name: p\nsources: [{kind: jsonl, path: raw.jsonl, name: raw}]\noutput: {path: 's3://bucket/out'}\n"
    )
    env = {
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.raises(AirflowException, match="ended with 3") as caught:
        execute(GristmillRunOperator(task_id="t", pipeline="p.yaml", cwd=str(tmp_path), env=env))
    assert not isinstance(caught.value, AirflowFailException) and "127.0.0.1:9" in str(caught.value)


def test_spark_without_java(tmp_path: Path) -> None:
    (tmp_path / "raw.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "p.yaml").write_text(
        "name: p\nsources: [{kind: jsonl, path: raw.jsonl, name: raw}]\noutput: {path: out}\n"
    )
    env = {"PATH": "/nonexistent", "JAVA_HOME": ""}
    with pytest.raises(AirflowFailException, match="(?i)java"):
        execute(
            GristmillRunOperator(
                task_id="t",
                pipeline="p.yaml",
                engine="spark",
                address="spark://127.0.0.1:7077",
                cwd=str(tmp_path),
                env=env,
            )
        )
    assert not (tmp_path / "out" / "manifests").exists()


def test_a_candidate_that_came_too_late_is_not_published(tmp_path: Path) -> None:
    """Two runs at once on one dataset: the second finds another version than it was made on."""
    import pyarrow as pa

    import gristmill

    def propose(value: int) -> str:
        model = {"name": "t", "sources": [{"kind": "frame", "name": "rows"}], "output": {"path": str(tmp_path / "d")}}
        return f"{tmp_path}/d@{gristmill.run(model, inputs={'rows': pa.table({'a': [value]})}, candidate=True, progress='quiet').candidate}"

    first, second = propose(1), propose(2)
    operators.GristmillOperator(task_id="t", arguments=["x"]).run(["publish", first])
    with pytest.raises(AirflowFailException, match="was made before version 1: clear the task that made it"):
        execute(GristmillPublishOperator(task_id="t", target=second))
    assert gristmill.open_dataset(str(tmp_path / "d")).version == 1


def test_publishing_again_after_it_was_done_finds_it_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies between publishing and saying so: the retry says it."""
    import pyarrow as pa

    import gristmill

    model = {"name": "t", "sources": [{"kind": "frame", "name": "rows"}], "output": {"path": str(tmp_path / "d")}}
    candidate = gristmill.run(model, inputs={"rows": pa.table({"a": [1]})}, candidate=True, progress="quiet").candidate
    events: list[Any] = []
    monkeypatch.setattr(operators, "emit", lambda *arguments: events.append(arguments))
    for _ in range(2):
        found = execute(
            GristmillPublishOperator(task_id="t", target=f"{tmp_path}/d@{candidate}", verdict={"verdict": "passed"})
        )
        assert (found["version"], found["rows"], found["verdict"]) == (1, 1, "passed")
    assert len(events) == 2
    with pytest.raises(AirflowFailException, match="no candidate"):
        execute(GristmillPublishOperator(task_id="t", target=f"{tmp_path}/d@0123456789abcdef"))
