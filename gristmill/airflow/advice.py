"""What to do next about a task that failed, for alerts. Tasks are cleared in the UI: the command line clears those of all runs."""

from __future__ import annotations

from typing import Any


def is_version(name: str) -> bool:
    """Whether what follows the @ of a dataset is a version's number, not a candidate's name."""
    return name.isdecimal() and len(name) < 16


def look_and_settle(task: Any, data: str, *, suite: bool = True) -> str:
    """What to do about data that failed a check: a candidate can be made again or rejected, a version replaced or rolled back. suite: it failed one."""
    dataset, at, name = str(data).rpartition("@")
    mend = f", or mend the suite and clear {task.task_id}" if suite else ""
    if not at:
        return f"read the log; mend the data and clear {task.task_id}{mend}"
    if is_version(name):
        again, settle = "mend the source and run its pipeline again", f"gristmill rollback {dataset} VERSION"
    else:
        again, settle = f"mend the source and clear {makers(task)}", f"gristmill reject {data}"
    return f"gristmill show {data}; {again}{mend}, or: {settle}"


def makers(task: Any) -> str:
    """The tasks before this one that make data, by their ids."""
    before = task.upstream_list if task.has_dag() else []
    names = [each.task_id for each in before if getattr(getattr(each, "operator_class", each), "makes_data", False)]
    return " and ".join(sorted(names)) or "the task that made it"
