"""Settlement: once per request, who pays what, and what it leaves behind."""

import asyncio
from dataclasses import replace

import pytest

from core.queue.base import (
    Admitted,
    Finish,
    Outcome,
    RequestState,
    WorkerSlot,
)
from core.queue.rules import Rule, RuleKind
from core.wire import CHAT, EMBED, End, Usage
from tests.contracts.queue.world import RICH_NANO, World

W1 = WorkerSlot("w1", "tiny", 8)
W2 = WorkerSlot("w2", "tiny", 8)
OPEN = Rule(RuleKind.CONCURRENCY, "organisation", "acme", 100)
# Nano per token: 1 for input, 0.1 for cached input, 2 for output.


async def test_a_finished_request_is_billed_as_counted(world: World):
    job = await world.admit()
    (taken,) = await world.take(W1)
    assert taken == job
    settlement = await world.finish(W1, taken, Usage(10, 7, cached_tokens=5))
    assert settlement.accepted
    assert settlement.end.usage == Usage(10, 7, cached_tokens=5)
    assert settlement.end.cost_nano == 20, "5 + 0.5 + 14 = 19.5, half to even"
    assert await world.credit() == RICH_NANO - 20
    standing = await world.gateway.standing(job.request_id)
    assert (standing.state, standing.attempt, standing.queue_position) == (RequestState.SETTLED, 1, -1)
    assert standing.end == settlement.end
    assert await world.open_reservations() == 0


async def test_the_end_that_is_kept_is_the_workers_own(world: World):
    await world.admit(kind=EMBED)
    (job,) = await world.take(W1)
    end = End(job.request_id, 1, finish_reasons=("stop", "length"), usage=Usage(10), vectors=(b"\x00\x01", b"\xff"))
    (settlement,) = await world.workers.finish([Finish(end, "w1", Outcome.FINISHED)])
    assert settlement.end == replace(end, cost_nano=10)
    assert (await world.gateway.standing(job.request_id)).end == settlement.end


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.GATEWAY_LOST, Outcome.TIMEOUT])
async def test_what_went_wrong_costs_nothing(world: World, outcome: Outcome):
    await world.admit()
    (job,) = await world.take(W1)
    settlement = await world.finish(W1, job, Usage(10, 7), outcome)
    assert settlement.accepted
    assert (settlement.end.usage, settlement.end.cost_nano) == (Usage(), 0)
    assert await world.credit() == RICH_NANO
    (event,) = await world.usage_events()
    assert (event.outcome, event.prompt_tokens, event.completion_tokens, event.cost_nano) == (outcome.value, 0, 0, 0)
    assert event.decoded_tokens == 7


@pytest.mark.parametrize(("kind", "billed"), [(CHAT, Usage()), (EMBED, Usage(10))])
async def test_a_chat_with_nothing_generated_is_free(world: World, kind: str, billed: Usage):
    await world.admit(kind=kind)
    (job,) = await world.take(W1)
    settlement = await world.finish(W1, job, Usage(10, 0))
    assert settlement.accepted
    assert settlement.end.usage == billed
    assert settlement.end.cost_nano == billed.prompt_tokens


async def test_the_usage_event_says_everything(world: World):
    await world.fund()
    start_ms = world.clock.now_ms()
    admitted = await world.try_admit(world.job(streamed=True), rules=(OPEN,))
    assert isinstance(admitted, Admitted)
    world.clock.advance(100)
    (job,) = await world.take(W1)
    world.clock.advance(1_000)
    await world.finish(W1, job, Usage(10, 7, cached_tokens=4))
    (event,) = await world.usage_events()
    assert (event.request_id, event.organisation, event.workspace) == (job.request_id, "acme", "acme-main")
    assert (event.key_id, event.tier, event.kind, event.outcome) == ("key1", "tiny", "chat", "finished")
    assert (event.attempt, event.streamed, event.price_version) == (1, True, "p1")
    assert (event.prompt_tokens, event.completion_tokens, event.cached_tokens) == (10, 7, 4)
    assert (event.decoded_tokens, event.cost_nano) == (7, 20)
    assert (event.admitted_ms, event.taken_ms) == (start_ms, start_ms + 100)
    assert (event.first_token_ms, event.settled_ms) == (7, start_ms + 1_100)


async def test_only_the_worker_that_holds_it_may_finish(world: World):
    await world.admit()
    (job,) = await world.take(W1)
    end = End(job.request_id, 1, ("stop",), Usage(10, 5))
    finishes = [
        Finish(end, "w2", Outcome.FINISHED),
        Finish(replace(end, attempt=2), "w1", Outcome.FINISHED),
        Finish(replace(end, request_id="c0" + "f" * 30), "w1", Outcome.FINISHED),
    ]
    assert [each.accepted for each in await world.workers.finish(finishes)] == [False] * 3
    assert await world.open_reservations() == 1
    assert (await world.finish(W1, job)).accepted
    assert not (await world.finish(W1, job, outcome=Outcome.FAILED)).accepted
    assert len(await world.usage_events()) == 1


async def test_a_queued_request_cannot_be_finished(world: World):
    job = await world.admit()
    assert not (await world.finish(W1, job)).accepted
    assert (await world.gateway.standing(job.request_id)).state is RequestState.QUEUED


async def test_many_finish_at_once_each_settles_once(world: World):
    jobs = [await world.admit(tier="open") for _ in range(40)]
    slot = WorkerSlot("w1", "open", 100)
    taken = await world.take(slot, 40)
    assert len(taken) == 40
    both = await asyncio.gather(*(world.finish(slot, job) for job in taken for _ in range(2)))
    assert sum(settlement.accepted for settlement in both) == 40
    events = await world.usage_events()
    assert sorted(event.request_id for event in events) == sorted(job.request_id for job in jobs)
    assert await world.credit() == RICH_NANO - 40 * 20


async def test_the_record_is_kept_for_ten_minutes(world: World):
    await world.admit()
    (job,) = await world.take(W1)
    await world.finish(W1, job)
    await world.forget(599_000)
    assert (await world.gateway.standing(job.request_id)).end is not None
    await world.forget(2_000)
    standing = await world.gateway.standing(job.request_id)
    assert (standing.state, standing.end) == (RequestState.UNKNOWN, None)


async def test_nobody_has_heard_of_an_unknown_request(world: World):
    for standing in (
        await world.gateway.standing("c0" + "0" * 30),
        await world.gateway.retry("c0" + "0" * 30, 1),
        await world.gateway.cancel("c0" + "0" * 30, 5),
    ):
        assert standing.state is RequestState.UNKNOWN
