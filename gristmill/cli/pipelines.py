"""`run`, `plan`, `init`, `explain` and `schema`: the commands around a pipeline file."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gristmill.cli.options import AsJson, DatasetPath, Settings, counted, print_outcome, size
from gristmill.errors import UsageError, capped

if TYPE_CHECKING:
    from gristmill.pipelines.places import FileRecords

LISTED = 100  # quarantined records of a file


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    for command in (run, plan, init, explain, schema):
        app.command()(command)


def run(
    pipeline: Annotated[str, typer.Argument(help="The pipeline file.")],
    engine: Annotated[str, typer.Option(help="dask or spark.")] = "dask",
    address: Annotated[
        str | None,
        typer.Option(
            help="An existing cluster: Dask's scheduler (tcp://host:8786) or Spark's master (spark://host:7077)."
        ),
    ] = None,
    conf: Annotated[list[str] | None, typer.Option(help="A setting of Spark; repeatable.", metavar="KEY=VALUE")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Items worked on at a time; as many as cores by default.")
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds after which a cluster that has no workers is given up.")
    ] = 120.0,
    memory: Annotated[str | None, typer.Option(help="What all workers together may hold, such as 1.5GB.")] = None,
    scratch: Annotated[str | None, typer.Option(help="Folder for work files; OUTPUT/_work by default.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ignore finished work.")] = False,
    candidate: Annotated[
        bool, typer.Option("--candidate", help="Publish nothing: leave a candidate for validate, publish or reject.")
    ] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline to a published version. The same command resumes after a crash and does only what is new."""
    from gristmill.pipelines.run import run as run_pipeline

    result = run_pipeline(
        pipeline,
        engine=engine,
        address=address,
        conf=_pairs(conf or []),
        workers=workers,
        wait=wait,
        memory=memory,
        scratch=scratch,
        fresh=fresh,
        candidate=candidate,
        settings=settings or [],
    )
    if as_json:
        print(json.dumps(result.to_json_dict()))
    else:
        _print_result(result)
    if result.verdict is not None and not result.verdict["success"]:
        raise typer.Exit(1)


def _pairs(settings: list[str]) -> dict[str, str]:
    """KEY=VALUE texts as a mapping."""
    for setting in settings:
        if "=" not in setting:
            raise UsageError(f"--conf {setting}: write KEY=VALUE, such as spark.executor.memory=4g")
    return dict(setting.split("=", 1) for setting in settings)


def _print_result(result: Any) -> None:
    counts = result.counts
    state = f"published version {result.version}"
    if result.candidate:
        state = f"candidate {result.candidate}; now: gristmill publish {result.path}@{result.candidate}, or reject"
    elif not result.published:
        held = "no row is new" if result.rows else "nothing new"
        state = f"{held}: version {result.version} holds this already"
    made = f" + {counts['created']:,} created" if counts["created"] else ""
    fates = " + ".join(f"{counts[fate]:,} {fate}" for fate in ("kept", "dropped", "quarantined"))
    print(f"{result.path}: {state}\n  {counts['read']:,} read{made} = {fates}")
    if result.rows:
        before, added, after = (result.rows[name] for name in ("before", "added", "after"))
        print(f"  {before:,} rows before + {added:,} added = {after:,}")
    elif not counts["kept"]:
        print("gristmill: no row was kept: is the kind of each source right, and are the rules meant?", file=sys.stderr)
    for name, totals in result.steps.items():
        did = [f"{totals[fate]:,} {fate}" for fate in ("dropped", "quarantined", "created") if totals.get(fate)]
        rules = sorted(totals.get("rules", {}).items(), key=lambda pair: (-pair[1], pair[0]))
        if did or rules:
            print(
                f"  {name}: {', '.join(did) or 'edited'} ({capped((f'{rule} {count:,}' for rule, count in rules), 6)})"
            )
    if result.splits:
        print("  splits: " + ", ".join(f"{name} {rows:,}" for name, rows in result.splits.items()))
    if result.verdict is not None:
        print_outcome(result.verdict)
    reused = counted(result.reused_items, "finished item")
    print(f"  {result.seconds['total']:.1f} s, {reused} reused; report: {result.report_path}")


def plan(
    pipeline: Annotated[str, typer.Argument(help="The pipeline file.")],
    scratch: Annotated[str | None, typer.Option(help="Folder for work files, as for run.")] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run would read, redo and why; changes nothing."""
    from gristmill.pipelines.outlook import plan as plan_run

    found = plan_run(pipeline, scratch=scratch, settings=settings or [])
    if as_json:
        print(json.dumps(found))
        return
    version = found["newest_version"]
    print(f"{found['pipeline']} -> {found['output']} ({f'newest version {version}' if version else 'no version yet'})")
    read = [item for item in found["items"] if item["action"] == "read"]
    total = counted(len(found["items"]), "item")
    print(f"  read {len(read)} of {total}, {size(sum(item['bytes'] for item in read))}")
    for item in read[:20]:
        print(f"    {item['item']}: {item['reason']}")
    if len(read) > 20:
        print(f"    and {len(read) - 20} more")
    base = found["appends_to"]
    if base:
        print(
            f"  append to version {base['version']}: its {counted(base['rows'], 'row')} in {counted(base['shards'], 'shard')} stay; "
            f"to compare with them, read {base['read']} of the shards, {size(base['read_bytes'])}"
        )
    for name in found["removed_files"][:20]:
        print(f"    {name}: no longer there; its rows leave")
    for part in found["segments"]:
        print(f"  {' > '.join(part['steps']) or 'no steps'}: {part['action']} ({part['reason']})")


def init(folder: Annotated[str, typer.Argument(help="A new or empty folder.")]) -> None:
    """Make a small working pipeline to edit: a pipeline file and some raw text."""
    from gristmill.pipelines.starter import make_starter

    path = make_starter(Path(folder))
    print(f"made {path}; now: gristmill run {shlex.quote(str(path))}")


def explain(
    dataset: DatasetPath,
    uid: Annotated[str | None, typer.Argument(help="The row's _uid.")] = None,
    file: Annotated[
        str | None,
        typer.Option(help="In place of the uid: a file that was read. Alone it lists what of it is quarantined."),
    ] = None,
    line: Annotated[
        int | None, typer.Option(min=1, help="The line of that file, or the row of a Parquet file, from 1.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """One row's whole story: where it came from, what each step did to it, where it is now."""
    from gristmill.pipelines.explain import explain_row, story

    if (uid is None) == (file is None) or (line is not None and file is None):
        raise UsageError(
            "say which row: its _uid, or --file FILE --line N; --file FILE alone lists what of the file is quarantined"
        )
    position = run = None
    if file is not None:
        from gristmill.pipelines.places import file_records
        from gristmill.storage.dataset import open_dataset

        records = file_records(open_dataset(dataset), file)
        record = (
            records.record_of_line(line, file)
            if line is not None
            else records.record(file) or records.record(records.place)
        )
        if record is None:
            _print_quarantined(records, as_json=as_json)
            return
        (uid, position), run = record, records.run
    assert uid is not None
    found = explain_row(dataset, uid, position=position, run=run)
    print(json.dumps(found) if as_json else story(found))


def _print_quarantined(records: FileRecords, *, as_json: bool) -> None:
    rows = records.quarantined()
    if as_json:
        print(json.dumps({"file": records.place, "run": records.run, "quarantined": len(rows), "rows": rows[:LISTED]}))
        return
    by = f" by a run that published nothing ({records.run})" if records.run else ""
    print(f"{records.place}: {counted(len(rows), 'record')} quarantined{by}")
    for row in rows[:LISTED]:
        print(f"  {row['position']}: {row['step']}, {row['rule']}; uid {row['uid']}")
    if len(rows) > LISTED:
        print(f"  and {len(rows) - LISTED:,} more")


def schema() -> None:
    """Print the JSON Schema of pipeline files."""
    from gristmill.pipelines.model import Pipeline

    print(json.dumps(Pipeline.model_json_schema(by_alias=True), indent=2))
