"""Promises about money and limits, shown on a whole platform; `--full` runs them at the size that PROMISES names."""

import contextlib
import json
import os
import platform as platform_of
import subprocess
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.databases import BACKENDS, _numbers, new_postgres_database, postgres_server, postgres_url
from tests.promises.platform import Platform

__all__ = ["_numbers", "postgres_server", "postgres_url"]

FIGURES = Path("docs/figures/promises-money.json")
FULL_S_MAX = 1_800
GATEWAYS, GATEWAYS_FULL = 3, 16


class ByDatabase(LoadScopeScheduling):
    """Each process has the scenes of one database, and so starts one platform."""

    def _split_scope(self, nodeid):
        return next((backend for backend in BACKENDS if f"[{backend}" in nodeid), nodeid)


def pytest_xdist_make_scheduler(config, log):
    return ByDatabase(config, log)


def pytest_collection_modifyitems(config, items):
    if config.getoption("--full"):
        for item in items:
            item.add_marker(pytest.mark.timeout(FULL_S_MAX), append=False)


@pytest.fixture(scope="session")
def full(request):
    return request.config.getoption("--full")


@pytest.fixture
def figures(full):
    """What a scene counted, by promise; at full size it is written down, beside what stands there, when it is over."""
    counted = {}
    yield counted
    if full and counted:
        known = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
        FIGURES.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**known, **counted, "measured on": machine()}, indent=2, sort_keys=True)
        FIGURES.write_text(text + "\n", encoding="utf-8")


def machine():
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip(),
        "python": platform_of.python_version(),
        "cores": os.cpu_count(),
        "machine": platform_of.machine(),
    }


@pytest.fixture(scope="session", params=BACKENDS)
def platform(request, tmp_path_factory, full):
    """One platform for all scenes, on each database."""
    with contextlib.ExitStack() as stack:
        settings = {}
        if request.param == "postgres":
            server = request.getfixturevalue("postgres_server")
            settings["DATABASE_URL"] = stack.enter_context(new_postgres_database(server, f"promises_{os.getpid()}"))
        made = Platform(tmp_path_factory.mktemp(request.param), request.param, settings)
        stack.callback(made.call, "down")
        made.start(gateways=GATEWAYS_FULL if full else GATEWAYS)
        yield made
