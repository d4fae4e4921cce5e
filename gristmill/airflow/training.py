"""The last steps before training: the loader streams the mix, then the training command runs."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from gristmill.airflow import summaries
from gristmill.airflow.accepted import write_text
from gristmill.airflow.base import GristmillOperator

NOT_STARTED = (126, 127)  # what /usr/bin/env ends with where the program can't be run, or isn't there


class GristmillStreamCheckOperator(GristmillOperator):
    """steps, rows, columns and the first batches' rows of a mix or dataset, streamed as training will. Fails where the loader refuses it.

    stream: arguments of `gristmill.stream`, such as {"split": "train", "global_batch_size": 512}. batches: how many are read.
    """

    template_fields: Sequence[str] = (*GristmillOperator.template_fields, "mix", "stream")

    def __init__(self, *, mix: str, stream: Mapping[str, Any] | None = None, batches: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mix = mix
        self.stream = stream
        self.batches = batches

    def execute(self, context: Context) -> Any:
        """See the class."""
        options = json.dumps(dict(self.stream or {}))
        command = [
            self.python or sys.executable,
            "-m",
            "gristmill.airflow.stream_check",
            self.mix,
            str(self.batches),
            options,
        ]
        found = self.start(command, shlex.join(command)).result or {}
        self.log.info("%s", summaries.in_a_line(found))
        return found

    def next_step(self) -> str:
        before = " and ".join(sorted(self.upstream_task_ids)) or self.task_id
        return f"mend the mix, or the datasets, and clear {before}"


class GristmillTrainOperator(GristmillOperator):
    """The mix that was trained on. command: a line without a shell, such as `torchrun --nproc-per-node=2 train.py`; without one the task is skipped.

    The command finds the mix's file in GRISTMILL_MIX and the stream's arguments, as JSON, in GRISTMILL_STREAM, and programs of `python`'s environment
    first in PATH; `{mix}` in it is replaced by that path too. All that it prints is the task's log. It is tried again whatever its exit status, but where it can't be started:
    it should resume from its own checkpoint.
    """

    template_fields: Sequence[str] = (*GristmillOperator.template_fields, "command_text", "mix", "stream")

    def __init__(
        self, *, command: str | None, mix: str, stream: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.command_text = command
        self.mix = mix
        self.stream = stream

    def execute(self, context: Context) -> Any:
        """See the class."""
        if self.command_text in (None, "", "None"):
            raise AirflowSkipException(f"no training command: {self.mix} is ready")
        programs = os.path.dirname(self.python or sys.executable)
        env = {
            "GRISTMILL_MIX": self.mix,
            "GRISTMILL_STREAM": json.dumps(dict(self.stream or {})),
            "PYTHONUNBUFFERED": "1",  # what it prints is in the log at once
            "PATH": os.pathsep.join([programs, os.environ.get("PATH", os.defpath)]),
        }
        line = [word.replace("{mix}", self.mix) for word in shlex.split(str(self.command_text))]
        finished = self.launch(["/usr/bin/env", *line], shlex.join(line), env, only_log=True)
        if finished.status:
            text = finished.said(shlex.join(line))
            raise (AirflowFailException if finished.status in NOT_STARTED else AirflowException)(text)
        write_text(Path(self.mix).with_suffix(".trained"), "")
        return {"mix": self.mix, "command": self.command_text}
