"""Promises about money and limits, shown on a whole platform; `--full` runs them at the size that PROMISES names."""

import json
from pathlib import Path

import pytest

from tests.databases import BACKENDS, _numbers, postgres_server, postgres_url
from tests.promises.platform import Platform

__all__ = ["_numbers", "postgres_server", "postgres_url"]

FIGURES = Path("docs/figures/promises-money.json")


@pytest.fixture(scope="session")
def full(request):
    return request.config.getoption("--full")


@pytest.fixture(scope="session")
def figures(full):
    """What was counted, by promise; written down when it was counted at full size."""
    counted = {}
    yield counted
    if full:
        FIGURES.parent.mkdir(parents=True, exist_ok=True)
        FIGURES.write_text(json.dumps(counted, indent=2) + "\n", encoding="utf-8")


@pytest.fixture(params=BACKENDS)
def platform(request, tmp_path):
    """A platform of two gateways on each database, not started yet."""
    settings = {}
    if request.param == "postgres":
        settings["DATABASE_URL"] = request.getfixturevalue("postgres_url")
    made = Platform(tmp_path, request.param, settings)
    yield made
    made.call("down")
