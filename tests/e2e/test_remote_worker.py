"""A worker beside the platform, as on another machine: it knows the tiers and the Redis URL, and nothing else."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from cli.state import read_state
from core.heartbeat import read_beat
from tests.e2e.installation import BOUND_S, PROGRAM, UP, Installation, until

TIER = "mistral-tiny"


@pytest.fixture
def installation(tmp_path):
    made = Installation(tmp_path)
    yield made
    made.call("down")


@contextlib.contextmanager
def worker(installation, folder):
    """`tramontane run worker --tier mistral-tiny`, under an interpreter that the tier names; its own empty home."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    config = folder / "tiers.toml"
    here, there = f"[tiers.{TIER}]", f'[tiers.{TIER}]\ninterpreter = "{python}"'
    config.write_text(installation.config.read_text().replace(here, there))
    beat = folder / "beat"
    env = {
        "PATH": os.environ["PATH"],
        "TRAMONTANE_CONFIG": str(config),
        "TRAMONTANE_ENGINE": "echo",
        "TRAMONTANE_HEARTBEAT_FILE": str(beat),
        "TRAMONTANE_HOME": str(folder / "home"),
        "TRAMONTANE_REDIS_URL": read_state(installation.home).redis_url,
    }
    with subprocess.Popen([*PROGRAM, "run", "worker", "--tier", TIER], env=env) as process:
        try:
            until(lambda: ((found := read_beat(beat)) and found.ready) or process.poll() is not None)
            assert process.poll() is None
            yield process
        finally:
            process.kill()


def workers(installation) -> int:
    return installation.json("status")["tiers"][TIER]["workers"]


def test_a_worker_elsewhere_serves_its_tier_with_nothing_but_redis(installation, tmp_path):
    said = installation.ok(*UP, "--tiers", TIER)
    key = next(word for word in said.split() if word.startswith("tmt_"))
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    with worker(installation, folder) as process:
        until(lambda: workers(installation) == 2)
        [own] = [one for one in read_state(installation.home).processes if one.name == "worker"]
        os.kill(own.pid, signal.SIGSTOP)  # what it has taken is lost after its lease; the other one serves
        try:
            answers = [installation.chat(key, f"number {i}") for i in range(3)]
        finally:
            os.kill(own.pid, signal.SIGCONT)
        assert [answer.status_code for answer in answers] == [200] * 3
        assert all(answer.json()["usage"]["completion_tokens"] == 32 for answer in answers)
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND_S) == 0
        until(lambda: workers(installation) == 1)
    assert not (folder / "home").exists() or not list((folder / "home").iterdir()), "no SQL, no keys, no state"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("gateway", "--tier", TIER), "only a worker"), (("worker", "--tier", "none"), "There is no tier none")],
)
def test_what_cannot_be_run_is_one_sentence(installation, arguments, says):
    answer = installation.call("run", *arguments)
    assert answer.returncode in {1, 2}
    assert says in answer.stderr
