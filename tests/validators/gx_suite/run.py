"""Runs Great Expectations' own expectation tests with gristmill as the evaluator: `make gx-suite`.

The tests come from the source distribution of the installed version and stay in build/gx; nothing of them is part of this repository.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

BUILD = Path("build/gx")
TESTS = "tests/integration/data_sources_and_expectations"
NEEDS = [
    "freezegun",
    "py-cpuinfo",
    "pytest-benchmark",
    "pytest-mock",
    "pytest-order",
    "pytest-random-order",
    "pytest-timeout",
    "responses",
    "setuptools",
    "sqlalchemy",
]
KNOWN = {
    f"{TESTS}/expectations/test_expect_column_type_to_be.py::test_column_name_is_resolved_case_insensitively[pandas-data-frame]": (
        "names of columns are exact here; another case is an error that names the column"
    ),
}
"""{id of a test: why gristmill differs}."""


def main() -> int:
    root = Path.cwd()
    release = version("great_expectations")
    source = BUILD / f"great_expectations-{release}"
    if not source.is_dir():
        BUILD.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
        subprocess.run(
            [
                *pip,
                "download",
                "--no-deps",
                "--no-binary",
                "great_expectations",
                "-d",
                str(BUILD),
                f"great_expectations=={release}",
            ],
            check=True,
        )
        with tarfile.open(BUILD / f"great_expectations-{release}.tar.gz") as archive:
            archive.extractall(BUILD, filter="data")
        subprocess.run([*pip, "install", "--target", str(BUILD / "packages"), "--no-deps", *NEEDS], check=True)
    prepare(source)
    deselected = [f"--deselect={name}" for name in KNOWN]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "seam",
        TESTS,
        "-m",
        "unit",
        "-q",
        "-x" if "-x" in sys.argv else "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        *deselected,
        *[a for a in sys.argv[1:] if a != "-x"],
    ]
    paths = [str(root / "tests/validators/gx_suite"), str(source.resolve()), str((BUILD / "packages").resolve())]
    import os

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "GX_ANALYTICS_ENABLED": "false"}
    return subprocess.run(command, cwd=source, env=environment, check=False).returncode


def prepare(source: Path) -> None:
    """Takes away what of their set-up needs a developer's machine: the list of markers, and a locale."""
    markers = [
        line.split(":")[0].strip().strip('",')
        for line in (source / "pyproject.toml").read_text().splitlines()
        if '": ' in line or '": ' in line
    ]
    (source / "pytest.ini").write_text("[pytest]\naddopts = --disable-warnings\nfilterwarnings = ignore\n")
    conftest = source / "tests/conftest.py"
    text = conftest.read_text()
    conftest.write_text(text.replace("locale.setlocale(locale.LC_ALL, ", "(lambda *_: None)(locale.LC_ALL, "))


if __name__ == "__main__":
    raise SystemExit(main())
