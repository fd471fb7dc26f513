"""Streams over real sockets: words as they come, callers that leave, failures in the middle, silence and drains."""

import asyncio
import json

import pytest

from core.queue.base import Outcome
from tests.e2e.gateway_world import CHAT, KEY, WAIT_S, caller, chat, chunks, gateway_world

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
