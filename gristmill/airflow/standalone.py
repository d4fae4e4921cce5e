"""`airflow standalone` that listens on the loopback address only: the log servers, which listen on all, are left out. Logs are read from their files."""

from __future__ import annotations

from typing import Any

from airflow.cli.commands import standalone_command

WITH_LOG_SERVER = ("scheduler", "triggerer")


class _Part(standalone_command.SubCommand):
    def __init__(self, parent: Any, name: str, command: list[str], env: dict[str, str]) -> None:
        flags = ["--skip-serve-logs"] if name in WITH_LOG_SERVER else []
        super().__init__(parent, name=name, command=[*command, *flags], env=env)


def main() -> None:
    """The command."""
    standalone_command.SubCommand = _Part
    standalone_command.StandaloneCommand().run()


if __name__ == "__main__":
    main()
