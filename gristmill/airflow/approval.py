"""Someone's word on a version that passed with warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Context

from gristmill.airflow.checks import verdict_of


class GristmillApprovalOperator(ApprovalOperator):
    """Who approved; None where there was nothing to approve. Waits in the UI (Required actions) without holding a worker; a rejection fails it.

    found: what the checks returned. wanted: whether warnings need approval at all.
    """

    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "found", "wanted")

    body: str | None

    def __init__(self, *, found: Sequence[Mapping[str, Any]], wanted: bool | str, **kwargs: Any) -> None:
        super().__init__(fail_on_reject=True, **kwargs)
        self.found = found
        self.wanted = wanted

    def execute(self, context: Context) -> Any:
        """See the class."""
        if str(self.wanted) != "True" or verdict_of(self.found) != "warned":
            self.log.info("nothing to approve: the checks %s", verdict_of(self.found))
            return None
        self.body = (
            f"{self.found[0].get('data')} passed with warnings. {self.body}"  # which of the mapped versions it is
        )
        return super().execute(context)
