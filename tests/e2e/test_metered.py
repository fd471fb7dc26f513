"""What makes tokens is metered: each way to ask and to end leaves one usage event, and it is right."""

import asyncio

import pytest
from fastapi.routing import APIRoute

from core.meter.cost import cost_nano
from core.queue.base import Outcome, WorkerSlot
from core.queue.memory import MemoryWorkerQueue
from gateway.routes.metered import MeteredRoute
from tests.e2e.gateway_world import CHAT, MESSAGES, PRICES, WAIT_S, Actor

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIM, EMBED = "/v1/fim/completions", "/v1/embeddings"
BODIES = {CHAT: {"model": "manual", "messages": MESSAGES}, FIM: {"model": "code", "prompt": "def f("}}
# What may be posted under /v1 and makes no tokens.
WITHOUT_TOKENS = ("/v1/admin/", "/v1/files", "/v1/batch/", "/v1/console/")
TOKENS = 5


def routes_of(app):
    return [route for route in app.routes if isinstance(route, APIRoute)]


def unmetered(app):
    """Paths under /v1 that take a POST, and neither are metered nor known to make no tokens."""
    return [
        route.path
        for route in routes_of(app)
        if "POST" in route.methods
        and route.path.startswith("/v1/")
        and not isinstance(route, MeteredRoute)
        and not route.path.startswith(WITHOUT_TOKENS)
    ]


async def test_a_route_without_a_meter_cannot_be_registered_unseen(world):
    app = world.server.config.app
    assert unmetered(app) == []
    assert {route.path for route in routes_of(app) if isinstance(route, MeteredRoute)} == {CHAT, FIM, EMBED}
    planted = APIRoute("/v1/free/completions", lambda: None, methods=["POST"])
    app.router.routes.append(planted)
    try:
        assert unmetered(app) == ["/v1/free/completions"]
    finally:
        app.router.routes.remove(planted)


@pytest.fixture
def worker(world, path):
    tier = BODIES[path]["model"]
    return Actor(MemoryWorkerQueue(world.broker), WorkerSlot(f"metered-{tier}", tier, 8))


def events_of(world, request_id):
    return [event for event in world.broker.usage.values() if event.request_id == request_id]


def owed(tier, prompt, completion):
    (price,) = PRICES[tier]
    prices = {"input_nano": price.input_nano, "cached_nano": price.cached_nano, "output_nano": price.output_nano}
    return cost_nano(prompt, 0, completion, **prices)


async def leave(sending):
    sending.cancel()
    await asyncio.wait([sending])


@pytest.mark.parametrize("path", [CHAT, FIM])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("outcome", [Outcome.FINISHED, Outcome.FAILED, Outcome.CANCELLED])
async def test_usage_is_what_the_worker_counted_and_the_caller_owes(world, client, worker, path, stream, outcome):
    async with asyncio.timeout(WAIT_S):
        request = client.build_request("POST", path, json={**BODIES[path], "stream": stream})
        sending = asyncio.create_task(client.send(request, stream=stream))
        job = await worker.take()
        await worker.say(job, "five tokens", TOKENS)
        if outcome is Outcome.CANCELLED:
            if stream:
                answer = await sending
                async for line in answer.aiter_lines():
                    if "five tokens" in line:
                        break
                await answer.aclose()
            else:
                await leave(sending)
            await worker.cancelled(job)
            end = await worker.end(job, outcome=outcome)
        else:
            error = "It broke." if outcome is Outcome.FAILED else None
            end = await worker.end(job, ("error" if error else "stop",), outcome=outcome, error=error)
            answer = await sending
            await answer.aread()
    prompt, completion = {
        Outcome.FINISHED: (job.prompt_tokens, TOKENS),
        Outcome.FAILED: (0, 0),
        Outcome.CANCELLED: (job.prompt_tokens, TOKENS if stream else 0),  # what nobody was told is not owed
    }[outcome]
    (event,) = events_of(world, job.request_id)
    assert (event.outcome, event.streamed, event.tier) == (outcome, stream, job.tier)
    assert (event.prompt_tokens, event.completion_tokens, event.decoded_tokens) == (prompt, completion, TOKENS)
    assert event.cost_nano == owed(job.tier, prompt, completion) == end.cost_nano
    if outcome is Outcome.FINISHED and not stream:
        told = answer.json()["usage"]
        assert (told["prompt_tokens"], told["completion_tokens"]) == (prompt, completion)


async def test_embeddings_are_metered_too(world, client):
    answer = await client.post(EMBED, json={"model": "embed", "input": ["one two", "three"]})
    (event,) = events_of(world, answer.headers["mistral-correlation-id"])
    told = answer.json()["usage"]
    assert (event.prompt_tokens, event.completion_tokens) == (told["prompt_tokens"], 0)
    assert event.cost_nano == owed("embed", event.prompt_tokens, 0)
    assert event.prompt_tokens > 0
