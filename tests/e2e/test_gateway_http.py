"""The gateway over real sockets: what callers see, and what the queue is told about them."""

import asyncio
import base64
import hashlib
import json
import re
import struct
from pathlib import Path

import httpx
import openai
import pytest
from mistralai.client import Mistral

from core.queue.base import Outcome
from gateway.routes.metered import MeteredRoute
from tests.e2e.gateway_world import (
    CHAT,
    KEY,
    MESSAGES,
    ORGANISATION,
    WAIT_S,
    chat,
    chunks,
    gateway_world,
    principal,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
TOOL = {"type": "function", "function": {"name": "sky", "parameters": {"type": "object"}}}
ASSETS = Path(__file__).parents[2] / "gateway" / "assets"


async def test_a_whole_answer(client):
    answer = await client.post(CHAT, json=chat("auto-latest"))
    body = answer.json()
    assert answer.status_code == 200
    assert body["model"] == "auto-latest"
    assert body["choices"][0]["message"]["content"] == "Bonjour"
    assert body["usage"]["completion_tokens"] == 2
    assert body["id"] == answer.headers["mistral-correlation-id"] == answer.headers["x-kong-request-id"]
    assert int(answer.headers["x-tramontane-cost-nano"]) > 0
    assert answer.headers["x-ratelimit-tokens-query-cost"] == str(body["usage"]["total_tokens"])
    assert int(answer.headers["x-ratelimit-remaining-req-minute"]) < int(answer.headers["x-ratelimit-limit-req-minute"])
    assert float(answer.headers["x-tramontane-overhead-ms"]) > 0


async def test_a_streamed_answer_with_two_choices(client):
    answer = await client.post(CHAT, json=chat(stream=True, n=2))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "x-model-deprecation-timestamp" not in answer.headers
    sent = chunks(answer.text)
    for index in (0, 1):
        mine = [chunk["choices"][0] for chunk in sent if chunk["choices"][0]["index"] == index]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(choice["delta"]["content"] for choice in mine) == "Bonjour"
        assert mine[-1]["finish_reason"] == "stop"
    assert [chunk.get("usage") for chunk in sent[:-1]] == [None] * (len(sent) - 1)
    assert sent[-1]["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("content", ["The sky", [{"type": "text", "text": "The"}, {"type": "text", "text": "sky"}]])
async def test_an_answer_begins_with_the_prefix_that_it_continues(world, client, content):
    prefix = content if isinstance(content, str) else "The\n\nsky"
    fields = chat("manual", messages=[*MESSAGES, {"role": "assistant", "content": content, "prefix": True}], n=2)
    for stream in (False, True):
        asking = asyncio.create_task(client.post(CHAT, json={**fields, "stream": stream}))
        job = await world.manual.take()
        assert job.continues
        await world.manual.say(job, " is blue", 2)  # the other choice says nothing at all
        await world.manual.end(job, ("stop", "stop"))
        answer = await asking
        if stream:
            told = [chunk["choices"][0] for chunk in chunks(answer.text)]
            texts = ["".join(one["delta"]["content"] for one in told if one["index"] == index) for index in (0, 1)]
        else:
            texts = [choice["message"]["content"] for choice in answer.json()["choices"]]
        assert texts == [f"{prefix} is blue", prefix]


async def test_embeddings_as_numbers_and_as_base64(client):
    numbers = (await client.post("/v1/embeddings", json={"model": "embed", "input": ["a", "b"]})).json()
    assert [item["embedding"] for item in numbers["data"]] == [[1.0, -2.0, 0.5, 0.0]] * 2
    assert numbers["usage"] == {"prompt_tokens": 6, "completion_tokens": 0, "total_tokens": 6}
    fields = {"model": "embed", "input": "a", "encoding_format": "base64"}
    packed = (await client.post("/v1/embeddings", json=fields)).json()
    assert struct.unpack("<4f", base64.b64decode(packed["data"][0]["embedding"])) == (1.0, -2.0, 0.5, 0.0)


async def test_models_by_name_and_alias(client):
    listed = (await client.request("GET", "/v1/models", json={})).json()  # old clients send a body with a GET
    assert [card["id"] for card in listed["data"]] == ["auto", "auto-latest", "manual", "code", "embed"]
    card = (await client.get("/v1/models/auto-latest")).json()
    assert (card["type"], card["name"], card["aliases"]) == ("base", "auto", ["auto"])
    assert card["capabilities"]["completion_chat"] is True
    assert not any(value for name, value in card["capabilities"].items() if name != "completion_chat")
    assert (await client.get("/v1/models/none")).status_code == 404


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/auto"])
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic dGVzdC1rZXk=", "Bearer", "Bearer " + "k" * 999])
async def test_no_key_no_answer(world, path, authorization):
    headers = {} if authorization is None else {"authorization": authorization}
    async with httpx.AsyncClient(base_url=world.url, headers=headers) as stranger:
        for answer in (await stranger.get(path), await stranger.post(CHAT, content=b"{not json")):
            assert answer.status_code == 401
            assert answer.json() == {"message": "Unauthorized", "request_id": answer.headers["mistral-correlation-id"]}


async def test_a_key_without_the_scope(world):
    world.principals.known["reader"] = principal(scopes=frozenset({"usage"}))
    async with httpx.AsyncClient(base_url=world.url, headers={"authorization": "Bearer reader"}) as reader:
        assert (await reader.post(CHAT, json=chat())).status_code == 403
        assert (await reader.get("/v1/models")).status_code == 200


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        (chat("unknown"), 400, "1500"),
        (chat("embed"), 400, "1500"),
        (chat("unknown", top_k=3), 400, "1500"),
        (chat(tools=[{"type": "function"}]), 422, None),
        (chat(tools=[TOOL], tool_choice="any"), 400, "3051"),
        (chat(messages=[]), 400, "3230"),
        (chat(messages=[*MESSAGES, {"role": "assistant", "content": "x"}]), 400, "3230"),
        (chat(messages=[*MESSAGES, {"role": "assistant", "content": ""}, *MESSAGES]), 400, "3240"),
        (chat(messages=[{"role": "user", "content": "word " * 3_000}]), 400, "3051"),
        (chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]), 400, "3051"),
        (chat(temperature=0, top_p=0.5), 400, "3054"),
        (chat(user="me"), 422, None),
        (chat(max_tokens=512), 422, None),
    ],
)
async def test_what_cannot_be_served_is_named(client, fields, status, code):
    answer = await client.post(CHAT, json=fields)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "mistral-correlation-id" in answer.headers


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"model": "embed", "input": ["a"] * 257}, "3210"),
        ({"model": "embed", "input": "a " * 20}, "3210"),
        ({"model": "auto", "input": "a"}, "1500"),
        ({"model": "embed", "input": "a", "output_dimension": 8}, "3051"),
    ],
)
async def test_embeddings_that_cannot_be_made(client, fields, code):
    answer = await client.post("/v1/embeddings", json=fields)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"{}{}",
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"model":"\xff"}',
        b'{"model":"\\ud800"}',
        b"NaN",
    ],
)
async def test_junk_is_422(client, body):
    for path in (CHAT, "/v1/embeddings"):
        answer = await client.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 422
        assert answer.json()["message"]["detail"][0]["loc"] == ["body"]


async def test_other_content_is_415(client):
    assert (await client.post(CHAT, content=b"{}", headers={"content-type": "text/plain"})).status_code == 415


async def test_a_body_of_50_mb_gets_its_413_and_the_connection_lives(client):
    async def parts():
        for _ in range(800):
            yield b" " * 65_536

    for content in (b" " * 50_000_000, parts()):
        answer = await client.post(CHAT, content=content, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["type"]) == (413, "request_too_large")
        assert (await client.post(CHAT, json=chat())).status_code == 200


async def test_unknown_paths_and_verbs(client):
    answer = await client.get("/nowhere")
    assert answer.status_code == 404
    assert answer.json()["message"] == "no Route matched with those values"
    assert (await client.get("/v1/models/")).status_code == 404
    answer = await client.put(CHAT, json={})
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    answer = await client.options(CHAT)
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, "POST", b"")
    for answer in (await client.options("/v1/models/auto"), await client.put("/v1/models/auto", json={})):
        assert answer.headers["allow"] == "DELETE, GET"
    answer = await client.head("/v1/models")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_limit_is_explained(world):
    world.principals.known["slow"] = principal(requests_per_minute=1)
    async with httpx.AsyncClient(base_url=world.url, headers={"authorization": "Bearer slow"}) as slow:
        answers = [await slow.post(CHAT, json=chat()) for _ in range(30)]
    refused = answers[-1]
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["x-ratelimit-limit-req-minute"] == "1"
    by = refused.json()["x_tramontane"]["refused_by"]
    assert (by["rule"], by["scope"], by["limit"]) == ("requests_per_minute", "organisation", 1)


async def test_a_stale_principal_is_loaded_anew_once(world, client):
    world.broker.set_generation(ORGANISATION, 2)
    world.principals.after_forget = {KEY: principal(generation=2)}
    assert (await client.post(CHAT, json=chat())).status_code == 200
    assert world.principals.forgotten == [KEY]
    world.broker.set_generation(ORGANISATION, 3)
    answer = await client.post(CHAT, json=chat())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    world.principals.known[KEY] = principal(generation=3)


async def test_ready_says_what_is_missing(world, client):
    assert (await client.get("/health/live")).json() == {"status": "ok"}
    assert (await client.get("/health/ready")).json() == {"ready": True, "missing": []}
    world.database.away = True
    answer = await client.get("/health/ready")
    world.database.away = False
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "missing": ["database"]})


async def test_metrics_show_requests_and_the_queue(client):
    await client.post(CHAT, json=chat())
    text = (await client.get("/metrics")).text
    assert re.search(rf'tramontane_http_requests_total{{method="POST",route="{CHAT}",status="200"}} \d', text)
    assert 'tramontane_queue_jobs{tier="manual"} 0.0' in text
    assert "tramontane_streams_open 0.0" in text
    assert KEY not in text
    assert ORGANISATION not in text


async def test_the_documentation_needs_no_network(client):
    page = await client.get("/docs")
    assert not re.search(r"(src|href)=\"https?:", page.text)
    for name, digest in re.findall(
        r"^\| (\S+) \| ([0-9a-f]{64}) \|$", (ASSETS / "README.md").read_text(), re.MULTILINE
    ):
        assert f"/docs/assets/{name}" in page.text
        served = await client.get(f"/docs/assets/{name}")
        assert hashlib.sha256(served.content).hexdigest() == digest
    assert (await client.get("/docs/assets/README.md")).status_code == 404


async def test_the_openapi_document_is_whole(world, client):
    document = (await client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references <= schemas.keys()
    assert "ChatCompletionRequest" in references
    assert schemas["ChatCompletionRequest"]["additionalProperties"] is False
    offered = document["paths"].items()
    posts = {path for path, ways in offered if "post" in ways and not path.startswith("/v1/admin/")}
    app = world.server.config.loaded_app
    metered = {route.path for route in app.routes if isinstance(route, MeteredRoute)}
    assert posts == metered == {CHAT, "/v1/fim/completions", "/v1/embeddings"}


async def test_the_mistral_client(world):
    async with Mistral(api_key=KEY, server_url=world.url) as mistral:
        answer = await mistral.chat.complete_async(model="auto", messages=MESSAGES)
        assert answer.choices[0].message.content == "Bonjour"
        stream = await mistral.chat.stream_async(model="auto", messages=MESSAGES)
        events = [event.data async for event in stream]
        assert "".join(event.choices[0].delta.content for event in events) == "Bonjour"
        assert events[-1].usage.total_tokens == answer.usage.total_tokens
        vectors = await mistral.embeddings.create_async(model="embed", inputs=["a"])
        assert vectors.data[0].embedding == [1.0, -2.0, 0.5, 0.0]
        assert (await mistral.models.list_async()).data[0].id == "auto"


async def test_the_openai_client(world):
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{world.url}/v1", max_retries=0) as client:
        answer = await client.chat.completions.create(model="auto", messages=MESSAGES)
        assert answer.choices[0].message.content == "Bonjour"
        stream = await client.chat.completions.create(model="auto", messages=MESSAGES, stream=True)
        assert "".join([chunk.choices[0].delta.content async for chunk in stream]) == "Bonjour"
        vectors = await client.embeddings.create(model="embed", input="a")
        assert vectors.data[0].embedding == [1.0, -2.0, 0.5, 0.0]
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="unknown", messages=MESSAGES)
        assert caught.value.code == "1500"


async def raw(port, *parts):
    """Send, and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
    try:
        async with asyncio.timeout(WAIT_S):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "request_head",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\na: b\x00c\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: " + b"b" * 100_000,
    ],
)
async def test_what_is_no_http_gets_a_400_and_is_closed(world, request_head):
    answer = await raw(world.port, request_head)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["type"] == "invalid_request_error"


async def test_slow_heads_slow_bodies_and_stuck_readers_are_cut():
    bounds = {"head_s_max": 0.2, "body_s_max": 0.2, "write_stall_s_max": 0.2, "keep_alive_s": 1}
    async with gateway_world(**bounds) as world:
        assert await raw(world.port, b"GET / HT") == b""
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 9\r\n\r\n{{"
        assert (await raw(world.port, head.encode())).startswith(b"HTTP/1.1 408 ")

        body = json.dumps(chat("manual", stream=True)).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port, limit=1_024)
        writer.write(head.encode() + body)
        job = await world.manual.take()
        for _ in range(2_000):  # nobody reads: the sockets fill up
            await world.manual.say(job, "x" * 20_000)
            if job.request_id in (await world.manual.queue.renew(world.manual.slot)).cancelled:
                break
            await asyncio.sleep(0.005)
        else:
            raise AssertionError("the reader was not cut")
        await world.manual.end(job, outcome=Outcome.CANCELLED)
        writer.close()
        del reader
