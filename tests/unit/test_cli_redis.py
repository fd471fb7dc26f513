"""The private Redis: reachable by its password only, its data kept, an older binary refused."""

import os
import stat
from pathlib import Path

import pytest
from redis import AuthenticationError, Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cli.home import prepare
from cli.private_redis import (
    Server,
    answers,
    check_data_version,
    find_server,
    private_redis,
    remember_version,
    version_of,
    wait_for_answer,
)
from cli.supervisor import Supervisor
from core.clock import SystemClock
from core.errors import SetupError


def supervisor() -> Supervisor:
    return Supervisor(SystemClock(), lambda _: None, lambda _: None, lambda _name, _pid: None)


async def test_data_survives_and_only_the_password_opens_it(tmp_path):
    home = prepare(tmp_path)
    for life in (1, 2):
        redis = private_redis(home, os.environ)
        running = supervisor()
        await running.start([redis.spec])
        await wait_for_answer(redis.url, running.pause)
        with Redis.from_url(redis.url) as client:
            assert client.incr("lives") == life
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        at_once = Retry(NoBackoff(), 0)
        stranger = Redis(unix_socket_path=str(home.run / "redis.sock"), retry=at_once)
        with stranger, pytest.raises(AuthenticationError):
            stranger.ping()
        password = (home.secrets / "redis_password").read_text().strip()
        assert password not in " ".join(redis.spec.argv)
        await running.stop(lambda _: None)
    for path in (home.secrets / "redis_password", home.run / "redis.conf"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_home_too_deep_for_a_socket_gets_a_loopback_port(tmp_path):
    home = prepare(tmp_path / ("x" * 100))
    redis = private_redis(home, os.environ)
    assert "@127.0.0.1:" in redis.url
    running = supervisor()
    await running.start([redis.spec])
    await wait_for_answer(redis.url, running.pause)
    await running.stop(lambda _: None)
    assert not await answers(redis.url)


def test_data_of_a_newer_redis_is_refused_by_an_older_one(tmp_path):
    home = prepare(tmp_path)
    seven, six = Server(Path("/new"), (7, 2, 4)), Server(Path("/old"), (6, 2, 14))
    check_data_version(home, six)
    remember_version(home, seven)
    check_data_version(home, seven)
    with pytest.raises(SetupError, match=r"was written by Redis 7\.2\.4 and /old is 6\.2\.14"):
        check_data_version(home, six)


@pytest.mark.parametrize(("version", "chosen"), [("7.0.1", True), ("6.0.16", False)])
def test_a_redis_on_the_path_is_taken_if_it_is_new_enough(tmp_path, version, chosen):
    binary = tmp_path / "redis-server"
    binary.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=00000000:0 malloc=libc bits=64 build=0'\n")
    binary.chmod(0o755)
    found = find_server(f"{tmp_path}:/usr/bin:/bin")
    assert (found.binary == binary) == chosen
    assert found.version >= (6, 2)


def test_what_does_not_run_has_no_version(tmp_path):
    assert version_of(tmp_path / "missing") is None
