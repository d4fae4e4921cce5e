"""The button `Report` beside a task: the page of HTML that its command wrote."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

PREFIX = "/gristmill"


class ReportLink(BaseOperatorLink):
    """The report of the run or validation that the task did; empty before it has."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address of the report, from the server's root; a URL as it is."""
        report = getattr(operator, "report", None)
        if not report:
            return ""
        return str(report) if "://" in str(report) else f"{PREFIX}/report?path={quote(str(report))}"
