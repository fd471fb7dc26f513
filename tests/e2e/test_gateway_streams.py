"""Streams over real sockets: words as they come, callers that leave, failures in the middle, silence and drains."""

import asyncio
import json

import pytest

from core.queue.base import Outcome
from gateway.middleware import Call
from gateway.routes.metered import Exchanged
from gateway.routes.relay import Relay
from gateway.schemas.chat import ChatCompletionRequest, to_chat_request
from tests.e2e.gateway_world import (
    CHAT,
    KEY,
    ORGANISATION,
    WAIT_S,
    caller,
    chat,
    chunks,
    gateway_world,
    principal,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_tokens_arrive_as_they_are_made(world, client):
    request = client.build_request("POST", CHAT, json=chat("manual", stream=True))
    sending = asyncio.create_task(client.send(request, stream=True))
    job = await world.manual.take()
    await world.manual.say(job, "one")
    answer = await sending
    lines = answer.aiter_lines()
    seen = []
    for word in ("two", "three", None):
        async for line in lines:
            if line.startswith("data: ") and (text := json.loads(line[6:])["choices"][0]["delta"]["content"]):
                seen.append(text)
                break
        if word is not None:  # only now, that the one before has been read
            await world.manual.say(job, word)
    assert seen == ["one", "two", "three"]
    await world.manual.end(job)
    assert [line async for line in lines][-2:] == ["data: [DONE]", ""]
    assert world.broker.standing(job.request_id).end.usage.completion_tokens == 3


async def test_a_caller_that_leaves_its_stream_stops_the_work_and_pays_what_it_got(world, client):
    async with asyncio.timeout(WAIT_S):
        request = client.build_request("POST", CHAT, json=chat("manual", stream=True))
        sending = asyncio.create_task(client.send(request, stream=True))
        job = await world.manual.take()
        await world.manual.say(job, "words", tokens=5)
        answer = await sending
        async for line in answer.aiter_lines():
            if "words" in line:
                break
        await answer.aclose()
        await world.manual.cancelled(job)
    await world.manual.say(job, "more", tokens=400)
    end = await world.manual.end(job, outcome=Outcome.CANCELLED)
    assert end.usage.completion_tokens == 5 + 32
    assert world.open_reservations() == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_that_leaves_before_the_answer_stops_the_work(world, stream):
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    body = json.dumps(chat("manual", stream=stream)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    job = await world.manual.take()
    writer.close()
    await writer.wait_closed()
    del reader
    async with asyncio.timeout(WAIT_S):
        await world.manual.cancelled(job)
    await world.manual.say(job, "late", tokens=100)
    end = await world.manual.end(job, outcome=Outcome.CANCELLED)
    assert end.usage.completion_tokens == (32 if stream else 0)
    assert world.open_reservations() == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_first_word_keeps_its_status(world, client, stream):
    sending = asyncio.create_task(client.post(CHAT, json=chat("manual", stream=stream)))
    job = await world.manual.take()
    await world.manual.end(job, ("error",), outcome=Outcome.FAILED, error="The engine is ill.")
    answer = await sending
    assert (answer.status_code, answer.json()["message"]) == (500, "The engine is ill.")


async def test_a_failure_after_the_first_word_ends_the_stream_in_order(world, client):
    request = client.build_request("POST", CHAT, json=chat("manual", stream=True))
    sending = asyncio.create_task(client.send(request, stream=True))
    job = await world.manual.take()
    await world.manual.say(job, "So far")
    answer = await sending
    await world.manual.end(job, ("error",), outcome=Outcome.FAILED, error="The engine is ill.")
    sent = chunks((await answer.aread()).decode())
    assert sent[-1]["choices"][0]["finish_reason"] == "error"
    assert sent[-1]["usage"]["total_tokens"] == 0
    assert sent[-1]["x_tramontane"] == {"error": "The engine is ill."}


async def test_an_answer_cut_by_credit_says_so(world, client):
    sending = asyncio.create_task(client.post(CHAT, json=chat("manual", stream=True)))
    job = await world.manual.take()
    await world.manual.say(job, "So far")
    await world.manual.end(job, ("length",), ended_by="credit")
    last = chunks((await sending).text)[-1]
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["x_tramontane"] == {"ended_by": "credit"}


async def test_a_waiting_stream_is_kept_alive_by_comments():
    async with gateway_world(headers_hold_s=0.1) as world, caller(world) as client:
        request = client.build_request("POST", CHAT, json=chat("manual", stream=True))
        answer = await client.send(request, stream=True)  # headers come though nobody has taken the job
        lines = answer.aiter_lines()
        assert (await anext(lines)).startswith(": queued")
        job = await world.manual.take()
        await world.manual.end(job, ("error",), outcome=Outcome.FAILED, error="Too late for a status.")
        rest = [line async for line in lines if line.startswith("data: ")]
        assert json.loads(rest[0][6:])["x_tramontane"] == {"error": "Too late for a status."}
        assert rest[1:] == ["data: [DONE]"]


async def test_a_drain_ends_what_is_open_without_charge():
    async with gateway_world() as world:
        async with caller(world) as client:
            request = client.build_request("POST", CHAT, json=chat("manual", stream=True))
            sending = asyncio.create_task(client.send(request, stream=True))
            job = await world.manual.take()
            await world.manual.say(job, "So far")
            answer = await sending
            world.server.handle_exit(15, None)
            assert world.services.lifecycle.draining
            last = chunks((await answer.aread()).decode())[-1]
            assert last["choices"][0]["finish_reason"] == "error"
        assert world.broker.standing(job.request_id).end.cost_nano == 0


async def begun(world, client, **fields):
    """A stream with its job, the first bytes of which are still to come."""
    request = client.build_request("POST", CHAT, json=chat("manual", stream=True, **fields))
    sending = asyncio.create_task(client.send(request, stream=True))
    return sending, await world.manual.take()


CALL = '[TOOL_CALLS] [{"name": "sky", "arguments": {"at": "noon"}}, {"name": "sea", "arguments": {}}]'
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("sky", "sea")
]


def offering(world, stream):
    """The tiers here run on echo, which can force no calls: the relay of a request with tools is asked for directly."""
    services = world.services
    relay = Relay("manual", "manual", 1, services.clock, services.metrics, has_tools=True)

    async def serve(reply, send):
        call = Call(reply.request_id, services.clock.monotonic_s())
        exchanged = Exchanged(reply, call, services.clock.monotonic_s(), Connected(), send, ("user",))
        await relay.chat(exchanged, stream=stream)

    return serve


class Connected:
    def when_lost(self, call):
        """This caller stays."""


class Sent:
    def __init__(self):
        self.body, self.headers = b"", {}

    async def __call__(self, message):
        if message["type"] == "http.response.start":
            self.headers = dict(message["headers"])
        else:
            self.body += message["body"]


async def spoken(world, text, size, stream, reasons=("stop",)):
    """What the caller of a request with tools is sent when a worker says this, so many characters at a time."""
    admission = world.services.admitter.chat(world.principals.known[KEY], chat_request(world, stream))
    reply = await world.services.exchange.ask(admission)
    sent = Sent()
    serving = asyncio.create_task(offering(world, stream)(reply, sent))
    job = await world.manual.take()
    for start in range(0, len(text), size):
        await world.manual.say(job, text[start : start + size])
    await world.manual.end(job, reasons)
    await serving
    return sent


def chat_request(world, stream):
    asked = ChatCompletionRequest.model_validate_json(json.dumps(chat("manual", stream=stream)))
    return to_chat_request(asked, world.services.catalog.tier("manual"))


@pytest.mark.parametrize("size", [1, 7, 1_000])
async def test_calls_come_whole_in_one_chunk_with_their_usage(world, size):
    sent = await spoken(world, CALL, size, stream=True)
    role, last = chunks(sent.body.decode())
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    [choice] = last["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert [call["function"]["name"] for call in choice["delta"]["tool_calls"]] == ["sky", "sea"]
    assert json.loads(choice["delta"]["tool_calls"][0]["function"]["arguments"]) == {"at": "noon"}
    assert last["usage"]["completion_tokens"] > 0
    assert sent.headers[b"x-tramontane-ignored"] == b"user"
    whole = json.loads((await spoken(world, CALL, size, stream=False)).body)
    assert [call["index"] for call in whole["choices"][0]["message"]["tool_calls"]] == [0, 1]
    assert whole["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("text", "reason"),
    [("The sky is blue.", "stop"), ("[TOOL_CALLS] sky", "stop"), (CALL[:-9], "length"), ("[T", "stop")],
)
async def test_what_is_no_call_stays_text(world, text, reason):
    sent = chunks((await spoken(world, text, 4, stream=True, reasons=(reason,))).body.decode())
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in sent) == text
    assert sent[-1]["choices"][0]["finish_reason"] == reason
    whole = json.loads((await spoken(world, text, 4, stream=False, reasons=(reason,))).body)
    assert whole["choices"][0]["message"]["content"] == text
    assert whole["choices"][0]["finish_reason"] == reason


async def test_an_error_while_a_call_is_held_ends_the_stream_in_order(world):
    [_role, last] = chunks((await spoken(world, CALL[:30], 30, stream=True, reasons=("error",))).body.decode())
    assert last["choices"][0] == {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}


async def test_probabilities_come_with_their_text(world, client):
    sending, job = await begun(world, client, logprobs=True, top_logprobs=1)
    assert job.sampling.logprobs == 1
    await world.manual.say(job, "", logprobs=((-0.5, ((100, -0.5),)),))
    await world.manual.say(job, "Bonjour", logprobs=((-1.5, ((101, -1.5),)),))
    await world.manual.end(job)
    sent = chunks((await (await sending).aread()).decode())
    marked = [choice["logprobs"]["content"] for chunk in sent for choice in chunk["choices"] if "logprobs" in choice]
    assert [[entry["logprob"] for entry in content] for content in marked] == [[-0.5, -1.5]]
    assert marked[0][1]["top_logprobs"][0]["token_id"] == 101


async def test_a_revoked_key_ends_its_stream_at_once(world, client):
    sending, job = await begun(world, client)
    await world.manual.say(job, "So far", tokens=3)
    answer = await sending
    world.broker.set_generation(ORGANISATION, 100)
    try:
        last = chunks((await answer.aread()).decode())[-1]
    finally:
        world.principals.known[KEY] = principal(generation=100)
    assert last["choices"][0]["finish_reason"] == "error"
    assert last["x_tramontane"]["ended_by"] == "revoked"
    await world.manual.cancelled(job)
    end = await world.manual.end(job, ("error",), outcome=Outcome.CANCELLED)
    assert end.usage.completion_tokens == 3
    assert world.open_reservations() == 0
