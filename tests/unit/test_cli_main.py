"""The command line itself: quick to answer, exact in what it refuses."""

import asyncio
import os
import socket
import subprocess
import sys

import pytest

from cli.checkpoints import place_checkpoints
from cli.home import Home
from cli.up import listen
from cli.usage import parse_time_ms
from core.errors import SetupError

PROGRAM = (sys.executable, "-P", "-m", "cli.main")


def call(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, env={**os.environ, **env}, check=False
    )


def test_help_and_version_load_nothing_heavy():
    heavy = ("sqlalchemy", "alembic", "redis", "torch", "fastapi", "pydantic_settings")
    code = f"import sys, cli.main; sys.exit(', '.join(set({heavy!r}) & set(sys.modules)) or 0)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert call("--version").stdout.startswith("tramontane ")


def test_a_wrong_command_line_is_exit_code_2():
    assert call("up", "--port", "many").returncode == 2
    assert call("run", "nothing").returncode == 2


def test_what_must_be_put_right_first_is_one_sentence_and_exit_code_1(tmp_path):
    broken = tmp_path / "broken.toml"
    broken.write_text('[plans.development\nweight = "heavy"\n')
    home = tmp_path / "home"
    for how in ([], ["--detach"]):
        answer = call("up", *how, TRAMONTANE_CONFIG=str(broken), TRAMONTANE_HOME=str(home))
        assert answer.returncode == 1
        assert answer.stderr.count("\n") == 1
        assert "broken.toml is not valid TOML" in answer.stderr
        assert not home.exists()


def test_nothing_runs_here(tmp_path):
    home = str(tmp_path / "home")
    assert call("down", TRAMONTANE_HOME=home).stderr == f"Nothing runs on {home}.\n"
    for asked in (("usage",), ("keys", "list"), ("keys", "create", "--name", "n")):
        assert "There is no installation" in call(*asked, TRAMONTANE_HOME=home).stderr
    answer = call("status", "--json", TRAMONTANE_HOME=home)
    assert answer.returncode == 1
    assert '"ready": false' in answer.stdout


def test_a_taken_port_and_a_wrong_address_are_one_sentence():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(SetupError, match=rf"127\.0\.0\.1:{port} cannot be listened on \(address already in use\)"):
            listen("127.0.0.1", port)
    with pytest.raises(SetupError, match="choose another"):
        listen("203.0.113.1", 0)
    with listen("::1", 0) as six:
        assert six.family == socket.AF_INET6


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("1700000000", 1_700_000_000_000),
        ("1700000000.5", 1_700_000_000_500),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000_000),
        ("2023-11-14 22:13:20", 1_700_000_000_000),
    ],
)
def test_since_takes_iso_8601_and_seconds(text, at_ms):
    assert parse_time_ms(text) == at_ms


def test_since_refuses_the_rest():
    with pytest.raises(SetupError, match="neither ISO 8601 nor seconds"):
        parse_time_ms("yesterday")


async def test_demo_checkpoints_are_put_in_place_once(tmp_path):
    notes = []
    assert await asyncio.wait_for(place_checkpoints(Home(tmp_path), ["mistral-tiny"], os.environ, notes.append), 20)
    assert notes == ["Linking mistral-tiny"]
    assert (tmp_path / "models" / "mistral-tiny" / "config.json").is_file()
    again = await asyncio.wait_for(place_checkpoints(Home(tmp_path), ["mistral-tiny"], os.environ, notes.append), 20)
    assert not again
    assert len(notes) == 1


async def test_a_maker_of_stand_ins_that_fails_is_told_with_its_words(tmp_path):
    notes = []
    with pytest.raises(SetupError, match=r"(?s)could not be put in place \(exit code 1\).*No module named"):
        await asyncio.wait_for(place_checkpoints(Home(tmp_path), ["x"], os.environ, notes.append, "no_such_module"), 20)
    assert notes
