"""The shape of the code, held by a machine: import directions, no cycles, bounded files and functions."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("core", "billing", "gateway", "batch", "workers", "embed", "cli", "demo", "migrations")
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

MAY_IMPORT = {
    "core": set(),
    "billing": {"core"},
    "gateway": {"core", "billing"},
    "batch": {"core", "billing", "gateway"},
    "workers": {"core"},
    "embed": {"core"},
    "demo": {"core"},
    "migrations": {"core", "billing", "gateway"},
    "cli": set(ROOMS),
}
NEVER = {
    "core": {"fastapi", "starlette", "celery", "torch", "transformers", "vllm"},
    "billing": {"fastapi", "starlette", "torch", "transformers"},
    "gateway": {"torch", "vllm", "transformers", "sentence_transformers"},
    "batch": {"torch", "fastapi", "starlette"},
    "workers": {"sqlalchemy", "fastapi", "starlette", "celery"},
    "embed": {"sqlalchemy", "fastapi", "starlette", "celery"},
}
ONLY_IN = {"sqlalchemy": {"core": {"core.db"}}, "celery": {"billing": {"billing.celery_app"}}}


def modules(root: Path) -> dict[str, Path]:
    found = {}
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: set[str]) -> set[str]:
    """Every module named by an import anywhere in the file, hidden ones in functions and TYPE_CHECKING too."""
    out: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            base = node.module or ""
            out |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names}
    return out - {name}


def violations(root: Path) -> list[str]:
    paths = modules(root)
    known = set(paths)
    graph = {name: imports(name, path, known) for name, path in paths.items()}
    problems = []
    for name, targets in graph.items():
        room = name.split(".")[0]
        reached = reachable(name, graph)
        for target in sorted(targets | reached):
            top = target.split(".")[0]
            if top in ROOMS and top != room and target in targets and top not in MAY_IMPORT[room]:
                problems.append(f"{name} imports {target}: {room} may import only {sorted(MAY_IMPORT[room])}")
            if top in NEVER.get(room, set()):
                problems.append(f"{name} reaches {target}: never in {room}")
            only = ONLY_IN.get(top, {}).get(room)
            if only is not None and target in targets and name not in only:
                problems.append(f"{name} imports {target}: only in {sorted(only)}")
        if name in reached:
            problems.append(f"{name} is part of an import cycle")
        problems += size_problems(name, paths[name])
    return problems


def reachable(start: str, graph: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = list(graph[start])
    while todo:
        target = todo.pop()
        if target not in seen:
            seen.add(target)
            todo += graph.get(target, ())
    return seen


def size_problems(name: str, path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    problems = [f"{name} has {lines} lines"] if lines > FILE_LINES_MAX else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                problems.append(f"{name}.{node.name} has {length} lines")
    return problems


def test_the_project_keeps_its_shape():
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("path", "text", "says"),
    [
        ("core/planted.py", "import gateway.app\n", "may import only"),
        ("core/planted.py", "def f():\n    import torch\n", "never in core"),
        ("core/planted.py", "import sqlalchemy\n", "only in"),
        ("workers/planted.py", "from billing import money\n", "may import only"),
        ("embed/planted.py", "import core.db\n", "reaches sqlalchemy"),
        ("gateway/planted.py", "from transformers import AutoModel\n", "never in gateway"),
        ("billing/planted.py", "import billing.other\n", "cycle"),
        ("core/planted.py", "x = 1\n" * 401, "401 lines"),
        ("core/planted.py", "def f():\n" + "    x = 1\n" * 71, "72 lines"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, path, text, says):
    for room in ROOMS:
        (tmp_path / room).mkdir()
    (tmp_path / "core" / "db.py").write_text("import sqlalchemy\n")
    (tmp_path / "billing" / "other.py").write_text("import billing.planted\n")
    (tmp_path / path).write_text(text)
    assert any(says in problem for problem in violations(tmp_path)), violations(tmp_path)
