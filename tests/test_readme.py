"""What the README shows is what happens: its blocks are run in order, and its links lead somewhere."""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gristmill.pipelines.loading import load_pipeline

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def commands(block: str) -> list[tuple[str, str]]:
    """(command, the output shown) of a console block."""
    parts = re.split(r"^\$ ", block, flags=re.M)
    assert parts[0] == "", "a console block begins with a command"
    return [(command, shown) for command, _, shown in (part.partition("\n") for part in parts[1:])]


def test_blocks_run_and_print_what_is_shown(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    kinds = []
    for kind, content in BLOCK.findall(README):
        kinds.append(kind)
        if kind == "python":
            exec(compile(content, f"README.md: {content.splitlines()[0]}", "exec"), names)
        elif kind == "console":
            for command, shown in commands(content):
                program, *words = shlex.split(command)
                done = subprocess.run(
                    [Path(sys.executable).parent / program, *words], capture_output=True, text=True, timeout=120
                )
                assert done.returncode == (1 if "FAILED" in shown else 0), f"{command}: {done.stderr}"
                same = doctest.OutputChecker().check_output(shown, done.stdout, doctest.ELLIPSIS)
                assert same, f"{command}: the README shows\n{shown}\nit prints\n{done.stdout}"
        else:
            load_pipeline(yaml.safe_load(content))
    assert {kind: kinds.count(kind) for kind in sorted(set(kinds))} == {"console": 3, "python": 5, "yaml": 1}


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))],
    ids=lambda page: page.name,
)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def test_commands_that_the_pages_name_exist():
    from gristmill.cli.main import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands} | {
        group.name for group in app.registered_groups
    }
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        named = set(re.findall(r"(?:^\$ |^ {4}|`)gristmill ([a-z]+)", page.read_text(encoding="utf-8"), re.M))
        assert named <= known, f"{page.name}: {named - known}"
