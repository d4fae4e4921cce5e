"""The `gristmill` command: its groups of commands, exit status and error texts."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from gristmill import __version__
from gristmill.cli import datasets, erasure, pipelines, stream, validation
from gristmill.errors import GristmillError

INTERRUPTED, UNREAD = 130, 141  # what shells expect of a program that Ctrl-C, or a closed pipe, has ended

app = typer.Typer(
    name="gristmill",
    help="Raw data in; clean, de-duplicated, validated, versioned Parquet shards out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
pipelines.register(app)
datasets.register(app)
erasure.register(app)
validation.register(app)
stream.register(app)


def _version(value: bool) -> None:
    if value:
        print(f"gristmill {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Exit status: 0 fine, 1 the data failed a check, 2 bad usage or bad input, 3 the run failed (run it again to resume)."""


def main() -> None:
    """Runs the command line and exits with its status; errors go to stderr as one text, with a traceback only under --debug."""
    debug = "--debug" in sys.argv
    if debug:  # allowed anywhere on the line
        sys.argv = [sys.argv[0], *[word for word in sys.argv[1:] if word != "--debug"]]
    try:
        status = app(prog_name="gristmill", standalone_mode=False)  # typer.Exit comes back as its number
        sys.stdout.flush()
        if status == INTERRUPTED:
            _stopped()
        sys.exit(status if isinstance(status, int) else 0)
    except GristmillError as error:
        _fail(str(error), error, error.exit_status, debug=debug)
    except (typer.Abort, KeyboardInterrupt):
        _stopped()
    except BrokenPipeError:
        _reader_left()
    except SystemExit as stop:  # click turns a broken pipe into status 1, which is ours for data that failed a check
        if isinstance(stop.__context__, BrokenPipeError):
            _reader_left()
        raise
    except Exception as error:  # noqa: BLE001  the last resort: one line instead of a traceback
        if hasattr(error, "format_message"):  # click's own usage errors
            _fail(f"{error.format_message()} ({_help_for(error)})", error, 2, debug=debug)
        _fail(f"{type(error).__name__}: {error}", error, 3, debug=debug)


def _stopped() -> NoReturn:
    print("gristmill: stopped; the same command resumes", file=sys.stderr)
    sys.exit(INTERRUPTED)


def _reader_left() -> NoReturn:
    """Ends as a process does whose output nobody reads any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    sys.exit(UNREAD)


def _help_for(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return f"see {context.command_path if context else 'gristmill'} --help"


def _fail(text: str, error: BaseException, status: int, *, debug: bool) -> NoReturn:
    if debug:
        import traceback

        traceback.print_exception(error)
    print(f"gristmill: {text}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
