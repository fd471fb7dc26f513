"""What holds for the package as a whole."""

import ast
import importlib.util
import pkgutil
import re
from pathlib import Path

import pytest

import tramontane
from tramontane import testing
from tramontane.wire.calls import VERSION

SDK = Path(__file__).parents[1]
SOURCES = sorted((SDK / "tramontane").rglob("*.py"))
OURS = {"core", "gateway", "billing", "workers", "embed", "batch", "cli", "demo"}
NEEDED = {"tramontane", "httpx", "anyio"}
STANDARD = {
    *("__future__", "argparse", "base64", "collections", "dataclasses", "datetime", "email", "enum", "functools"),
    *("inspect", "json", "os", "random", "secrets", "struct", "sys", "time", "types", "typing", "urllib"),
}


def test_the_shell_without_async_is_the_other_one():
    spec = importlib.util.spec_from_file_location("make_sync", SDK / "make_sync.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = module.written()
    assert {path.name for path in written} == {path.name for path in (SDK / "tramontane" / "_sync").glob("*.py")}
    for path, text in written.items():
        assert path.read_text(encoding="utf-8") == text, f"run make_sync.py: {path.name} differs"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(SDK)))
def test_each_file_is_python_3_9_imports_little_and_is_small(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 9))
    assert text.count("\n") <= 400
    checked = {id(child) for node in ast.walk(tree) if is_type_checking(node) for child in ast.walk(node)}
    named = set()
    for node in ast.walk(tree):
        if id(node) in checked:
            continue
        if isinstance(node, ast.Import):
            named |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            named.add(node.module.split(".")[0])
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < 70
    assert not named & OURS
    assert named <= NEEDED | STANDARD
    if "wire" in path.parts:
        assert not named & {"httpx", "anyio", "time", "random", "secrets", "os"}


def is_type_checking(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def test_everything_can_be_imported():
    for found in pkgutil.walk_packages(tramontane.__path__, "tramontane."):
        importlib.import_module(found.name)
    assert all(hasattr(tramontane, name) for name in tramontane.__all__)


def test_one_version():
    assert re.search(r'^version = "(.*)"$', (SDK / "pyproject.toml").read_text(), re.MULTILINE).group(1) == VERSION
    assert tramontane.__version__ == VERSION


def test_clocks_of_the_product_go_forward():
    timing = tramontane._sync.client.Timing()
    assert timing.now_s() <= timing.now_s()
    assert timing.wall_s() > 1.7e9
    assert 0 <= timing.chance() <= 1
    assert timing.new_key() != timing.new_key()
    assert testing.InstantTiming(0.5).chance() == 0.5
