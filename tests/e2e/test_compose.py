"""docker-compose.yml, profile demo, run without Docker: compose_world.py says what stands in for it.

The demo checkpoints are made and served as written. Of profile gpu the workers run with the echo engine in place of
vLLM, since there is no card: `engine` in their configuration, and a cell of their own, are all that is changed.
"""

import contextlib
import json
import re
import shlex
import signal
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from mistralai.client import Mistral

from tests.compose_file import ROOT, own_services
from tests.e2e.compose_world import BOUND_S, END_S, ComposeWorld, postgres, until
from tests.unit.test_monitoring import metrics_asked_for

TALK = [{"role": "user", "content": "Tell me about the wind."}]
TIERS = ("mistral-tiny", "mistral-small", "mistral-medium")
pytestmark = pytest.mark.timeout(900)  # on a busy machine most of it is loading torch five times


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compose")
    folder.chmod(0o755)
    made = ComposeWorld(folder)
    made.install()
    subprocess.run([ROOT / "deploy" / "make-secrets", folder / "secrets"], check=True, capture_output=True, timeout=60)
    with postgres(made):
        try:
            made.start_redis()
            for name in ("migrate", "weights"):
                made.start(name)
            assert {name: made.finished(name) for name in ("migrate", "weights")} == {"migrate": 0, "weights": 0}
            serving = made.own(profile="demo")
            for name in serving:
                made.start(name)
            for name in serving:
                made.wait_until_healthy(name)
            yield made
        finally:
            made.close()


@pytest.fixture(scope="module")
def key(world):
    """Made by the command that docs/deployment.md gives."""
    page = (ROOT / "docs" / "deployment.md").read_text()
    (command,) = re.findall(r"^docker compose run --rm gateway (tramontane keys create .*)$", page, re.MULTILINE)
    return json.loads(world.run("gateway", *shlex.split(command), "--json"))["key"]


@pytest.fixture(scope="module")
def client(world, key):
    return Mistral(api_key=key, server_url=world.base_url)


def test_all_of_our_services_are_started(world):
    rest = {name for name, service in own_services(world.services).items() if service.get("restart") == "no"}
    started = set(world.own(profile="demo")) | set(world.own(profile="gpu")) | rest
    assert started == set(own_services(world.services))
    assert rest == {"migrate", "weights", "hub"}
    assert world.run("hub", *world.argv("hub")).startswith("Usage: hf")


def test_the_processes_run_what_the_image_holds_and_no_torch_in_the_gateways(world):
    where = world.run("gateway", "python", "-c", "import gateway; print(gateway.__file__)")
    assert where.startswith(str(world.folder / "site"))
    with pytest.raises(AssertionError, match="ModuleNotFoundError: torch"):
        world.run("gateway", "python", "-c", "import torch")


def test_redis_keeps_what_it_is_given_and_refuses_strangers(world):
    def redis(*words, known=True):
        password = "REDISCLI_AUTH=$(cat $SECRET) " if known else ""
        env = world.environment("redis") | {"SECRET": str(world.folder / "secrets" / "redis_password")}
        argv = ["sh", "-c", f"{password}redis-cli -p {world.redis_port} {' '.join(words)}"]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=BOUND_S, check=True).stdout

    assert "NOAUTH" in redis("ping", known=False)
    assert redis("config", "get", "maxmemory-policy").split() == ["maxmemory-policy", "noeviction"]
    assert "aof_enabled:1" in redis("info", "persistence").split()


@pytest.mark.parametrize("tier", TIERS)
def test_each_tier_answers_a_stock_client(client, tier):
    answer = client.chat.complete(model=tier, messages=TALK, max_tokens=8)
    assert answer.model == tier
    assert 0 < answer.usage.completion_tokens <= 8


def test_a_stream_ends_with_its_usage(client):
    events = list(client.chat.stream(model="mistral-tiny", messages=TALK, max_tokens=12, random_seed=7))
    assert len(events) > 1
    whole = client.chat.complete(model="mistral-tiny", messages=TALK, max_tokens=12, random_seed=7)
    assert events[-1].data.usage == whole.usage
    assert "".join(event.data.choices[0].delta.content or "" for event in events) == whole.choices[0].message.content


def test_embeddings_are_the_models_own(client):
    answer = client.embeddings.create(model="mistral-embed", inputs=["a cat", "a kitten", "interest rates"])
    cat, kitten, rates = (each.embedding for each in answer.data)

    def likeness(one, other):
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert len(cat) == 384
    assert likeness(cat, kitten) > likeness(cat, rates) + 0.2


def test_usage_reaches_the_books_and_they_agree(world, client):
    def requests():
        rows = json.loads(world.run("gateway", "tramontane", "usage", "--json"))["rows"]
        return sum(row["requests"] for row in rows)

    before = requests()
    client.chat.complete(model="mistral-small", messages=TALK, max_tokens=3)
    assert requests() == before + 1
    assert world.run("gateway", "tramontane", "books", "check")


def test_no_key_no_answer(world):
    body = {"model": "mistral-tiny", "messages": TALK}
    assert httpx.post(f"{world.base_url}/v1/chat/completions", json=body, timeout=BOUND_S).status_code == 401


def test_a_gateway_celery_and_a_worker_export_what_dashboard_and_alerts_ask_for(world):
    """The check of the books runs a while after the start."""

    def missing():
        others = (f"http://127.0.0.1:{world.metrics_ports[name]}" for name in ("celery", "demo-tiny"))
        urls = (world.base_url, *others)
        text = "".join(httpx.get(f"{url}/metrics", timeout=BOUND_S).text for url in urls)
        return metrics_asked_for() - {"up"} - set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))

    until(lambda: not missing(), missing)


def test_every_other_process_serves_metrics_of_its_own(world, client):
    client.chat.complete(model="mistral-small", messages=TALK, max_tokens=3)
    shown = {}
    for name in set(world.own(profile="demo")) - {"gateway"}:
        answer = httpx.get(f"http://127.0.0.1:{world.metrics_ports[name]}/metrics", timeout=BOUND_S)
        shown[name] = answer.text
        assert re.search(r"^process_resident_memory_bytes [1-9]", answer.text, re.MULTILINE), name
    tokens = {
        name: set(re.findall(r'^tramontane_worker_tokens_total{tier="(.*?)"}', text, re.MULTILINE))
        for name, text in shown.items()
    }
    assert {name: tiers for name, tiers in tokens.items() if tiers} == {
        **{f"demo-{tier.removeprefix('mistral-')}": {tier} for tier in TIERS},
        "embed": {"mistral-embed"},
    }
    assert "tramontane_books_findings" in shown["celery"]


def test_gpu_workers_start_as_written_and_drain(world, monkeypatch):
    config = world.folder / "gpu.toml"
    config.write_text(
        (ROOT / "deploy" / "tramontane.gpu.toml").read_text().replace('engine = "vllm"', 'engine = "echo"')
    )
    monkeypatch.setattr(world, "config", config)
    names = sorted(set(world.own(profile="gpu")) - set(world.own(profile="demo")))
    assert names == ["worker-medium", "worker-small", "worker-tiny"]
    for name in names:
        world.start(name, TRAMONTANE_CELL="c1")
    for name in names:
        world.wait_until_healthy(name)
    assert [world.stop(name) for name in names] == [0, 0, 0]


def test_the_proxy_speaks_tls_and_shows_nothing_of_the_inside(world, key):
    """Caddy itself, with the file as written but for ports and the gateway's name."""
    world.start_proxy()
    root = world.folder / "certificates" / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    inside = f"http://127.0.0.1:{world.inside_port}/health/ready"
    until(lambda: root.exists() and answers(inside), lambda: world.log("proxy").read_text()[-3000:])
    context = ssl.create_default_context(cafile=root)
    url = f"https://localhost:{world.https_port}"
    # Its own certificate comes a moment after that of its authority.
    until(lambda: answers(f"{url}/docs", context), lambda: world.log("proxy").read_text()[-3000:])
    with httpx.Client(base_url=url, verify=context, timeout=BOUND_S) as proxied:
        for path in ("/metrics", "/health/ready", "/health/live"):
            assert proxied.get(path).status_code == 404
        told = proxied.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
        assert {tier["id"] for tier in told.json()["data"]} >= set(TIERS)
        assert "max-age" in told.headers["strict-transport-security"]
        body = {"model": "mistral-tiny", "messages": TALK, "max_tokens": 8, "stream": True}
        answer = proxied.post("/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"})
        assert answer.text.strip().endswith("data: [DONE]")
    plain = httpx.get(f"http://localhost:{world.http_port}/docs", timeout=BOUND_S)
    assert (plain.status_code, plain.headers["location"]) == (308, "https://localhost/docs")
    assert world.stop("proxy") == 0


def test_the_proxy_sends_each_event_of_a_stream_at_once(world, monkeypatch):
    """Its upstream sends the second event only after the client has the first: held back, both would wait for ever."""
    seen = threading.Event()

    class Upstream(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"data: 1\n\n")
            self.wfile.write(b"data: 2\n\n" if seen.wait(END_S) else b"data: held back\n\n")

        def log_message(self, *_arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Upstream) as upstream:
        serving = threading.Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            monkeypatch.setattr(world, "gateway_port", upstream.server_port)
            world.start_proxy()
            url = f"http://127.0.0.1:{world.inside_port}/stream"
            until(lambda: listens(world.inside_port), lambda: world.log("proxy").read_text()[-3000:])
            with httpx.stream("GET", url, timeout=BOUND_S) as answer:
                lines = filter(None, answer.iter_lines())
                assert next(lines) == "data: 1"
                seen.set()
                assert list(lines) == ["data: 2"]
            assert world.stop("proxy") == 0
        finally:
            upstream.shutdown()
            serving.join()


def answers(url, verify=True):
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, verify=verify, timeout=BOUND_S).status_code == 200
    return False


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_sigterm_drains_every_service(world, key):
    """In the order in which Compose stops them: gateways first, and an open stream ends as it should."""
    body = {"model": "mistral-tiny", "messages": TALK, "max_tokens": 300, "stream": True}
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{world.base_url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=BOUND_S) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        world.processes["gateway"].send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert first.startswith("data: ")
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] in {"stop", "length"}
    assert not world.healthy("gateway")
    codes = {"gateway": world.finished("gateway")}
    for name in world.own(profile="demo"):
        if name != "gateway":
            codes[name] = world.stop(name)
    codes["redis"] = world.stop("redis")
    assert codes == dict.fromkeys(codes, 0)
    assert set(codes) == {*world.own(profile="demo"), "redis"}
