"""What the console shows under Getting started runs as it stands, against a running platform."""

import os
import subprocess
import sys

import pytest

from gateway.console.snippets import KEY_VARIABLE, clients_for
from tests.e2e.installation import BOUND_S, UP, Installation

CLIENTS = [client.id for client in clients_for("", "x", "y")]
BREAK = "\f"
RUN_ALL = f"""
import runpy, sys
for path in sys.argv[1:]:
    runpy.run_path(path, run_name="__main__")
    print({BREAK!r})
"""


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    made = Installation(tmp_path_factory.mktemp("started"))
    made.ok(*UP)
    yield made
    made.ok("down")


@pytest.fixture(scope="module")
def clients(installation):
    base_url = installation.quick("status")["base_url"]
    return {client.id: client for client in clients_for(base_url, "mistral-tiny", "mistral-embed")}


@pytest.fixture(scope="module")
def environment(installation):
    made = installation.quick("keys", "create", "--org", "default", "--name", "started")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TRAMONTANE_", "MISTRAL_"))}
    return {**clean, KEY_VARIABLE: made["key"]}


@pytest.mark.parametrize("name", CLIENTS)
def test_the_programs_run(clients, environment, tmp_path, name):
    client = clients[name]
    paths = [tmp_path / f"{example.id}.{client.language}" for example in client.examples]
    for path, example in zip(paths, client.examples, strict=True):
        path.write_text(f"{example.text}\n")
    told = _run(client.language, paths, environment)
    assert len(told) == 3
    assert all(told), told
    if client.language == "python":
        assert told[2].startswith("2 vectors of ")
    else:
        assert '"choices"' in told[0]
        assert told[1].endswith("data: [DONE]")
        assert '"embedding"' in told[2]


def _run(language, paths, environment):
    """What each program prints. Those in Python share a process: loading a client takes seconds."""
    if language == "python":
        told = _output([sys.executable, "-c", RUN_ALL, *map(str, paths)], environment).split(BREAK)
        return [each.strip() for each in told[: len(paths)]]
    return [_output(["bash", str(path)], environment).strip() for path in paths]


def _output(argv, environment):
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=BOUND_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
