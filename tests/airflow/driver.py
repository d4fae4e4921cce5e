"""Reads {"dag", "conf", "date"} line by line, runs each with `dag.test` and answers with states, XComs and asset events as one line of JSON."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import sys
import threading
import time


def watch(parent: int) -> None:
    """Ends this process when the tests are gone: a DAG that waits for somebody would wait for ever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main(folder: str) -> None:
    threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what tasks and Airflow print goes to the log
    from airflow.dag_processing.dagbag import DagBag
    from airflow.utils.db import initdb

    initdb()
    for line in sys.stdin:
        wanted = json.loads(line)
        when = dt.datetime.fromisoformat(wanted["date"]).replace(tzinfo=dt.UTC) if wanted["date"] else None
        bag = DagBag(folder)  # anew: dag.test leaves the form's values in the DAG
        assert not bag.import_errors, bag.import_errors
        run = bag.dags[wanted["dag"]].test(logical_date=when, run_conf=wanted["conf"])
        print(json.dumps(found(run), default=str), file=answers, flush=True)


def plain(value):
    """An XCom as the task gave it; links are stored as they are."""
    with contextlib.suppress(TypeError, ValueError):
        return json.loads(value)
    return value


def found(run):
    from airflow.models.asset import AssetEvent
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    def name(task, index):
        return f"{task}[{index}]" if index >= 0 else task

    with create_session() as session:
        xcoms: dict = {}
        for row in session.scalars(select(XComModel).where(XComModel.run_id == run.run_id)):
            xcoms.setdefault(name(row.task_id, row.map_index), {})[row.key] = plain(row.value)
        events = session.scalars(select(AssetEvent).where(AssetEvent.source_run_id == run.run_id)).all()
        events = [
            {
                "asset": event.asset.name,
                "uri": event.asset.uri,
                "extra": event.extra,
                "aliases": [a.name for a in event.source_aliases],
            }
            for event in events
        ]
        tasks = {name(ti.task_id, ti.map_index): ti.state for ti in run.get_task_instances(session=session)}
    return {"state": run.state, "tasks": tasks, "xcoms": xcoms, "events": events}


if __name__ == "__main__":
    main(sys.argv[1])
