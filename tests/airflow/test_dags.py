"""The DAG files: they import light and without errors, and have the tasks, edges and settings that the documentation says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gristmill.airflow import operators
from gristmill.airflow.settings import settings

from .conftest import DAGS

HEAVY = (
    "pyarrow",
    "numpy",
    "numba",
    "scipy",
    "dask",
    "distributed",
    "pandas",
    "polars",
    "torch",
    "pyspark",
    "great_expectations",
    "xxhash",
    "fsspec",
    "typer",
)
IDS = {"gristmill_etl", "gristmill_maintenance", "gristmill_training_ready", "gristmill_validate"}

EDGES = {
    "gristmill_etl": {
        "pipelines": {"each.plan", "each.publish", "each.run", "each.validate"},
        "each.plan": {"each.run"},
        "each.run": {"each.publish", "each.validate"},
        "each.validate": {"each.publish"},
        "each.publish": set(),
    },
    "gristmill_validate": {
        "versions": {"each.accept", "each.drift", "each.leakage", "each.suite"},
        "each.suite": {"each.accept", "each.approve"},
        "each.drift": {"each.accept", "each.approve"},
        "each.leakage": {"each.accept", "each.approve"},
        "each.approve": {"each.accept"},
        "each.accept": set(),
    },
    "gristmill_training_ready": {
        "mixes": {"each.pin"},
        "each.pin": {"each.stream", "each.train"},
        "each.stream": {"each.train"},
        "each.train": set(),
    },
    "gristmill_maintenance": {"datasets": {"each.gc", "each.verify"}, "each.verify": {"each.gc"}, "each.gc": set()},
}

LOAD = """
import json, sys
from airflow.sdk import DAG, CronDataIntervalTimetable, task, task_group
from airflow.providers.standard.operators.hitl import ApprovalOperator
before = set(sys.modules)
import importlib.util
dags = {}
for path in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location(path.rsplit("/", 1)[-1][:-3], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dag = module.dag
    dags[dag.dag_id] = {
        "edges": {t.task_id: sorted(t.downstream_task_ids) for t in dag.tasks},
        "params": {name: [p.value, p.schema] for name, p in dag.params.items() for p in [dag.params.get_param(name)]},
        "max_active_runs": dag.max_active_runs, "catchup": dag.catchup, "tags": sorted(dag.tags), "doc": dag.doc_md,
        "tasks": {t.task_id: {"pool": t.pool, "retries": t.retries, "priority": t.priority_weight, "mapped": t.is_mapped or bool(list(t.iter_mapped_task_groups())),
                              "python": getattr(t, "python", None), "alert": bool(t.on_failure_callback)} for t in dag.tasks},
        "schedule": str(dag.schedule),
    }
print(json.dumps({"dags": dags, "new": sorted(set(sys.modules) - before), "all": sorted(sys.modules)}, default=str))
"""


def load(**env: str) -> dict[str, Any]:
    """The DAGs as a fresh interpreter sees them, and the modules that loading them took."""
    command = [sys.executable, "-c", LOAD, *sorted(str(path) for path in DAGS.glob("*.py"))]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from gristmill.airflow.example import make_project

    return load(GRISTMILL_FOLDER=str(make_project(tmp_path_factory.mktemp("project"), days=1)))


def test_loading_them_takes_few_modules_and_none_of_the_heavy_ones(loaded: dict[str, Any]) -> None:
    """Airflow reads the files over and over; a count says more than a clock does."""
    roots = {name.split(".")[0] for name in loaded["new"]}
    assert not roots & set(HEAVY)
    mine = [name for name in loaded["new"] if name.startswith("gristmill")]
    light = ("gristmill", "gristmill.errors")
    assert len(mine) <= 26 and all(name in light or name.startswith("gristmill.airflow") for name in mine)
    assert len(loaded["new"]) < 120, loaded["new"]


def test_the_ids_are_there_without_a_project_too(tmp_path: Path, loaded: dict[str, Any]) -> None:
    assert set(load(GRISTMILL_FOLDER=str(tmp_path / "absent"))["dags"]) == set(loaded["dags"]) == IDS


def test_edges(loaded: dict[str, Any]) -> None:
    for dag, edges in EDGES.items():
        assert {task: set(after) for task, after in loaded["dags"][dag]["edges"].items()} == edges


def test_settings_of_the_dags(loaded: dict[str, Any]) -> None:
    dags = loaded["dags"]
    assert {
        name: dag["max_active_runs"] for name, dag in dags.items() if name != "gristmill_validate"
    } == dict.fromkeys(IDS - {"gristmill_validate"}, 1)
    for dag in dags.values():
        assert not dag["catchup"] and dag["tags"] == ["gristmill"] and dag["doc"]
        for name, task in dag["tasks"].items():
            assert task["alert"] and task["retries"] == 3, name
            assert task["mapped"] == name.startswith("each."), name
    assert (
        "gristmill_datasets" in dags["gristmill_validate"]["schedule"]
        and "gristmill_validated" in dags["gristmill_training_ready"]["schedule"]
    )


def test_settings_from_the_environment() -> None:
    env = {
        "GRISTMILL_PYTHON": "/envs/gristmill/bin/python",
        "GRISTMILL_POOL": "mill",
        "GRISTMILL_RETRIES": "5",
        "GRISTMILL_ETL_SCHEDULE": "@hourly",
    }
    tasks = load(**env)["dags"]["gristmill_etl"]["tasks"]
    assert {name: tasks[name]["pool"] for name in ("each.plan", "each.run", "each.validate")} == {
        "each.plan": "default_pool",
        "each.run": "mill",
        "each.validate": "mill",
    }
    assert {task["retries"] for task in tasks.values()} == {5} and tasks["each.run"]["priority"] == 10
    assert tasks["each.run"]["python"] == "/envs/gristmill/bin/python"


@pytest.mark.parametrize(
    ("name", "text"), [("GRISTMILL_RETRIES", "three"), ("GRISTMILL_KEEP", "0"), ("GRISTMILL_PARALLEL", "-1")]
)
def test_a_setting_that_is_no_number(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ValueError, match=f"{name}='{text}': a whole number from [01] on is expected"):
        settings()


def test_a_schedule_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRISTMILL_ETL_SCHEDULE", "every day")
    with pytest.raises(ValueError, match="GRISTMILL_ETL_SCHEDULE='every day': a cron expression of five fields"):
        settings()
    for good in ("@hourly", "@quarterly", "*/15 6-20 * * 1-5"):
        monkeypatch.setenv("GRISTMILL_ETL_SCHEDULE", good)
        assert settings().etl_schedule == good


def test_what_tasks_import_is_light_too() -> None:
    """The environment of Airflow need not have what gristmill needs: all modules but those that run as commands elsewhere."""
    elsewhere = {"answers", "data_checks", "stream_check", "local", "standalone"}
    names = sorted({path.stem for path in Path(operators.__file__).parent.glob("*.py")} - elsewhere - {"__init__"})
    code = f"import importlib, sys; [importlib.import_module('gristmill.airflow.' + name) for name in {names}]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in done.stdout.split()} & set(HEAVY) - {
        "fsspec"
    } == set()  # fsspec is Airflow's


def test_forms(loaded: dict[str, Any]) -> None:
    """Every field has a title; those that may be left out take null; the pipeline files are proposed."""
    etl = loaded["dags"]["gristmill_etl"]["params"]
    assert set(etl) == {"pipeline", "date", "engine", "address", "workers", "memory", "suite", "destination"}
    assert (
        etl["pipeline"][1]["examples"] == ["*.yaml", "daily.yaml", "packages.yaml"]
        and etl["date"][1]["format"] == "date"
    )
    for dag in loaded["dags"].values():
        for name, (value, schema) in dag["params"].items():
            assert schema["title"], name
            assert value is not None or "null" in schema["type"], name


def test_the_provider_is_known_to_airflow() -> None:
    code = (
        "from airflow.providers_manager import ProvidersManager as P; from importlib.metadata import entry_points; import json, jsonschema, airflow, pathlib\n"
        "info = [e.load()() for e in entry_points(group='apache_airflow_provider') if e.module == 'gristmill.airflow.provider'][0]\n"
        "jsonschema.validate(info, json.loads((pathlib.Path(airflow.__file__).parent / 'provider_info.schema.json').read_text()))\n"
        "from airflow.sdk import task\n"
        "print('gristmill' in P().providers, task.gristmill, [link for link in P().extra_links_class_names if 'gristmill' in link])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (
        done.stdout.strip().splitlines()[-1].startswith("True <function gristmill_task")
        and "gristmill.airflow.links.ReportLink" in done.stdout
    )
