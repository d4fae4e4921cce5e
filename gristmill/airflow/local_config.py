"""`airflow.cfg` of the local Airflow: its server and every `airflow` command with the same AIRFLOW_HOME read it, so that they are one Airflow."""

from __future__ import annotations

import configparser
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from cryptography.fernet import Fernet

USER = "admin"
SECRETS: dict[tuple[str, str], Callable[[], str]] = {
    ("core", "fernet_key"): lambda: Fernet.generate_key().decode(),
    ("api", "secret_key"): lambda: secrets.token_hex(32),
    ("api_auth", "jwt_secret"): lambda: secrets.token_hex(32),
}


def write_config(home: Path, dags: Path, port: int) -> None:
    """Sets what the local Airflow needs; secrets are made once, and whatever else the file says stays."""
    ours = {
        "core": {
            "dags_folder": str(dags),
            "load_examples": "False",
            "executor": "LocalExecutor",
            "parallelism": "4",
            "dags_are_paused_at_creation": "False",
            "simple_auth_manager_users": f"{USER}:admin",
        },
        # seconds to wait for another writer
        "database": {"sql_alchemy_conn": f"sqlite:///{home}/airflow.db?timeout=60"},
        "api": {"host": "127.0.0.1", "port": str(port), "base_url": f"http://127.0.0.1:{port}", "workers": "1"},
        "workers": {"execution_api_timeout": "60"},  # a busy laptop answers late
        "dag_processor": {"refresh_interval": "20"},
    }
    found = _read(home)
    for section, values in ours.items():
        for name, value in values.items():
            _set(found, section, name, value)
    for (section, name), make in SECRETS.items():
        if not found.get(section, name, fallback=""):
            _set(found, section, name, make())
    temporary = home / ".tmp-airflow.cfg"
    with open(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        found.write(file)
    temporary.replace(home / "airflow.cfg")


def kept_port(home: Path) -> int:
    """The port that the file names."""
    return int(_read(home).get("api", "port", fallback="8080"))


def _read(home: Path) -> configparser.RawConfigParser:
    found = configparser.RawConfigParser()  # Airflow's own reader takes %; here it stays as it is
    found.read(home / "airflow.cfg", encoding="utf-8")
    return found


def _set(config: configparser.RawConfigParser, section: str, name: str, value: str) -> None:
    if not config.has_section(section):
        config.add_section(section)
    config.set(section, name, value.replace("%", "%%"))
