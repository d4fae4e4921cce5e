"""The rules that no linter knows: which way imports go, what is loaded when, sizes, names and what is tracked."""

from __future__ import annotations

import ast
import fnmatch
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("gristmill", "pipelines", "validators", "augment", "storage")

LAYERS = (  # from the bottom up; a module imports from its own package and from packages further down
    ("gristmill.errors",),
    ("gristmill.kernels",),
    ("gristmill.storage",),
    ("gristmill.validators", "gristmill.augment"),
    ("gristmill.pipelines",),
    ("gristmill", "gristmill.cli", "gristmill.airflow"),
)
STREAM, FRAMES, INTEROP = "storage/stream/*", ("pipelines/frames.py", "validators/frames.py"), "storage/interop.py"
ENGINES = ("pipelines/engines/*", *FRAMES, INTEROP)
OWNERS = {
    "airflow": ("gristmill/airflow/*", "airflow_dags/*"),
    "albumentations": ("augment/*",),
    "cv2": ("augment/*", "validators/images.py", STREAM),
    "dask": ENGINES,
    "distributed": ENGINES,
    "great_expectations": ("validators/frames.py", "validators/handover.py"),
    "pandas": (*FRAMES, INTEROP),
    "polars": (*FRAMES, INTEROP),
    "pyspark": ENGINES,
    "simplejpeg": ("augment/*", "validators/images.py", STREAM),
    "torch": ("augment/*", INTEROP, STREAM),
}
MODULE_LINES, FUNCTION_LINES = 500, 60

SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
EVERYWHERE = [
    *SOURCES,
    *sorted(path for folder in ("airflow_dags", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")),
]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    """The name that a file is imported under: pipelines/run.py is gristmill.pipelines.run."""
    parts = [*path.relative_to(ROOT).with_suffix("").parts]
    parts = parts if parts[0] == "gristmill" else ["gristmill", *parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, in functions too; `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def layer(name: str) -> tuple[int, str]:
    """(height, package) of the package that a module belongs to: that of the longest name which begins the module's."""
    found = [
        (len(package), height, package)
        for height, group in enumerate(LAYERS)
        for package in group
        if f"{name}.".startswith(f"{package}.")
    ]
    _, height, package = max(found)
    return height, package


def problems_of_direction(name: str, source: str) -> list[str]:
    """The imports of a module that don't go down."""
    own_height, own = layer(name)
    found = []
    for line, target in imports(ast.parse(source)):
        if not f"{target}.".startswith("gristmill.") or target == "gristmill.__version__":
            continue
        height, package = layer(target)
        if package != own and height >= own_height and own_height < len(LAYERS) - 1:
            found.append(f"{name}:{line} imports {target}")
    return found


def problems_of_ownership(path: str, source: str) -> list[str]:
    """The heavy packages that a file imports and doesn't own."""
    found = [(line, target.partition(".")[0]) for line, target in imports(ast.parse(source))]
    return [
        f"{path}:{line} imports {name}"
        for line, name in found
        if name in OWNERS and not any(fnmatch.fnmatch(path, owner) for owner in OWNERS[name])
    ]


def test_imports_go_down_only():
    assert [problem for path in SOURCES for problem in problems_of_direction(module_name(path), path.read_text())] == []


def test_heavy_packages_stay_in_the_modules_that_own_them():
    tree = [*SOURCES, *(ROOT / "airflow_dags").rglob("*.py")]
    assert [problem for path in tree for problem in problems_of_ownership(relative(path), path.read_text())] == []


def test_the_lints_find_what_they_look_for():
    assert problems_of_direction("gristmill.storage.x", "def f():\n    from gristmill.pipelines.run import run") == [
        "gristmill.storage.x:2 imports gristmill.pipelines.run.run"
    ]
    assert problems_of_direction("gristmill.validators.x", "from gristmill.augment import y") != []
    assert problems_of_direction("gristmill.pipelines.x", "from gristmill import run") != []
    assert (
        problems_of_direction(
            "gristmill.pipelines.x", "import gristmill.validators.suite, os\nfrom gristmill.pipelines.y import z"
        )
        == []
    )
    assert problems_of_ownership("pipelines/run.py", "def f():\n    import torch.utils") == [
        "pipelines/run.py:2 imports torch"
    ]
    assert problems_of_ownership("storage/stream/tensors.py", "import torch") == []


LIGHT = [
    "import gristmill",
    "import gristmill.cli.main",
    "import gristmill; gristmill.open_dataset, gristmill.Dataset, dir(gristmill)",
    "import gristmill.pipelines.loading, gristmill.storage.dataset, gristmill.storage.stream, gristmill.validators, gristmill.augment, gristmill.airflow",
]


@pytest.mark.parametrize("code", LIGHT)
def test_light_imports_load_no_heavy_package(code):
    show = f"import sys; {code}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    heavy = {*OWNERS, "numba", "scipy", "fsspec", "s3fs"} if code == LIGHT[0] else set(OWNERS)
    assert "gristmill" in loaded and loaded & heavy == set()


def test_every_package_is_listed_for_setuptools():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    assert listed == {module_name(path.parent / "__init__.py") for path in SOURCES}, (
        "each folder of modules, and nothing else"
    )
    bare = {relative(path.parent) for path in SOURCES if not (path.parent / "__init__.py").exists()}
    assert bare == set(), "folders without __init__.py"


@pytest.mark.parametrize("path", EVERYWHERE, ids=relative)
def test_sizes_and_the_first_line(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert text.count("\n") <= MODULE_LINES, "a module has at most 500 lines"
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [
        f"{node.name} ({node.end_lineno - node.lineno + 1})" for node in functions if body_lines(node) > FUNCTION_LINES
    ]
    assert long == [], "a function has at most 60 lines"
    assert path.name == "__init__.py" and not text.strip() or ast.get_docstring(tree), (
        "a module says in its first line what it is for"
    )


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function after its signature and docstring."""
    first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
    return (node.end_lineno or 0) - first.lineno + 1


def exporting() -> list[str]:
    return [
        module_name(path)
        for path in SOURCES
        if any(
            isinstance(node, ast.Assign) and "__all__" in ast.unparse(node.targets[0])
            for node in ast.parse(path.read_text()).body
        )
    ]


@pytest.mark.parametrize("name", exporting())
def test_what_is_exported_is_there_and_documented(name):
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__)
    for exported in module.__all__:
        try:
            value = getattr(module, exported)
        except ImportError as error:
            pytest.skip(f"an optional package is missing: {error}")
        assert inspect.isroutine(value) is inspect.isfunction(value)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name}.{exported} has no docstring"


def test_public_names_of_gristmill_are_one_list():
    import gristmill

    lazy = {name: module for name, module in gristmill._PUBLIC.items()}
    typed = {}
    for node in ast.walk(ast.parse((ROOT / "gristmill" / "__init__.py").read_text())):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            typed = {alias.asname or alias.name: line.module for line in node.body for alias in line.names}
    assert lazy == typed, "what type checkers see is what is imported"
    assert sorted(gristmill.__all__) == gristmill.__all__ == dir(gristmill) == sorted([*lazy, "__version__"])
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        gristmill.rum


def test_streaming_without_torch_says_how_to_install_it():
    code = "import sys; sys.modules['torch'] = None; import gristmill; print(gristmill.run); gristmill.stream"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode and "<function run" in done.stdout
    assert (
        "MissingDependencyError: streaming needs PyTorch, which isn't installed: pip install 'gristmill[torch]'"
        in done.stderr
    )


def test_public_methods_say_what_comes_out():
    import gristmill

    bare = []
    for name in gristmill.__all__:
        value = getattr(gristmill, name)
        if inspect.isclass(value):
            own = [(key, item) for key, item in vars(value).items() if not key.startswith("_")]
            bare += [
                f"{name}.{key}"
                for key, item in own
                if (inspect.isfunction(item) or isinstance(item, property)) and not inspect.getdoc(item)
            ]
    assert bare == []


def test_the_version_is_said_once():
    import gristmill

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == gristmill.__version__


MACHINE = re.compile(
    r"(?<![\w.])/(?:work|root|home|Users)/|/tmp/[a-z]|localhost:\d|https?://(?:10|172|192\.168)\.[\d.]+"
)


def test_no_tracked_file_names_a_machine():
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    found = []
    for name in listed.split("\0"):
        path = ROOT / name
        if not name or path == Path(__file__) or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            found += [f"{name}:{number}: {line.strip()[:100]}"] if MACHINE.search(line) else []
    assert found == []


def test_no_error_is_swallowed():
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            broad = isinstance(node, ast.ExceptHandler) and (
                node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            )
            if broad and all(isinstance(line, ast.Pass | ast.Continue) for line in node.body):
                found.append(f"{relative(path)}:{node.lineno}")
    assert found == []
