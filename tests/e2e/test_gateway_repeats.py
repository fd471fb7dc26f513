"""Idempotency-Key, the mode header and calls from web pages, over real sockets."""

import asyncio
import json

import httpx
import pytest

from core.queue.base import Outcome
from tests.e2e.gateway_world import AUTH, CHAT, KEY, WAIT_S, caller, chat, chunks, gateway_world

pytestmark = pytest.mark.asyncio(loop_scope="module")
EMBEDDINGS = "/v1/embeddings"
PAGE = "https://chat.example"


def keyed(client, key, path=CHAT, **fields):
    return client.post(path, json=chat("manual", **fields), headers={"idempotency-key": key})


async def test_a_hundred_at_once_run_once_and_are_told_the_same(world):
    limits = httpx.Limits(max_connections=100)
    async with httpx.AsyncClient(base_url=world.url, headers=AUTH, timeout=WAIT_S, limits=limits) as client:
        asking = [asyncio.create_task(keyed(client, "once")) for _ in range(100)]
        job = await world.manual.take()
        assert job.keep_answer
        await world.manual.say(job, "Only once")
        events = len(world.broker.usage)
        await world.manual.end(job)
        answers = await asyncio.gather(*asking)
    assert {answer.content for answer in answers} == {answers[0].content}
    assert json.loads(answers[0].content)["id"] == job.request_id
    assert sorted(answer.headers.get("idempotent-replayed", "") for answer in answers) == ["", *["true"] * 99]
    assert {answer.headers["mistral-correlation-id"] for answer in answers} == {job.request_id}
    assert len(world.broker.usage) == events + 1


async def test_a_stream_is_told_again_in_one_chunk_and_is_a_409_meanwhile(world, client):
    sending = asyncio.create_task(keyed(client, "stream", stream=True))
    job = await world.manual.take()
    meanwhile = await keyed(client, "stream", stream=True)
    assert (meanwhile.status_code, meanwhile.json()["code"]) == (409, "1410")
    assert int(meanwhile.headers["retry-after"]) >= 1
    for word in ("Word ", "by ", "word"):
        await world.manual.say(job, word)
    await world.manual.end(job)
    first = chunks((await sending).text)
    again = await keyed(client, "stream", stream=True)
    assert again.headers["idempotent-replayed"] == "true"
    role, text, last = chunks(again.text)
    assert text["choices"][0]["delta"]["content"] == "Word by word"
    assert (role["id"], role["created"], last["usage"]) == (job.request_id, first[0]["created"], first[-1]["usage"])


async def test_a_caller_who_leaves_gets_its_answer_later(world, client):
    with pytest.raises(httpx.ReadTimeout):
        await client.post(CHAT, json=chat("manual"), headers={"idempotency-key": "left"}, timeout=0.2)
    job = await world.manual.take()
    await world.manual.say(job, "Still here")
    await world.manual.end(job)
    answer = await keyed(client, "left")
    assert answer.json()["choices"][0]["message"]["content"] == "Still here"
    assert answer.json()["id"] == job.request_id


async def test_a_failure_is_not_remembered_and_who_waited_runs_anew(world, client):
    first = asyncio.create_task(keyed(client, "failing"))
    job = await world.manual.take()
    second = asyncio.create_task(keyed(client, "failing"))
    await asyncio.sleep(0)
    await world.manual.end(job, ("error",), outcome=Outcome.FAILED, error="The engine is ill.")
    assert (await first).status_code == 500
    job = await world.manual.take()
    await world.manual.say(job, "Better")
    await world.manual.end(job)
    answer = await second
    assert (answer.status_code, answer.json()["id"]) == (200, job.request_id)
    assert "idempotent-replayed" not in answer.headers


async def test_vectors_are_told_again(client):
    fields = {"model": "embed", "input": ["a", "b"]}
    answers = [await client.post(EMBEDDINGS, json=fields, headers={"idempotency-key": "v"}) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotent-replayed"] == "true"


async def test_a_key_belongs_to_its_body_and_its_route(world, client):
    headers = {"idempotency-key": "body"}
    first = await client.post(CHAT, json=chat(), headers=headers)
    other = await client.post(CHAT, json=chat(n=2), headers=headers)
    assert (first.status_code, other.status_code, other.json()["code"]) == (200, 422, "1412")
    elsewhere = await client.post(EMBEDDINGS, json={"model": "embed", "input": "a"}, headers=headers)
    assert elsewhere.status_code == 200


@pytest.mark.parametrize("key", [b"", b"k" * 256, b"tab\there", b"\xc3\xa9"])
async def test_a_key_that_is_none_is_refused(client, key):
    answer = await client.post(CHAT, json=chat(), headers={b"idempotency-key": key})
    assert answer.status_code == 422
    assert answer.json()["message"]["detail"][0]["loc"] == ["header", "idempotency-key"]


async def test_refused_requests_leave_nothing_behind(world, client):
    for fields in (chat("unknown"), chat(temperature=0, top_p=0.5), chat(max_tokens=0), {"model": "auto"}):
        answer = await client.post(CHAT, json=fields, headers={"idempotency-key": "refused"})
        assert answer.status_code in {400, 422}
    assert (world.open_reservations(), world.services.exchange.open_count) == (0, 0)
    assert (await client.post(CHAT, json=chat(), headers={"idempotency-key": "refused"})).status_code == 200


async def test_the_mode_by_header(client):
    fields = chat(user="me", seed=3)
    assert (await client.post(CHAT, json=fields)).status_code == 422
    answer = await client.post(CHAT, json=fields, headers={"x-tramontane-mode": "lenient"})
    assert answer.status_code == 200
    assert answer.headers["x-tramontane-ignored"] == "user"
    assert (await client.post(CHAT, json=chat(), headers={"x-tramontane-mode": "loose"})).status_code in {400, 422}


def preflight(client, origin, method="POST"):
    asked = {"access-control-request-method": method, "access-control-request-headers": "authorization,x-stainless-os"}
    return client.options(CHAT, headers={"origin": origin, **asked})


async def test_pages_of_listed_origins_may_call():
    async with gateway_world(cors_origins=f"{PAGE}, https://other.example/") as world, caller(world) as client:
        allowed = await preflight(client, PAGE)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == PAGE
        assert "x-stainless-os" in allowed.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in allowed.headers
        assert (await preflight(client, "https://evil.example")).status_code == 400
        answer = await client.post(CHAT, json=chat(), headers={"origin": PAGE})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, PAGE)
        assert "x-tramontane-cost-nano" in answer.headers["access-control-expose-headers"]
        refused = await client.post(CHAT, json={}, headers={"origin": PAGE})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (422, PAGE)
        stranger = await client.post(CHAT, json=chat(), headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in stranger.headers


async def test_without_a_list_no_page_may(client):
    answer = await preflight(client, PAGE)
    assert (answer.status_code, answer.headers["allow"]) == (204, "POST")
    answer = await client.get("/v1/models", headers={"origin": PAGE, "authorization": f"Bearer {KEY}"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
