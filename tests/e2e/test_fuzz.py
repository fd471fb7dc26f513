"""Bodies of any kind over the wire, with the real engine and a real Redis: never a 500, always an answer that the
OpenAPI document knows, and nothing left behind in Redis by what was refused.
"""

import json
from pathlib import Path

import httpx
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.state import read_state
from core.meter.keys import LAYOUT, cell_key
from core.settings import DEVELOPMENT_CELL
from tests.conformance.document import STREAM, Document, chunks_of
from tests.conformance.world import open_world
from tests.e2e.installation import BOUND_S, until
from tests.unit.test_ask_fuzz import CHAT_BODY, EMBED_BODY, FIM_BODY

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
CELL = cell_key(DEVELOPMENT_CELL)
MODELS = {"v1": "mistral-tiny", "v3": "codestral", "v7": "mistral-small"}
# What a request leaves in Redis: records, answers, claims, queues, counters.
OF_REQUESTS = tuple(
    f"{CELL}:{part}" for part in ("r:", "e:", "f:", "i:", "q:", "age:", "ba:", "u:", "open", "lost", "conc")
)
TOKENS = st.integers(1, 6)
KEYS = st.sampled_from([None, None, "fuzz-1", "fuzz-2"])
MODES = st.sampled_from(["strict", "lenient"])
FEW = settings(
    max_examples=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


class Wire:
    """The running platform, as a caller and as Redis see it. `seen` counts answers by status."""

    def __init__(self, platform):
        self.world, _ = open_world(platform, "fuzz")
        self.document = Document(json.loads(DOCUMENT.read_text()))
        self.redis = redis.Redis.from_url(read_state(platform.home).redis_url)
        self.http = httpx.Client(base_url=self.world.base_url, timeout=BOUND_S)
        self.seen: dict[int, int] = {}

    def left(self) -> dict[bytes, bytes | None]:
        """What requests have left, by key."""
        names = [
            name for name in self.redis.scan_iter(f"{LAYOUT}:*", count=10_000) if name.startswith(BYTES_OF_REQUESTS)
        ]
        with self.redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.dump(name)
            return dict(zip(names, pipe.execute(), strict=True))

    def idle(self) -> bool:
        return self.redis.zcard(f"{CELL}:open") == 0

    def post(self, path, body, *, key=None, **headers) -> httpx.Response:
        before = self.left()
        headers["authorization"] = f"Bearer {key or self.world.key}"
        headers["content-type"] = "application/json"
        answer = self.http.post(path, content=json.dumps(body).encode(), headers=headers)
        kind = answer.headers["content-type"]
        self.document.check("POST", path, answer.status_code, kind, answer.text)
        self.seen[answer.status_code] = self.seen.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400:
            changed = [name for name, value in self.left().items() if value not in (None, before.get(name))]
            assert changed == []  # what is gone had reached its own end
        elif kind.startswith(STREAM):
            reasons = [choice["finish_reason"] for chunk in chunks_of(answer.text) for choice in chunk["choices"]]
            assert "error" not in reasons, answer.text
        until(self.idle)
        return answer


BYTES_OF_REQUESTS = tuple(part.encode() for part in OF_REQUESTS)


@pytest.fixture(scope="module")
def wire(platform):
    made = Wire(platform)
    yield made
    made.http.close()
    made.redis.close()
    assert platform.quick("status")["reservations_open"] == 0


def short(body, tokens):
    """For the tiers that there are, and of few tokens, unless it says what no engine gets to see."""
    if isinstance(body.get("model"), str):
        body = {**body, "model": MODELS.get(body["model"], body["model"])}
    if body.get("max_tokens") in (None, 16, 99):
        body = {**body, "max_tokens": tokens}
    return body


def headers_of(mode, key):
    return {"x-tramontane-mode": mode, **({} if key is None else {"idempotency-key": key})}


@settings(FEW, max_examples=80)
@given(body=CHAT_BODY, tokens=TOKENS, mode=MODES, key=KEYS)
def test_chat(wire, body, tokens, mode, key):
    wire.post("/v1/chat/completions", short(body, tokens), **headers_of(mode, key))


@FEW
@given(body=FIM_BODY, tokens=TOKENS, mode=MODES, key=KEYS)
def test_fim(wire, body, tokens, mode, key):
    wire.post("/v1/fim/completions", short(body, tokens), **headers_of(mode, key))


@FEW
@given(body=EMBED_BODY, mode=MODES, key=KEYS)
def test_embeddings(wire, body, mode, key):
    wire.post("/v1/embeddings", body, **headers_of(mode, key))


def test_both_kinds_of_answers_were_seen(wire):
    assert {200, 400, 422} <= wire.seen.keys()


@pytest.mark.parametrize("stream", [False, True])
def test_what_credit_or_a_limit_refuses_leaves_nothing_either(wire, stream):
    body = {"model": "mistral-tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "stream": stream}
    poor = wire.post("/v1/chat/completions", body, key=wire.world.poor_key, **{"idempotency-key": f"poor-{stream}"})
    assert poor.status_code == 402
    slow = [wire.post("/v1/chat/completions", body, key=wire.world.slow_key) for _ in range(4)]
    assert slow[-1].status_code == 429
    named = wire.post("/v1/chat/completions", body, key=wire.world.slow_key, **{"idempotency-key": f"slow-{stream}"})
    assert named.status_code == 429
