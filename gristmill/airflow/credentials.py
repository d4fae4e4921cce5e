"""Airflow Connections as the environment variables that storage clients read. Their secrets are masked in logs."""

from __future__ import annotations

import re
from typing import Any

SECRET = re.compile(r"KEY(?!_ID)|SECRET|TOKEN|PASS|CREDENTIAL(?!S$)|CONNECTION_STRING", re.IGNORECASE)
"""In the names of variables that are masked. Airflow by itself knows a Connection's password, and of its extra only what has a name that it knows."""


def connection_env(conn_id: str | None) -> dict[str, str]:
    """The variables of a Connection, by its type: `aws`, `google_cloud_platform`, `wasb`, `adls`; `{"env": {...}}` in the extra of any type is added.

    aws: login and password are the key pair; `endpoint_url`, `region_name`, `aws_session_token` and `profile_name` come from the extra.

    Raises:
        ValueError: nothing in it that a storage client could use.
    """
    if not conn_id:
        return {}
    from airflow.sdk import BaseHook
    from airflow.sdk.log import mask_secret

    connection = BaseHook.get_connection(conn_id)
    extra: dict[str, Any] = connection.extra_dejson
    found = _of_type(connection, extra)
    found.update({str(name): str(value) for name, value in (extra.get("env") or {}).items()})
    env = {name: str(value) for name, value in found.items() if value}
    if not env:
        raise ValueError(
            f"Connection '{conn_id}' of type '{connection.conn_type}' has nothing for a storage client: use type aws, google_cloud_platform or wasb, "
            'or put {"env": {"NAME": "value"}} into its extra'
        )
    for name, value in env.items():
        if SECRET.search(name):
            mask_secret(value)
    return env


def _of_type(connection: Any, extra: dict[str, Any]) -> dict[str, Any]:
    if connection.conn_type == "aws":
        return {
            "AWS_ACCESS_KEY_ID": connection.login or extra.get("aws_access_key_id"),
            "AWS_SECRET_ACCESS_KEY": connection.password or extra.get("aws_secret_access_key"),
            "AWS_SESSION_TOKEN": extra.get("aws_session_token"),
            "AWS_DEFAULT_REGION": extra.get("region_name"),
            "AWS_ENDPOINT_URL": extra.get("endpoint_url"),
            "AWS_PROFILE": extra.get("profile_name"),
        }
    if connection.conn_type == "google_cloud_platform":
        return {"GOOGLE_APPLICATION_CREDENTIALS": extra.get("key_path")}
    if connection.conn_type in ("wasb", "adls", "azure_data_lake"):
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": connection.login or extra.get("account_name"),
            "AZURE_STORAGE_ACCOUNT_KEY": connection.password or extra.get("account_key"),
            "AZURE_STORAGE_CONNECTION_STRING": extra.get("connection_string"),
            "AZURE_STORAGE_SAS_TOKEN": extra.get("sas_token"),
        }
    return {}
