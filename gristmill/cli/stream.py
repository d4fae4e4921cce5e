"""`trace` and `bench stream`: the commands around streaming."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

import typer

from gristmill.cli.options import AsJson
from gristmill.errors import InputError, UsageError

bench_app = typer.Typer(help="Measure on this machine.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command()(trace)
    bench_app.command("stream")(bench_stream)
    app.add_typer(bench_app, name="bench")


def trace(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATASET", help="What was streamed: a dataset, a folder of Parquet files or a mix file."
        ),
    ],
    state: Annotated[str, typer.Option("--state", help="The loader's state, as JSON.")],
    step: Annotated[int | None, typer.Option("--step", help="List the rows of this step.")] = None,
    uid: Annotated[str | None, typer.Option("--uid", help="List the steps of this row.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Look so many epochs ahead; else as many as the run has.")] = None,
    plan: Annotated[str | None, typer.Option(help="The plan file of packed sequences, if the run has one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which rows were or will be in a training step, or in which steps a row is. Nothing is logged for it: the state is enough."""
    from gristmill.storage.stream.lookup import open_run

    if (step is None) == (uid is None):
        raise UsageError("give either --step K or --uid UID")
    run = open_run(data, _read_state(state), epochs=epochs, plan=plan)
    found = run.row(uid) if uid is not None else run.step(step or 0)
    if as_json:
        print(json.dumps(found))
    elif uid is not None:
        for entry in found["steps"]:
            print(f"{entry['step']}{'' if entry['done'] else '  to come'}")
    else:
        for row in found["rows"]:
            print(f"{row['uid']}  {row['file']}  row group {row['row_group']}, row {row['row']}")


def bench_stream(
    data: Annotated[str, typer.Argument(metavar="DATASET", help="A dataset, a folder of Parquet files or a mix file.")],
    split: Annotated[str | None, typer.Option(help="The split.")] = None,
    global_batch_size: Annotated[int, typer.Option(help="Rows in a global batch.")] = 512,
    shuffle_bytes: Annotated[int, typer.Option(help="Bytes of row groups that are open for the shuffle.")] = 2**30,
    columns: Annotated[
        str | None, typer.Option(help="The columns to read, separated by commas; all by default.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads that read and decode.")] = None,
    seconds: Annotated[float, typer.Option(help="How long to iterate after the first batch.")] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Stream for some seconds: rows/s, MB/s, time to first batch, and how well the batches are mixed."""
    from gristmill.storage.stream import stream
    from gristmill.storage.stream.measure import measure

    names = columns.split(",") if columns else None
    loader = stream(
        data,
        split,
        global_batch_size,
        shuffle_bytes=shuffle_bytes,
        columns=names,
        threads=threads,
        rank=0,
        world_size=1,
        require_verdict=False,
    )
    found = measure(loader, seconds)
    if as_json:
        print(json.dumps(dataclasses.asdict(found)))
        return
    print(
        f"{found.rows_per_second:,.0f} rows/s, {found.bytes_per_second / 1e6:,.0f} MB/s ({found.rows:,} rows in {found.seconds:.1f} s)"
    )
    print(f"first batch after {found.first_batch * 1e3:,.0f} ms")
    print(f"a batch draws on {found.groups:.1f} row groups; rows drawn at random from all would on {found.ideal:.1f}")


def _read_state(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise InputError(f"can't read the state '{path}': {error.strerror}", path=path) from error
    except ValueError as error:
        raise InputError(
            f"'{path}' is not JSON: {error}; write it with json.dump(loader.state_dict(), file)", path=path
        ) from error
