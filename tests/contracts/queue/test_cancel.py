"""Cancel really cancels, and the bill is bounded by what the reader got."""

import asyncio

import pytest

from core.queue.base import (
    Outcome,
    RequestState,
    WorkerSlot,
)
from core.queue.rules import Rule, RuleKind
from core.wire import Usage
from tests.contracts.queue.world import RICH_NANO, World

W1 = WorkerSlot("w1", "tiny", 3)
W2 = WorkerSlot("w2", "tiny", 3)
OPEN = Rule(RuleKind.CONCURRENCY, "organisation", "acme", 100)


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.TIMEOUT, Outcome.FAILED])
async def test_what_has_not_started_is_settled_at_once_and_free(world: World, outcome: Outcome):
    job = await world.admit()
    standing = await world.gateway.cancel(job.request_id, 100, outcome)
    assert standing.state is RequestState.SETTLED
    assert standing.end is not None
    assert (standing.end.usage, standing.end.cost_nano) == (Usage(), 0)
    assert await world.take(W1, 3) == []
    (event,) = await world.usage_events()
    assert (event.outcome, event.taken_ms, event.cost_nano) == (outcome.value, 0, 0)
    assert await world.credit() == RICH_NANO
    stats = await world.keeper.stats(["tiny"])
    assert (stats.tiers["tiny"].queued, stats.reservations_open) == (0, 0)


async def test_what_is_lost_is_settled_at_once_and_free(world: World):
    await world.admit()
    (job,) = await world.take(W1)
    await world.lose()
    standing = await world.gateway.cancel(job.request_id, 100)
    assert standing.state is RequestState.SETTLED
    assert (await world.gateway.retry(job.request_id, 1)).state is RequestState.SETTLED
    await world.pass_time(6_000)
    assert [event.outcome for event in await world.usage_events()] == ["cancelled"]
    assert await world.credit() == RICH_NANO


@pytest.mark.parametrize(("counted", "bound", "billed"), [(9, 4, 4), (9, 9, 9), (4, 9, 4), (9, 0, 0)])
async def test_a_running_request_bills_its_prompt_and_at_most_the_bound(
    world: World, counted: int, bound: int, billed: int
):
    await world.admit()
    (job,) = await world.take(W1)
    standing = await world.gateway.cancel(job.request_id, bound)
    assert (standing.state, standing.end) == (RequestState.RUNNING, None)
    settlement = await world.finish(W1, job, Usage(10, counted), Outcome.CANCELLED)
    assert settlement.accepted
    assert settlement.end.usage == Usage(10, billed)
    assert settlement.end.cost_nano == 10 + 2 * billed
    (event,) = await world.usage_events()
    assert (event.outcome, event.completion_tokens, event.decoded_tokens) == ("cancelled", billed, counted)


async def test_the_first_cancel_wins(world: World):
    await world.admit()
    (job,) = await world.take(W1)
    for bound in (5, 3, 50):
        await world.gateway.cancel(job.request_id, bound)
    assert (await world.finish(W1, job, Usage(10, 40), Outcome.CANCELLED)).end.usage == Usage(10, 5)


async def test_a_worker_that_has_not_seen_the_cancel_yet_bills_no_more(world: World):
    await world.admit()
    (job,) = await world.take(W1)
    await world.gateway.cancel(job.request_id, 5)
    settlement = await world.finish(W1, job, Usage(10, 40), Outcome.FINISHED)
    assert (settlement.accepted, settlement.end.usage) == (True, Usage(10, 5))
    (event,) = await world.usage_events()
    assert event.outcome == "cancelled"


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.GATEWAY_LOST])
async def test_a_cancelled_request_that_failed_is_free(world: World, outcome: Outcome):
    await world.admit()
    (job,) = await world.take(W1)
    await world.gateway.cancel(job.request_id, 5)
    assert (await world.finish(W1, job, Usage(10, 40), outcome)).end.cost_nano == 0


async def test_the_renewal_lists_it_until_it_is_finished(world: World):
    for _ in range(2):
        await world.admit()
    first, second = await world.take(W1, 2)
    await world.gateway.cancel(second.request_id, 5)
    for _ in range(2):
        assert (await world.workers.renew(W1)).cancelled == (second.request_id,)
    await world.finish(W1, second, Usage(10, 5), Outcome.CANCELLED)
    assert (await world.workers.renew(W1)).cancelled == ()
    assert (await world.finish(W1, first)).accepted


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMEOUT])
async def test_to_give_up_on_a_running_request_settles_it_at_once(world: World, outcome: Outcome):
    await world.fund()
    await world.try_admit(world.job(), rules=(OPEN,))
    (job,) = await world.take(W1)
    standing = await world.gateway.cancel(job.request_id, 5, outcome)
    assert (standing.state, standing.attempt) == (RequestState.SETTLED, 2)
    assert standing.end is not None
    assert standing.end.cost_nano == 0
    assert (await world.workers.renew(W1)).cancelled == (job.request_id,)
    assert not (await world.finish(W1, job, Usage(10, 5))).accepted
    assert (await world.workers.renew(W1)).cancelled == ()
    (event,) = await world.usage_events()
    assert (event.outcome, event.cost_nano) == (outcome.value, 0)
    assert await world.credit() == RICH_NANO
    assert await world.open_in_scope(OPEN) == 0
    assert (await world.keeper.stats(["tiny"])).tiers["tiny"].running == 0


async def test_cancelling_what_is_settled_answers_with_the_kept_end(world: World):
    await world.admit()
    (job,) = await world.take(W1)
    settlement = await world.finish(W1, job)
    for outcome in (Outcome.CANCELLED, Outcome.TIMEOUT):
        standing = await world.gateway.cancel(job.request_id, 0, outcome)
        assert (standing.state, standing.end) == (RequestState.SETTLED, settlement.end)
    assert len(await world.usage_events()) == 1


async def test_a_cancel_wakes_the_worker_that_waits(world: World):
    await world.admit()
    (job,) = await world.take(W1)
    waiting = asyncio.create_task(world.workers.take(W1, 1, 30))
    other = asyncio.create_task(world.workers.take(W2, 1, 0.05))
    await asyncio.sleep(0)
    await world.gateway.cancel(job.request_id, 5)
    async with asyncio.timeout(20):
        assert await waiting == []
    assert (await world.workers.renew(W1)).cancelled == (job.request_id,)
    assert await other == []


async def test_cancelled_twice_and_finished_settles_once(world: World):
    await world.admit()
    (job,) = await world.take(W1)
    await asyncio.gather(*(world.gateway.cancel(job.request_id, bound) for bound in range(5)))
    answers = await asyncio.gather(
        *(world.finish(W1, job, Usage(10, 9), outcome) for outcome in (Outcome.CANCELLED, Outcome.FINISHED))
    )
    assert sum(answer.accepted for answer in answers) == 1
    assert len(await world.usage_events()) == 1
