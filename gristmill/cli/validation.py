"""`validate`, `profile` and `labels`: the commands that judge and describe data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gristmill.cli.options import AsJson, counted, print_outcome
from gristmill.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from gristmill.validators.gate import Kept
    from gristmill.validators.profile import ColumnProfile, Profile
    from gristmill.validators.verdict import Verdict

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="A dataset (optionally with @VERSION), or Parquet, CSV or JSONL files, a folder or a glob."
    ),
]
Several = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA...",
        help="A dataset (optionally with @VERSION), or Parquet, CSV or JSONL files, folders or globs.",
    ),
]
Split = Annotated[str | None, typer.Option(help="Only this split of a dataset.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command()(validate)
    app.command()(profile)
    app.command()(labels)


def validate(
    data: Several,
    suite: Annotated[str, typer.Option(help="The suite's file: Great Expectations' JSON.")],
    quarantine: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Write good and bad rows here, bad ones with all that they failed."),
    ] = None,
    report: Annotated[str | None, typer.Option(metavar="FILE.html", help="Write the report here.")] = None,
    split: Split = None,
    result_format: Annotated[str, typer.Option(help="BOOLEAN_ONLY, BASIC, SUMMARY or COMPLETE.")] = "SUMMARY",
    parameters: Annotated[
        list[str] | None,
        typer.Option("--parameter", metavar="NAME=VALUE", help="A value for a $PARAMETER of the suite; repeatable."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Of hashes and numbers, what is held before they go to a file in TMPDIR; 256MiB if not given."
        ),
    ] = None,
    approximate: Annotated[
        bool,
        typer.Option(
            "--approximate", help="Estimate distinct counts and quantiles in bounded memory; the verdict is not kept."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Judge data by a suite. Exit status 1 if a critical expectation fails. A dataset version keeps its verdict."""
    from gristmill.pipelines.sizes import parse_size
    from gristmill.validators.gate import judge_data, keep
    from gristmill.validators.report import render
    from gristmill.validators.spill import DEFAULT_MEMORY
    from gristmill.validators.suites import load_suite

    judged = judge_data(
        data if len(data) > 1 else data[0],
        load_suite(suite, _parameters(parameters or [])),
        split=split,
        result_format=result_format,
        memory=DEFAULT_MEMORY if memory is None else parse_size(memory),
        approximate=approximate,
    )
    kept = keep(judged) if judged.dataset is not None else None
    if report is not None:
        Path(report).parent.mkdir(parents=True, exist_ok=True)
        Path(report).write_text(render(judged.facts), encoding="utf-8")
    if quarantine is not None:
        from gristmill.validators.quarantine import write_quarantine

        write_quarantine(judged.verdict, judged.data, quarantine)
    if as_json:
        print(json.dumps({**judged.facts.verdict, **({"path": kept.path, "report": kept.report} if kept else {})}))
    else:
        _print_verdict(judged.verdict, kept, report, quarantine)
    if not judged.verdict.success:
        raise typer.Exit(1)


def profile(
    data: Data,
    suite: Annotated[
        str | None, typer.Option(metavar="OUT.json", help="Write a suggested suite here; it holds on this data.")
    ] = None,
    split: Split = None,
    trend: Annotated[bool, typer.Option("--trend", help="Show the metrics of the last versions instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what data holds, column by column; suggest a suite."""
    if trend:
        _print_trend(data, as_json=as_json)
        return
    from gristmill.validators.profile import profile as take_profile
    from gristmill.validators.suggest import suggest_for

    found = take_profile(data, split=split)
    made: dict[str, Any] | None = None
    if suite is not None:
        target = Path(suite)
        made = suggest_for(data, found, target.stem, split=split)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if as_json:
        print(
            json.dumps(
                {
                    **found.to_json_dict(),
                    **({"suite": suite, "expectations": len(made["expectations"])} if made else {}),
                }
            )
        )
        return
    _print_profile(found)
    if made is not None:
        print(
            f"wrote {suite}: {counted(len(made['expectations']), 'expectation')}, each with its reason; all hold on this data"
        )


def labels(
    data: Data,
    probabilities: Annotated[str, typer.Option(help="The column of out-of-sample class probabilities: lists.")],
    label: Annotated[str, typer.Option(help="The column of given labels: class numbers or names.")] = "label",
    classes: Annotated[
        str | None,
        typer.Option(
            help="The names of the classes in the order of the probabilities, with commas; sorted by default."
        ),
    ] = None,
    out: Annotated[str | None, typer.Option(metavar="FILE.parquet", help="Write the suspects here.")] = None,
    split: Split = None,
    as_json: AsJson = False,
) -> None:
    """List suspected wrong labels, the least likely first."""
    from gristmill.storage.folder import open_folder
    from gristmill.storage.parquet import write_table
    from gristmill.validators.inputs import open_data
    from gristmill.validators.labels import suspected_labels

    found = suspected_labels(
        open_data(data, split=split), probabilities, label, classes.split(",") if classes else None
    )
    if out is not None:
        target = Path(out)
        write_table(open_folder(str(target.parent)), target.name, found.suspects)
    if as_json:
        print(json.dumps({"rows": found.rows, "classes": found.classes, "suspects": found.suspects.to_pylist()}))
        return
    print(f"{counted(found.rows, 'labelled row')}, {counted(found.suspects.num_rows, 'suspect')}")
    for row in found.suspects.slice(0, 20).to_pylist():
        given, better = (f"{row[name]} ({row[f'{name}_probability']:.2f})" for name in ("given", "suggested"))
        print(f"  {row['uid'] or 'row ' + str(row['row'])}: {given}, probably {better}")
    if out is not None:
        print(f"wrote {out}")


def _print_verdict(verdict: Verdict, kept: Kept | None, report: str | None, quarantine: str | None) -> None:
    from gristmill.validators.gate import short_failures

    held = verdict.statistics["successful_expectations"]
    print(
        f"{verdict.data_name}: {counted(verdict.num_rows, 'row')}, {held:,} of {counted(len(verdict.results), 'expectation')} hold, {verdict.seconds:.1f} s"
    )
    outcome = {"suite": verdict.suite_name, "success": verdict.success, "failed": short_failures(verdict.results)}
    places = {
        "report": report or (kept.report if kept else None),
        "bad_rows": quarantine or (kept.bad_rows if kept else None),
    }
    print_outcome({**outcome, **places})
    if kept is not None:
        print(f"  verdict: {kept.path}")


def _parameters(given: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--parameter {text}: write NAME=VALUE, such as limit=100")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _print_profile(found: Profile) -> None:
    print(f"{counted(found.rows, 'row')}, {counted(len(found.columns), 'column')}")
    lines = [["column", "type", "missing", "different", "least", "median", "greatest", "most frequent"]]
    lines += [_line(column) for column in found.columns.values()]
    widths = [min(max(len(line[i]) for line in lines), 30) for i in range(len(lines[0]))]
    for line in lines:
        print("  " + "  ".join(f"{cell[:width]:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _line(column: ColumnProfile) -> list[str]:
    missing = (column.nulls + column.nans) / max(column.rows, 1)
    numbers = column.numbers
    measures = column.kind in ("number", "time") or numbers is None or not numbers.count
    least, most = (column.low, column.high) if measures else (numbers.low, numbers.high) if numbers else (None, None)
    middle = "" if numbers is None or not numbers.count else _shown(column.value(numbers.at(0.5)))
    unit = "" if measures or column.kind == "boolean" else " long"
    different = "" if column.distinct is None else f"{'~' if column.distinct_error else ''}{column.distinct:,}"
    often = [
        f"{str(value)[:24]} ({count / max(column.present, 1):.0%})" for value, count in column.top[:2] if count > 1
    ]
    ends = [f"{_shown(value)}{unit}" if value is not None else "" for value in (least, most)]
    return [
        column.name,
        column.type,
        f"{missing:.1%}" if missing else "0",
        different,
        ends[0],
        f"{middle}{unit if middle else ''}",
        ends[1],
        ", ".join(often),
    ]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _print_trend(data: str, *, as_json: bool) -> None:
    from gristmill.storage.dataset import open_dataset
    from gristmill.validators.history import trend, unusual_metrics

    dataset = open_dataset(data)
    table = trend(dataset)
    unusual = unusual_metrics(dataset)
    if as_json:
        print(json.dumps({"metrics": table.to_pylist(), "unusual": sorted(unusual)}))
        return
    lines = [table.column_names, *_rows(table)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        mark = "  unusual" if line[0] in unusual else ""
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() + mark)


def _rows(table: pa.Table) -> list[list[str]]:
    return [["" if value is None else _shown(value) for value in row.values()] for row in table.to_pylist()]
