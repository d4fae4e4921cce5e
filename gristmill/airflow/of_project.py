"""Operators of a project's pipeline files. A file is read when its task runs: one that was mended counts as soon as the task is cleared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from gristmill.airflow.operators import GristmillPlanOperator, GristmillRunOperator, GristmillValidateOperator
from gristmill.airflow.project import (
    SUITES,
    PipelineFile,
    find_pipelines,
    find_suite,
    find_writer,
    read_pipeline,
)
from gristmill.airflow.summaries import absolute


class ProjectPlanOperator(GristmillPlanOperator):
    """The plan of a pipeline file, which also says whether its suite can be used and whether nobody else writes its dataset.

    cwd: the project. moment: what `{date}` and `{hour}` mean, in ISO format. destination, suite: in place of the file's own, "" for those.
    """

    template_fields: Sequence[str] = (*GristmillPlanOperator.template_fields, "moment", "destination", "suite")

    def __init__(self, *, moment: str, destination: str | None = None, suite: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.moment = moment
        self.destination = destination
        self.suite = suite

    def pre_execute(self, context: Any) -> None:
        """See the class."""
        file = _read(self)
        self.settings = file.settings
        if suite := self.suite or file.suite:
            self.settings = [*file.settings, f"validate.suite={json.dumps(suite)}"]
        self._refuse_others(file)

    def _refuse_others(self, file: PipelineFile) -> None:
        folder, moment = Path(str(self.cwd)), datetime.fromisoformat(self.moment)
        others = [path for path in find_pipelines(folder) if path != file.path]
        for other in (read_pipeline(path, folder, moment) for path in others):
            if file.output and other.output and same_place(file.output, other.output, folder):
                raise AirflowFailException(
                    f"'{file.path}' and '{other.path}' both write {file.output}: give each an output.path of its own, "
                    "else one publishes what the other's suite has refused"
                )


class ProjectRunOperator(GristmillRunOperator):
    """A run of a pipeline file, with the name of its dataset's `asset`. Arguments as of ProjectPlanOperator."""

    template_fields: Sequence[str] = (*GristmillRunOperator.template_fields, "moment", "destination")

    def __init__(self, *, moment: str, destination: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.moment = moment
        self.destination = destination
        self._asset: str | None = None

    def pre_execute(self, context: Any) -> None:
        """See the class."""
        file = _read(self)
        self.settings, self._asset = file.settings, file.asset

    def summary(self, result: dict[str, Any]) -> Any:
        return {**super().summary(result), "asset": self._asset}


class ProjectValidateOperator(GristmillValidateOperator):
    """The verdict of the suite that is given, else that of the pipeline file that makes the data, else of `suites/NAME.json` of the project `cwd`.

    pipeline: the file; None looks which of the project's writes the dataset.
    """

    template_fields: Sequence[str] = (*GristmillValidateOperator.template_fields, "pipeline", "moment")

    def __init__(self, *, pipeline: str | None = None, moment: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.moment = moment

    def pre_execute(self, context: Any) -> None:
        """See the class."""
        folder, file = Path(str(self.cwd)), self._file()
        if self.suite in (None, "", "None"):
            self.suite = file.suite if file else find_suite(folder, super().proposed_suite().removesuffix(".json"))
        if file and file.suite and self.suite and same_place(self.suite, file.suite, folder):
            self.parameters = file.parameters

    def proposed_suite(self) -> str:
        file = self._file()
        return f"{SUITES}/{file.name}.json" if file else f"{SUITES}/{super().proposed_suite()}"

    def _file(self) -> PipelineFile | None:
        folder = Path(str(self.cwd))
        if self.pipeline and self.moment:
            return read_pipeline(self.pipeline, folder, datetime.fromisoformat(self.moment))
        return find_writer(folder, self.data.rpartition("@")[0])


def same_place(one: str, other: str, folder: Path) -> bool:
    """Whether two paths or URLs of a project are one."""
    return absolute(one, str(folder)).rstrip("/") == absolute(other, str(folder)).rstrip("/")


def _read(task: ProjectPlanOperator | ProjectRunOperator) -> PipelineFile:
    given = {"destination": task.destination or None}
    return read_pipeline(task.pipeline, Path(str(task.cwd)), datetime.fromisoformat(task.moment), given)
