"""S1: what the gateway costs, beside a bare FastAPI app and LiteLLM proxy, in interleaved rounds on one machine.

    make bench-gateway            writes docs/benchmarks/gateway.md

Each contender runs alone while it is measured, with everything it needs: ours with gateway, worker (echo engine, no
pace), collector and Redis; LiteLLM with a canned upstream. One load process, 1 and 32 callers.
"""

import argparse
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
START_S_MAX = 120.0
CALLERS = (1, 32)


@dataclass(frozen=True)
class Running:
    url: str
    key: str
    model: str


@dataclass
class Contender:
    name: str
    start: Callable[[Path], "contextmanager[Running]"]
    results: dict[int, list[dict[str, float]]] = field(default_factory=dict)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(argv: list[str], **extra_env: str) -> Iterator[subprocess.Popen[bytes]]:
    env = {**os.environ, **extra_env}
    child = subprocess.Popen(argv, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_for(running: Running) -> None:
    """Until the chat route answers 200, or give up."""
    body = json.dumps({"model": running.model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4})
    headers = {"Authorization": f"Bearer {running.key}", "Content-Type": "application/json"}
    deadline = time.monotonic() + START_S_MAX
    while True:
        try:
            request = urllib.request.Request(running.url, body.encode(), headers)
            with urllib.request.urlopen(request, timeout=10):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


@contextmanager
def bare(_state: Path) -> Iterator[Running]:
    port = free_port()
    with process([sys.executable, str(HERE / "bare.py"), str(port)]):
        yield Running(f"http://127.0.0.1:{port}/v1/chat/completions", "none", "bare")


@contextmanager
def litellm(_state: Path) -> Iterator[Running]:
    port, upstream = free_port(), free_port()
    python = ROOT / ".venv-litellm/bin/litellm"
    argv = [str(python), "--config", str(HERE / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(port)]
    with (
        process([sys.executable, str(HERE / "upstream.py"), str(upstream)]),
        process([*argv, "--num_workers", "1"], CANNED_URL=f"http://127.0.0.1:{upstream}", LITELLM_LOG="ERROR"),
    ):
        yield Running(f"http://127.0.0.1:{port}/v1/chat/completions", "sk-benchmark", "canned")


@contextmanager
def tramontane(state: Path) -> Iterator[Running]:
    """The same installation is started again for each round; its key is made once."""
    command = str(Path(sys.executable).parent / "tramontane")
    env = {**os.environ, "TRAMONTANE_HOME": str(state / "home")}
    options = ["--detach", "--port", "0", "--engine", "echo", "--tiers", "mistral-tiny"]
    subprocess.run([command, "up", *options], env=env, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    try:
        key_file = state / "key"
        if not key_file.exists():
            made = subprocess.run(
                [command, "keys", "create", "--workspace", "default", "--name", "benchmark", "--json"],
                env=env, cwd=ROOT, check=True, capture_output=True,
            )  # fmt: skip
            key_file.write_text(json.loads(made.stdout)["key"])
        status = subprocess.run([command, "status", "--json"], env=env, cwd=ROOT, check=True, capture_output=True)
        base_url = json.loads(status.stdout)["base_url"]
        yield Running(f"{base_url}/v1/chat/completions", key_file.read_text(), "mistral-tiny")
    finally:
        subprocess.run([command, "down"], env=env, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def load(running: Running, callers: int, seconds: float) -> dict[str, float]:
    argv = [sys.executable, str(HERE / "load.py"), running.url, "--key", running.key, "--model", running.model]
    argv += ["--callers", str(callers), "--seconds", str(seconds)]
    done = subprocess.run(argv, check=True, capture_output=True, timeout=seconds + 60)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure(contenders: list[Contender], rounds: int, seconds: float, state: Path) -> None:
    for number in range(rounds):
        for contender in contenders:
            with contender.start(state) as running:
                wait_for(running)
                load(running, 8, min(2.0, seconds))  # warm up
                for callers in CALLERS:
                    result = load(running, callers, seconds)
                    contender.results.setdefault(callers, []).append(result)
                    print(
                        f"round {number + 1}: {contender.name:12} {callers:3} callers "
                        f"{result['requests_per_s']:8.0f} requests/s  p50 {result['p50_ms']:7.2f} ms"
                        f"  p99 {result['p99_ms']:7.2f} ms",
                        flush=True,
                    )


def median(contender: Contender, callers: int, name: str) -> float:
    return statistics.median(result[name] for result in contender.results[callers])


def report(contenders: list[Contender], rounds: int, seconds: float) -> str:
    by_name = {contender.name: contender for contender in contenders}
    ours, theirs = by_name["tramontane"], by_name["litellm"]
    rate = median(ours, 32, "requests_per_s") / median(theirs, 32, "requests_per_s")
    latency = median(theirs, 1, "p50_ms") / median(ours, 1, "p50_ms")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=True, capture_output=True)
    rows = [
        f"| {c.name} | {n} | {median(c, n, 'requests_per_s'):.0f} | {median(c, n, 'p50_ms'):.2f} "
        f"| {median(c, n, 'p99_ms'):.2f} |"
        for c in contenders
        for n in CALLERS
    ]
    conditions = (
        f"`make bench-gateway`, commit {commit.stdout.decode().strip()}, {time.strftime('%Y-%m-%d')}, "
        f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, "
        f"fastapi {version('fastapi')}, uvicorn {version('uvicorn')}, LiteLLM proxy 1.106.2 (one worker, no database). "
        f"Medians of {rounds} interleaved rounds of {seconds:.0f} s; one load process; everything on one machine. Ours "
        "runs with everything on: keys, limits, credit, queue, worker (echo engine), settlement, collector, metrics, "
        "Redis with its append-only file."
    )
    return "\n".join(
        [
            "# What the gateway costs (S1)",
            "",
            conditions,
            "",
            "| contender | callers | requests/s | p50 ms | p99 ms |",
            "|---|---:|---:|---:|---:|",
            *rows,
            "",
            f"- Requests per second per gateway process, 32 callers: **{rate:.1f} x LiteLLM** (promise: at least 20).",
            f"- Single caller: LiteLLM's median latency is **{latency:.1f} x ours** (promise: at least 6).",
            f"- The floor: a bare FastAPI app does {median(by_name['bare'], 32, 'requests_per_s'):.0f} requests/s.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--only", help="comma-separated names; prints and writes nothing")
    parser.add_argument("--write", type=Path, default=ROOT / "docs/benchmarks/gateway.md")
    args = parser.parse_args()
    contenders = [Contender("bare", bare), Contender("litellm", litellm), Contender("tramontane", tramontane)]
    if args.only:
        contenders = [contender for contender in contenders if contender.name in args.only.split(",")]
    with tempfile.TemporaryDirectory(prefix="tramontane-bench-") as folder:
        measure(contenders, args.rounds, args.seconds, Path(folder))
    if not args.only:
        text = report(contenders, args.rounds, args.seconds)
        args.write.parent.mkdir(parents=True, exist_ok=True)
        args.write.write_text(text, encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
