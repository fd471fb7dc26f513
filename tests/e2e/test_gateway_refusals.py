"""What metered routes refuse is noted, with who asked, for what, and which rule said no."""

from dataclasses import replace

import pytest

from core.queue.rules import Rule, RuleKind
from tests.e2e.gateway_world import CHAT, KEY, ORGANISATION, chat

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def noted(world, organisation=ORGANISATION):
    await world.services.refused.flush()
    return await world.services.refusals.read(organisation, 0, 10)


async def test_each_refusal_is_noted_and_no_success(world, client):
    assert (await client.post(CHAT, json=chat())).status_code == 200
    assert await noted(world) == []
    wrong = [
        (chat("nothing"), 400, "1500", ""),
        (chat(colour="red"), 422, "invalid_request_error", ""),
        (chat(temperature=0.0, top_p=0.5), 400, "3054", "auto"),
    ]
    for body, status, code, tier in wrong:
        answer = await client.post(CHAT, json=body)
        assert answer.status_code == status
        event = (await noted(world))[0]
        assert (event.status, event.code, event.tier, event.rule) == (status, code, tier, "")
        assert event.request_id == answer.headers["mistral-correlation-id"]
        assert (event.key_id, event.workspace, event.route) == ("key-1", "workspace-1", CHAT)
    assert len(await noted(world)) == len(wrong)


async def test_the_rule_that_refused_is_noted(world, client):
    before = world.principals.known[KEY]
    world.principals.known[KEY] = replace(before, rules=(Rule(RuleKind.REQUESTS_PER_MINUTE, "key", "k9", 0),))
    answer = await client.post("/v1/embeddings", json={"model": "embed", "input": "x"})
    world.principals.known[KEY] = before
    assert answer.status_code == 429
    event = (await noted(world))[0]
    assert (event.status, event.rule, event.scope, event.limit, event.remaining) == (
        429,
        "requests_per_minute",
        "key",
        0,
        0,
    )
    assert event.tier == "embed"
    assert event.retry_after_s is None, "a limit of 0 lets nobody in, ever"


async def test_when_to_come_back_is_noted(world, client):
    before = world.principals.known[KEY]
    rules = (Rule(RuleKind.REQUESTS_PER_MINUTE, "key", "k10", 1),)
    world.principals.known[KEY] = replace(before, rules=rules)
    answers = [await client.post(CHAT, json=chat()) for _ in range(2)]
    world.principals.known[KEY] = before
    assert [answer.status_code for answer in answers] == [200, 429]
    assert (await noted(world))[0].retry_after_s == int(answers[1].headers["retry-after"])


async def test_whoever_has_no_key_is_noted_as_nobody(world, client):
    assert (await client.post(CHAT, json=chat(), headers={"authorization": "Bearer none"})).status_code == 401
    (event,) = await noted(world, "")
    assert (event.status, event.organisation, event.key_id) == (401, "", "")
