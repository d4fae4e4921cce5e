"""The end of a run whose pipeline has `validate:`: the result waits as a candidate, is judged, and is published only as the block says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gristmill.pipelines.model import Validate
from gristmill.storage.candidates import candidate_name, propose_version, publish_candidate
from gristmill.storage.dataset import Dataset
from gristmill.storage.folder import Folder
from gristmill.storage.versions import Published

if TYPE_CHECKING:
    from gristmill.validators.gate import Kept
    from gristmill.validators.suites import Suite


@dataclass(frozen=True)
class Gated:
    """What became of the result, and the verdict: None where it waits unjudged."""

    published: Published
    judged: Kept | None

    def summary(self) -> dict[str, Any] | None:
        """suite, success, failed (a text for each expectation that fails), report, bad_rows, path: of the verdict."""
        if self.judged is None:
            return None
        from gristmill.validators.gate import short_failures

        judged = self.judged
        named = {
            "suite": judged.verdict["suite"],
            "success": judged.success,
            "failed": short_failures(judged.verdict["results"]),
        }
        return {**named, "report": judged.report, "bad_rows": judged.bad_rows, "path": judged.path}


def checked_suite(block: Validate) -> Suite:
    """The block's suite, every expectation of it checked.

    Raises:
        InputNotFoundError, SuiteError: no such file, no suite, or an expectation that can't be evaluated as written.
    """
    from gristmill.validators.gate import not_empty
    from gristmill.validators.inputs import of_tables
    from gristmill.validators.plan import plan_suite
    from gristmill.validators.suites import load_suite

    suite = not_empty(load_suite(block.suite, block.parameters))
    plan_suite(suite, of_tables([pa.table({})], "nothing"))
    return suite


def publish_gated(folder: Folder, block: Validate, suite: Suite, *, candidate: bool, **result: Any) -> Gated:
    """Publishes what passes. result: as for `publish`. candidate: it waits as it is, and nothing is judged.

    The candidate is written before it is judged and is gone once it is published: a crash leaves it to the next run. A version that holds the
    same already is judged only if it has no verdict yet.
    """
    from gristmill.validators.gate import gate_entry, judge

    proposed = propose_version(folder, gate=[gate_entry(suite)], **result)
    if candidate:
        return Gated(proposed, None)
    dataset = Dataset(folder, proposed.manifest)
    judged = judge(dataset, suite, again=False, consequence=_consequence(block, dataset))
    if proposed.manifest.version:
        return Gated(proposed, judged)
    if judged.success or block.on_failure == "publish_unverified":
        return Gated(publish_candidate(folder, candidate_name(proposed.manifest)), judged)
    return Gated(proposed, judged)


def _consequence(block: Validate, dataset: Dataset) -> str:
    """What a report of a failure says about the version."""
    if dataset.version:
        return ""
    if block.on_failure == "publish_unverified":
        return "Published all the same: streaming this version needs require_verdict=False"
    return f"Not published. Settle it with: gristmill publish {dataset.name}, or gristmill reject {dataset.name}"
