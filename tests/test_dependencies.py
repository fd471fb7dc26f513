"""What the platform imports, an installation without the tests' own packages has."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_architecture import ROOMS, ROOT, imports, modules

ELSEWHERE = {"vllm"}  # has an environment of its own
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def reached(roots):
    """Names of these packages and of all that they need here."""
    found, todo = set(), [Requirement(root) for root in roots]
    while todo:
        one = todo.pop()
        name = canonicalize_name(one.name)
        if (name, *sorted(one.extras)) in found:
            continue
        found |= {name, (name, *sorted(one.extras))}
        for text in requires(name) or ():
            need = Requirement(text)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *one.extras)):
                todo.append(need)
    return {name for name in found if isinstance(name, str)}


def test_every_package_that_the_platform_imports_is_installed_with_it():
    known = modules(ROOT)
    installed = reached([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["models"]])
    packages = packages_distributions()
    missing = {}
    for name, path in known.items():
        for root in {each.partition(".")[0] for each in imports(name, path, set(known))}:
            if root in {*ROOMS, *ELSEWHERE, *sys.stdlib_module_names}:
                continue
            if not {canonicalize_name(one) for one in packages.get(root, ())} & installed:
                missing.setdefault(root, name)
    assert missing == {}


def test_what_only_tests_have_would_be_found():
    assert "httpx" in reached(PROJECT["dependencies"])
    assert not {re.split(r"[=<>\[]", one)[0] for one in ("pytest==1", "playwright==1")} & reached(
        PROJECT["dependencies"]
    )
