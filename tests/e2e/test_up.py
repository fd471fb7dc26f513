"""An operator with one machine, over the real command: up, keys, a call, usage, down, and what goes wrong."""

import json
import os
import signal
import subprocess

import httpx
import pytest

from cli.state import alive, read_state
from tests.e2e.installation import BOUND_S, PROGRAM, UP, Installation, key_in, until


@pytest.fixture
def installation(tmp_path):
    made = Installation(tmp_path)
    yield made
    made.call("down")


def test_up_keys_a_call_usage_down_and_again(installation):
    first = installation.ok(*UP)
    shown = key_in(first)
    assert shown is not None
    assert "\x1b" not in first
    status = installation.json("status")
    assert status["ready"] is True
    assert {process["name"] for process in status["processes"]} >= {
        "gateway",
        "console",
        "worker",
        "embed",
        "collector",
        "celery",
    }
    assert all(process["healthy"] for process in status["processes"])
    assert set(status["tiers"]) == {"mistral-tiny", "mistral-small", "mistral-medium", "mistral-embed"}

    made = installation.json("keys", "create", "--workspace", "default", "--name", "tests")
    told = [installation.chat(key, max_tokens=7).json()["usage"] for key in (shown, made["key"], made["key"])]
    rows = {row["key_id"]: row for row in installation.json("usage")["rows"]}
    assert rows[made["id"]]["requests"] == 2
    assert sum(row["requests"] for row in rows.values()) == 3
    for count in ("prompt_tokens", "completion_tokens"):
        assert sum(row[count] for row in rows.values()) == sum(usage[count] for usage in told)
    assert installation.json("usage", "--since", "2100-01-01T00:00:00Z") == {"rows": []}

    after = installation.json("status")
    assert after["tiers"]["mistral-tiny"] == {"queued": 0, "running": 0, "workers": 1}
    assert (after["reservations_open"], after["usage_lag"]) == (0, 0)

    installation.ok("down")
    assert not any(alive(process) for process in read_state(installation.home).processes)
    assert installation.json("usage")["rows"] == list(rows.values())

    again = installation.ok(*UP)
    assert key_in(again) is None
    assert "$TRAMONTANE_API_KEY" in again
    assert installation.chat(made["key"]).status_code == 200
    listed = installation.json("keys", "list")["keys"]
    assert [key["name"] for key in listed] == ["first key", "tests"]
    assert shown not in json.dumps(listed)

    installation.ok("keys", "revoke", made["id"])
    models_url = installation.json("status")["base_url"] + "/v1/models"
    assert httpx.get(models_url, headers={"Authorization": f"Bearer {made['key']}"}).status_code == 401
    assert httpx.get(models_url, headers={"Authorization": f"Bearer {shown}"}).status_code == 200
    assert installation.chat(made["key"]).status_code == 401
    assert installation.chat(shown).status_code == 200


def test_two_installations_run_side_by_side_and_know_nothing_of_each_other(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = Installation(tmp_path / "a"), Installation(tmp_path / "b")
    try:
        key = key_in(one.ok(*UP, "--tiers", "mistral-tiny"))
        two.ok(*UP, "--tiers", "mistral-tiny", "--gateways", "2")
        names = [process["name"] for process in two.json("status")["processes"]]
        assert {"gateway-1", "gateway-2"} <= set(names)
        assert "embed" not in names
        assert one.chat(key).status_code == 200
        assert two.chat(key).status_code == 401

        port = one.json("status")["base_url"].rpartition(":")[2]
        two.ok("down")
        refused = two.call("up", "--detach", "--port", port)
        assert refused.returncode == 1
        assert f"127.0.0.1:{port} cannot be listened on" in refused.stderr
        assert two.call("status").returncode == 1

        doubled = one.call("up", "--port", "0")
        assert doubled.returncode == 1
        assert "already runs" in doubled.stderr
        assert one.chat(key).status_code == 200
    finally:
        one.call("down")
        two.call("down")


def test_what_dies_is_started_again_and_a_killed_supervisor_leaves_nothing(installation):
    key = key_in(installation.ok(*UP, "--tiers", "mistral-tiny"))
    before = _processes(installation)
    assert {process.name for process in before} == {"redis", "collector", "celery", "worker", "console", "gateway"}
    for process in before:
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: not any(alive(process) for process in before))
    until(lambda: all(alive(process) for process in _processes(installation)))
    until(lambda: _is_ready(installation))
    assert installation.chat(key).status_code == 200

    state = read_state(installation.home)
    os.kill(state.supervisor.pid, signal.SIGKILL)
    until(lambda: not alive(state.supervisor))
    installation.ok(*UP, "--tiers", "mistral-tiny")  # ends what may be left, and starts
    assert not any(alive(process) for process in state.processes)
    assert installation.chat(key).status_code == 200


def test_ctrl_c_stops_everything(installation):
    argv = [*PROGRAM, "up", "--engine", "echo", "--tiers", "mistral-tiny", "--port", "0"]
    env = {**os.environ, "TRAMONTANE_HOME": str(installation.home.root), "TRAMONTANE_CONFIG": str(installation.config)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env) as running:
        lines = []
        until(lambda: "Stop it with Ctrl-C" in (lines.append(running.stdout.readline()) or lines[-1]))
        processes = _processes(installation)
        running.send_signal(signal.SIGINT)
        rest, _ = running.communicate(timeout=BOUND_S)
        assert running.returncode == 0
    assert "Stopped" in rest
    assert processes
    assert not any(alive(process) for process in processes)


def test_a_broken_line_or_a_process_that_cannot_start_leaves_nothing_behind(installation):
    good = installation.config.read_text()
    installation.config.write_text(good.replace("slots = 48", "slots = 0", 1))
    answer = installation.call(*UP)
    assert answer.returncode == 1
    assert "mistral-tiny.slots" in answer.stderr
    assert not installation.home.root.exists()

    installation.config.write_text(good.replace('tokenizer = "v1"', 'tokenizer = "/no/such/file"', 1))
    answer = installation.call(*UP)
    assert answer.returncode == 1
    assert "did not start" in answer.stderr
    assert installation.call("status").returncode == 1
    assert not any(alive(process) for process in _processes(installation))

    installation.config.write_text(good)
    assert installation.json("keys", "list") == {"keys": []}, "the key that is shown once is made last"


def _is_ready(installation) -> bool:
    answer = installation.call("status", "--json")
    return answer.returncode == 0 and json.loads(answer.stdout)["ready"]


def _processes(installation):
    return read_state(installation.home).processes
