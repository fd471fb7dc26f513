"""Home, state and leftovers: who holds an installation, what others learn of it, what is cleaned up."""

import os
import stat
import subprocess
import sys

import pytest

from cli.home import Home, is_locked, lock, prepare
from cli.leftovers import end_leftovers
from cli.state import State, alive, describe, read_state, running_state, settings_of, with_processes, write_state
from core.clock import SystemClock
from core.errors import SetupError
from core.settings import PlatformSettings

SLEEPER = (sys.executable, "-I", "-S", "-c", "import time; print(flush=True); time.sleep(600)")


def a_state(**changes) -> State:
    fields = {
        "supervisor": describe("supervisor", os.getpid()),
        "base_url": "http://127.0.0.1:8000",
        "redis_url": "unix://:secret@/tmp/redis.sock",
        "database_url": None,
        "config": "/etc/tramontane.toml",
        "engine": "echo",
        "tiers": "mistral-tiny",
    }
    return State(**{**fields, **changes})


def test_one_platform_for_each_home(tmp_path):
    home = prepare(tmp_path)
    assert not is_locked(home)
    taken = lock(home)
    assert taken is not None
    assert is_locked(home)
    assert lock(home) is None
    os.close(taken)
    assert not is_locked(home)


def test_asking_about_a_home_makes_nothing(tmp_path):
    home = Home(tmp_path / "none")
    assert not is_locked(home)
    assert running_state(home) is None
    assert not home.root.exists()


def test_a_home_that_cannot_be_used_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"cannot be used \(Not a directory\); set TRAMONTANE_HOME"):
        prepare(tmp_path / "file" / "home")


def test_a_disk_that_is_nearly_full_is_one_sentence(tmp_path):
    with pytest.raises(SetupError, match=r"nearly full: \d+ MB are free"):
        prepare(tmp_path, free_bytes_min=2**60)


def test_state_goes_round_and_is_private(tmp_path):
    home = prepare(tmp_path)
    state = with_processes(a_state(), [("worker", os.getpid())])
    write_state(home, state)
    assert read_state(home) == state
    assert running_state(home) is None  # nobody holds the lock
    assert stat.S_IMODE((home.run / "state.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700 or home.root == tmp_path


def test_commands_see_the_settings_of_the_running_platform(tmp_path):
    mine = PlatformSettings(home=tmp_path)
    assert settings_of(mine, None) == mine
    seen = settings_of(mine, a_state(database_url="postgresql://u:p@h/d"))
    assert seen.redis() == "unix://:secret@/tmp/redis.sock"
    assert seen.database() == "postgresql://u:p@h/d"
    assert (seen.engine, seen.tiers) == ("echo", "mistral-tiny")


def test_a_state_of_another_version_is_not_read(tmp_path):
    home = prepare(tmp_path)
    write_state(home, a_state(version=99))
    assert read_state(home) is None


def test_leftovers_of_an_earlier_life_are_ended_and_strangers_are_not(tmp_path):
    home = prepare(tmp_path)
    with subprocess.Popen(SLEEPER, stdout=subprocess.PIPE) as left, subprocess.Popen(SLEEPER, stdout=-1) as stranger:
        for process in (left, stranger):
            process.stdout.readline()  # it runs its own program by now
        state = with_processes(a_state(), [("worker", left.pid)])
        reused = describe("embed", stranger.pid)
        reused = type(reused)(reused.name, reused.pid, "1")  # the id was another process's before
        write_state(home, type(state)(**{**_fields(state), "processes": (*state.processes, reused)}))
        end_leftovers(home, SystemClock())
        assert not alive(state.processes[0])
        assert stranger.poll() is None
        stranger.kill()


def _fields(state: State) -> dict:
    return {name: getattr(state, name) for name in State.__dataclass_fields__}
