"""`show`, `log`, `verify`, `diff`, `rollback`, `gc`, `publish` and `reject`: the commands around a dataset."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

import typer

from gristmill.cli.options import AsJson, DatasetFolder, DatasetPath, counted, size
from gristmill.errors import UsageError

Candidate = Annotated[
    str, typer.Argument(metavar="DATASET@CANDIDATE", help="The dataset, and the first digits of the candidate's name.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    for command in (show, log, verify, diff, rollback, gc, publish, reject):
        app.command()(command)


def show(dataset: DatasetPath, as_json: AsJson = False) -> None:
    """Show a version or candidate: rows, splits, schema, files, fingerprint; and what candidates wait."""
    from gristmill.storage.candidates import NAME_DIGITS, list_candidates
    from gristmill.storage.dataset import open_dataset

    opened = open_dataset(dataset)
    manifest = opened.manifest
    files = opened.file_list
    facts: dict[str, Any] = {
        "path": opened.path,
        "version": opened.version,
        "created": manifest.created,
        "parent": manifest.parent,
        "num_rows": opened.num_rows,
        "splits": opened.splits,
        "schema": {field.name: str(field.type) for field in opened.schema},
        "files": len(files),
        "bytes": sum(files.table["bytes"].to_pylist()),
        "fingerprint": opened.fingerprint,
        "layout": opened.layout,
        "gate": list(manifest.gate),
        "verdicts": opened.verdicts,
        "engine": manifest.engine,
        "counts": dict(manifest.counts),
        "ledger": manifest.ledger,
        "candidates": [found.fingerprint[:NAME_DIGITS] for found in list_candidates(opened.folder)],
    }
    if as_json:
        print(json.dumps(facts))
        return
    within = f"{counted(facts['num_rows'], 'row')} in {counted(facts['files'], 'file')}, {size(facts['bytes'])}"
    print(f"{opened.name}: {within}, made {facts['created']}")
    if facts["splits"]:
        print("  splits: " + ", ".join(f"{name} {rows:,}" for name, rows in facts["splits"].items()))
    for name, kind in facts["schema"].items():
        print(f"  {name}: {kind}")
    if facts["counts"]:
        print("  counts: " + ", ".join(f"{name} {count:,}" for name, count in facts["counts"].items()))
    _print_verdicts(opened)
    print(f"  fingerprint {facts['fingerprint']}\n  layout      {facts['layout']}")
    for name in facts["candidates"]:
        print(f"  candidate {name}: look with show {facts['path']}@{name}, settle with publish or reject")


def _print_verdicts(dataset: Any) -> None:
    from gristmill.storage.stream.gates import outcomes, suite_names

    passed, failed = outcomes(dataset)
    for entry in dataset.manifest.gate:
        state = "passed" if entry in passed else "failed" if entry in failed else "not run yet"
        print(f"  gate: suite {entry.partition('@')[0]} {state}")
    for verdict in dataset.verdicts:
        report = f"; report: {dataset.folder.url(verdict['report'])}" if verdict.get("report") else ""
        name = max(suite_names(verdict) - {verdict.get("suite_hash")}, default="?", key=len).partition("@")[0]
        print(f"  verdict: suite {name} {'passed' if verdict.get('success') else 'failed'}{report}")


def log(dataset: DatasetPath, as_json: AsJson = False) -> None:
    """List the versions, newest first."""
    from gristmill.storage.dataset import open_dataset

    history = open_dataset(dataset).history()
    if as_json:
        print(json.dumps({"versions": history}))
        return
    for entry in history:
        splits = ", ".join(f"{name} {rows:,}" for name, rows in entry["splits"].items())
        print(
            f"v{entry['version']}  {entry['created']}  {counted(entry['num_rows'], 'row')}  {entry['fingerprint'][:12]}{f'  ({splits})' if splits else ''}"
        )


def verify(
    dataset: DatasetPath,
    fast: Annotated[bool, typer.Option("--fast", help="Sizes only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check every file of a version against its manifest. Exit status 1 if something doesn't match."""
    from gristmill.storage.dataset import open_dataset

    opened = open_dataset(dataset)
    problems = opened.verify(fast=fast)
    if as_json:
        print(
            json.dumps(
                {
                    "path": opened.path,
                    "version": opened.version,
                    "whole": not problems,
                    "problems": [dataclasses.asdict(p) for p in problems],
                }
            )
        )
    else:
        for problem in problems:
            print(f"{problem.path}: {problem.what}")
        state = counted(len(problems), "problem") if problems else "whole"
        print(f"{opened.name}: {state} ({counted(len(opened.file_list), 'file')})")
    if problems:
        raise typer.Exit(1)


def diff(
    dataset: DatasetFolder,
    a: Annotated[int, typer.Argument(help="A version.")],
    b: Annotated[int, typer.Argument(help="Another one.")],
    as_json: AsJson = False,
) -> None:
    """Show what changed from version A to version B: schema and rows."""
    from gristmill.storage.dataset import open_dataset

    found = open_dataset(dataset, version=a).diff(open_dataset(dataset, version=b)).to_json_dict()
    if as_json:
        print(json.dumps(found))
        return
    for what, names in found["schema"].items():
        if names:
            print(f"columns {what}: {', '.join(names)}")
    rows = found["rows"]
    print(f"rows: {rows['before']:,} -> {rows['after']:,}")
    for what in ("added", "removed", "changed", "moved"):
        if rows[what]:
            print(
                f"  {what} {rows[what]:,}: {', '.join(found['examples'][what])}{' ...' if rows[what] > len(found['examples'][what]) else ''}"
            )
    if found["same_content"]:
        print("the same content")


def rollback(
    dataset: DatasetFolder,
    version: Annotated[int, typer.Argument(help="The version to go back to.")],
    as_json: AsJson = False,
) -> None:
    """Make a new version with the files of an older one."""
    from gristmill.storage.dataset import open_dataset

    opened = open_dataset(dataset).rollback(version)
    print(
        json.dumps({"version": opened.version, "of": version})
        if as_json
        else f"{opened.path}: version {opened.version} now holds what version {version} held"
    )


def gc(
    dataset: DatasetFolder,
    keep: Annotated[int | None, typer.Option(help="Remove all but the newest versions; keeps all by default.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    scratch: Annotated[
        str | None, typer.Option(help="Folder for work files, as for run: after an erasure those in it go too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove files that no version needs; after `erase`, every byte that may hold erased rows."""
    from gristmill.pipelines.erase import make_physical, run_at_work
    from gristmill.storage.dataset import open_dataset
    from gristmill.storage.gc import gc as collect

    opened = open_dataset(dataset)
    erased = make_physical(opened.path, scratch, dry_run=dry_run)
    busy = run_at_work(opened.path, scratch)
    found = collect(opened.folder, keep, dry_run=dry_run)
    if as_json:
        print(json.dumps({**dataclasses.asdict(found), "erased_files": erased, "run_at_work": busy}))
        return
    if erased:
        print(
            f"{'would remove' if dry_run else 'removed'} what held erased rows: "
            + ", ".join(f"{count} of {kind}" for kind, count in erased.items())
        )
    versions = f"versions {', '.join(map(str, found.versions))}, " if found.versions else ""
    print(
        f"{'would remove' if dry_run else 'removed'} {versions}{counted(len(found.files), 'file')}, {size(found.bytes)}"
    )
    if busy:
        print(
            "  a run is at work: its work files and all that it may be about to publish (files younger than a day) stay; run gc again when it is done"
        )


def publish(candidate: Candidate, as_json: AsJson = False) -> None:
    """Make a candidate the newest version. Its gate stays: streams still ask for the verdict."""
    from gristmill.storage.candidates import publish_candidate
    from gristmill.storage.dataset import open_dataset
    from gristmill.storage.folder import open_folder
    from gristmill.storage.stream.gates import outcomes

    dataset, name = _candidate(candidate)
    version = publish_candidate(open_folder(dataset), name).manifest.version
    opened = open_dataset(dataset, version=version)
    closed = [entry.partition("@")[0] for entry in opened.manifest.gate if entry not in outcomes(opened)[0]]
    if as_json:
        print(json.dumps({"version": version, "candidate": name, "gate_passed": not closed}))
        return
    print(f"{dataset}: candidate {name} is version {version}")
    if closed:
        print(f"  its gate has not been passed (suite {', '.join(closed)}): streaming it needs require_verdict=False")


def reject(candidate: Candidate, as_json: AsJson = False) -> None:
    """Forget a candidate; its files go with a later gc."""
    from gristmill.storage.candidates import reject_candidate
    from gristmill.storage.folder import open_folder

    dataset, name = _candidate(candidate)
    found = reject_candidate(open_folder(dataset), name)
    print(
        json.dumps(found)
        if as_json
        else f"{dataset}: candidate {found['candidate']} ({counted(found['num_rows'], 'row')}) is rejected"
    )


def _candidate(text: str) -> tuple[str, str]:
    """(dataset, candidate) of DATASET@CANDIDATE."""
    dataset, at, name = text.rpartition("@")
    if not at or not name:
        raise UsageError(f"'{text}' names no candidate: write DATASET@CANDIDATE; `gristmill show DATASET` lists them")
    return dataset, name
