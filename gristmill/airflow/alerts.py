"""What is said when a task fails: what failed, where, and the next command."""

from __future__ import annotations

import http.client
import json
import logging
import urllib.request
from collections.abc import Mapping
from typing import Any

from gristmill.airflow.base import GristmillOperator

CONNECTION = "gristmill_alerts"
"""A Connection of type http: its URL gets {"text": ...} by POST, as the webhooks of Slack, Mattermost and Teams expect it."""
TIMEOUT = 10.0

log = logging.getLogger(__name__)


def failure_text(context: Mapping[str, Any]) -> str:
    """Some lines: the task with its run and try, the error, and what to type next."""
    ti = context["ti"]
    task = context.get("task")
    index = getattr(ti, "map_index", -1)
    name = f"{ti.task_id}[{index}]" if index is not None and index >= 0 else ti.task_id
    error = context.get("exception")
    lines = [
        f"{ti.dag_id}.{name} failed in run {ti.run_id}, try {ti.try_number}",
        f"  {type(error).__name__}: {error}" if error else "  no error was recorded",
    ]
    if ran := getattr(task, "ran", None):
        lines.append(f"  it ran: {ran} (in {getattr(task, 'cwd', None) or 'the folder of the worker'})")
    lines.append(f"  next: {_next(task, ti)}")
    url = getattr(ti, "log_url", None)
    if url:
        lines.append(f"  log: {url}")
    return "\n".join(lines)


def alert(context: Mapping[str, Any]) -> None:
    """Logs the text, and sends it to the Connection `gristmill_alerts` where there is one. For `on_failure_callback`."""
    text = failure_text(context)
    log.error("%s", text)
    url = _webhook()
    if not url:
        return
    body, headers = json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}
    try:
        request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310  an address of the administrator's
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
            answer.read()
    except (OSError, http.client.HTTPException, ValueError) as failed:  # ValueError: an address that is none
        said = str(failed).replace(url, "its address")  # which is the secret of a web hook
        log.error("the alert could not be sent to Connection '%s': %s", CONNECTION, said)  # noqa: TRY400  the text says all; the task's own error must stay in view


def _next(task: Any, ti: Any) -> str:
    known = task.next_step() if isinstance(task, GristmillOperator) else None
    return known or f"clear {ti.task_id} in Airflow's UI"


def _webhook() -> str | None:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection = BaseHook.get_connection(CONNECTION)
    except AirflowNotFoundException:
        return None
    if "://" in (connection.host or ""):
        return str(connection.host)
    port = f":{connection.port}" if connection.port else ""
    return f"{connection.schema or 'https'}://{connection.host}{port}{connection.extra_dejson.get('path', '')}"
