"""A page of Airflow's own server that shows the reports of datasets, to users who are logged in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from gristmill.airflow.links import PREFIX


def report_path(path: str) -> Path | None:
    """The real path of a report: an .html file below the folder `reports` of a dataset; None for any other."""
    real = Path(os.path.realpath(path))
    inside = any(folder.name == "reports" and (folder.parent / "manifests").is_dir() for folder in real.parents)
    return real if inside and real.suffix == ".html" and real.is_file() else None


def make_app() -> Any:
    """The web application behind `/gristmill`."""
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi import Depends, FastAPI, HTTPException
    from fastapi.responses import FileResponse

    app = FastAPI(title="gristmill", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/report", dependencies=[Depends(get_user)], response_class=FileResponse)
    def report(path: str) -> Any:
        found = report_path(path)
        if found is None:
            raise HTTPException(404, "no report of a dataset on this machine")
        # whatever a report holds came from data: no script of it may run with the reader's login
        return FileResponse(
            found,
            media_type="text/html",
            headers={
                "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
            },
        )

    return app


class _Apps:
    """The plugin's web applications, made when they are asked for, which only the server does: every other process of Airflow loads plugins too."""

    def __get__(self, plugin: object, kind: type | None = None) -> list[dict[str, Any]]:
        return [{"app": make_app(), "url_prefix": PREFIX, "name": "gristmill"}]


class GristmillPlugin(AirflowPlugin):
    """Shows reports under `/gristmill/report`."""

    name = "gristmill"
    fastapi_apps = _Apps()
