"""Leases, attempts, retries: what happens when a worker falls silent."""

from dataclasses import replace

from core.queue.base import (
    Outcome,
    RequestState,
    Standing,
    WorkerSlot,
)
from core.queue.rules import Rule, RuleKind
from core.wire import End, Lost, Usage
from tests.contracts.queue.world import LEASE_MS, RICH_NANO, World

W1 = WorkerSlot("w1", "tiny", 3)
W2 = WorkerSlot("w2", "tiny", 3)
W3 = WorkerSlot("w3", "tiny", 3)


async def lost_twice(world: World) -> Standing:
    """A job on its third attempt, queued."""
    job = await world.admit()
    for attempt in (1, 2):
        assert len(await world.take(W1)) == 1
        assert await world.lose() == 1
        standing = await world.gateway.retry(job.request_id, attempt)
    return standing


async def test_a_renewed_lease_is_held_however_long_the_job_takes(world: World):
    await world.admit()
    (job,) = await world.take(W1)
    await world.keeper.reap()
    assert await world.pass_time(20 * LEASE_MS, W1) == 0
    assert (await world.finish(W1, job)).accepted


async def test_a_silent_worker_loses_everything_and_submitters_are_told(world: World):
    for _ in range(2):
        await world.admit()
    jobs = await world.take(W1, 2)
    assert await world.lose() == 2
    told = await world.gateway.receive(1)
    while len(told) < 2:
        told += await world.gateway.receive(1)
    assert set(told) == {Lost(job.request_id, 1) for job in jobs}
    for job in jobs:
        standing = await world.gateway.standing(job.request_id)
        assert (standing.state, standing.attempt, standing.end) == (RequestState.LOST, 1, None)
    assert await world.open_reservations() == 2
    assert not (await world.workers.renew(W1)).held


async def test_an_unregistered_worker_holds_no_lease(world: World):
    assert not (await world.workers.renew(W1)).held
    await world.take(W1)
    assert (await world.workers.renew(W1)).held


async def test_an_expired_lease_that_was_not_reaped_can_be_renewed(world: World):
    await world.admit()
    (job,) = await world.take(W1)
    world.clock.advance(LEASE_MS * 3)
    assert (await world.workers.renew(W1)).held
    assert (await world.finish(W1, job)).accepted


async def test_a_loss_is_run_again_in_front_and_billed_once(world: World):
    jobs = [await world.admit() for _ in range(3)]
    await world.take(W1)
    await world.lose()
    standing = await world.gateway.retry(jobs[0].request_id, 1)
    assert (standing.state, standing.attempt, standing.queue_position) == (RequestState.QUEUED, 2, 0)
    (again,) = await world.take(W2)
    assert again == replace(jobs[0], attempt=2)
    settlement = await world.finish(W2, again)
    assert settlement.accepted
    assert settlement.end.attempt == 2
    (event,) = await world.usage_events()
    assert (event.attempt, event.prompt_tokens, event.cost_nano) == (2, 10, 20)
    assert await world.credit() == RICH_NANO - 20 - 2 * 30, "two are still reserved"


async def test_a_zombie_is_refused_at_every_moment(world: World):
    await world.admit()
    (zombie,) = await world.take(W1)
    await world.lose()
    assert not (await world.finish(W1, zombie)).accepted, "while it is lost"
    await world.gateway.retry(zombie.request_id, 1)
    assert not (await world.finish(W1, zombie)).accepted, "while it is queued again"
    (again,) = await world.take(W2)
    assert not (await world.finish(W1, zombie)).accepted, "while it runs elsewhere"
    assert not (await world.finish(W1, again)).accepted, "even with the valid number"
    assert (await world.finish(W2, again)).accepted
    assert not (await world.finish(W1, zombie)).accepted, "when it is settled"
    assert len(await world.usage_events()) == 1


async def test_a_zombie_on_the_same_worker_is_told_by_the_attempt(world: World):
    await world.admit()
    (zombie,) = await world.take(W1)
    await world.lose()
    await world.gateway.retry(zombie.request_id, 1)
    (again,) = await world.take(W1)
    assert again.attempt == 2
    assert not (await world.finish(W1, zombie)).accepted
    assert (await world.finish(W1, again)).accepted


async def test_retry_is_only_for_a_lost_record_with_this_attempt(world: World):
    job = await world.admit()
    for state in (RequestState.QUEUED, RequestState.RUNNING):
        standing = await world.gateway.retry(job.request_id, 1)
        assert (standing.state, standing.attempt) == (state, 1)
        if state is RequestState.QUEUED:
            await world.take(W1)
    await world.lose()
    assert (await world.gateway.retry(job.request_id, 2)).state is RequestState.LOST
    assert (await world.gateway.retry(job.request_id, 1)).state is RequestState.QUEUED
    assert (await world.gateway.retry(job.request_id, 1)).attempt == 2
    (again,) = await world.take(W2)
    settlement = await world.finish(W2, again)
    standing = await world.gateway.retry(job.request_id, 1)
    assert (standing.state, standing.end) == (RequestState.SETTLED, settlement.end)


async def test_a_loss_that_nobody_decides_on_is_settled_without_charge(world: World):
    await world.admit()
    (job,) = await world.take(W1)
    await world.lose()
    await world.pass_time(4_000)
    assert (await world.gateway.standing(job.request_id)).state is RequestState.LOST
    await world.pass_time(2_000)
    standing = await world.gateway.standing(job.request_id)
    assert (standing.state, standing.attempt) == (RequestState.SETTLED, 2)
    assert standing.end is not None
    assert standing.end.error is not None
    assert standing.end.cost_nano == 0
    (event,) = await world.usage_events()
    assert (event.outcome, event.cost_nano) == ("failed", 0)
    assert await world.credit() == RICH_NANO
    assert (await world.keeper.stats(["tiny"])).dead_letters == 0


async def test_after_an_outage_nothing_is_lost(world: World):
    """Redis or every reaper was away: silence proves nothing, so each lease starts afresh."""
    await world.admit()
    (job,) = await world.take(W1)
    await world.keeper.reap()
    world.clock.advance(10 * LEASE_MS)
    assert await world.keeper.reap() == 0
    assert await world.pass_time(LEASE_MS - 2_000) == 0
    assert (await world.workers.renew(W1)).held
    assert (await world.finish(W1, job)).accepted


async def test_leaving_gives_back_without_a_strike(world: World):
    job = await world.admit()
    for attempt in range(1, 6):
        assert len(await world.take(W1)) == 1
        await world.workers.leave(W1)
        assert await world.gateway.receive(1) == [Lost(job.request_id, attempt)]
        assert not (await world.workers.renew(W1)).held
        assert (await world.gateway.retry(job.request_id, attempt)).state is RequestState.QUEUED
    (again,) = await world.take(W2)
    assert again.attempt == 6
    assert (await world.finish(W2, again)).accepted
    assert (await world.keeper.stats(["tiny"])).dead_letters == 0


async def test_the_third_attempt_runs_alone(world: World):
    poison = await lost_twice(world)
    assert (poison.state, poison.attempt) == (RequestState.QUEUED, 3)
    for _ in range(3):
        await world.admit()
    (alone,) = await world.take(W1, 3)
    assert alone.attempt == 3
    assert await world.take(W1, 2) == [], "nothing beside it"
    assert len(await world.take(W2, 3)) == 3, "others go on"
    await world.finish(W1, alone)
    await world.admit()
    assert len(await world.take(W1, 3)) == 1


async def test_a_busy_worker_is_emptied_for_a_job_that_runs_alone(world: World):
    await world.take(W1, 0)
    job = await world.admit()
    for attempt in (1, 2):
        assert len(await world.take(W2)) == 1
        assert await world.lose(W1) == 1
        if attempt == 1:
            await world.gateway.retry(job.request_id, 1)
    ordinary = await world.admit("other")
    assert [each.request_id for each in await world.take(W1, 1)] == [ordinary.request_id]
    await world.gateway.retry(job.request_id, 2)
    waiting = [await world.admit("other") for _ in range(2)]
    assert await world.take(W1, 2) == [], "set aside: it gets nothing until it is empty"
    (elsewhere,) = await world.take(W3, 1)
    assert elsewhere.request_id == waiting[0].request_id, "the others are not held up"
    await world.finish(W1, replace(ordinary, attempt=1))
    (second,) = await world.take(W3, 1)
    assert second.request_id == waiting[1].request_id, "still set aside: another worker that is busy is not"
    (alone,) = await world.take(W1, 3)
    assert (alone.request_id, alone.attempt) == (job.request_id, 3)


async def test_a_worker_that_was_set_aside_and_is_gone_is_replaced(world: World):
    await world.take(W1, 0)
    job = await world.admit()
    for attempt in (1, 2):
        assert len(await world.take(W2)) == 1
        assert await world.lose(W1) == 1
        if attempt == 1:
            await world.gateway.retry(job.request_id, 1)
    await world.admit("other")
    assert len(await world.take(W1, 1)) == 1
    await world.gateway.retry(job.request_id, 2)
    assert await world.take(W1, 1) == []
    await world.workers.leave(W1)
    assert [each.request_id for each in await world.take(W3, 1)] == [job.request_id]


async def test_a_job_that_runs_alone_is_charged_to_its_flow_like_any_other(world: World):
    await lost_twice(world)
    for _ in range(3):
        await world.admit("beta")
        await world.admit("acme")
    assert len(await world.take(W1)) == 1, "the third attempt: 3 x 20 so far"
    crowd = WorkerSlot("w2", "tiny", 100)
    order = [job.organisation for job in await world.take(crowd, 6)]
    assert order == ["beta", "beta", "acme", "beta", "acme", "acme"]


async def test_poison_ends_as_a_dead_letter_and_costs_nothing(world: World):
    poison = (await lost_twice(world)).attempt
    assert poison == 3
    (third,) = await world.take(W1)
    assert await world.lose() == 1
    standing = await world.gateway.retry(third.request_id, 3)
    assert standing.state is RequestState.SETTLED
    assert standing.end is not None
    assert standing.end.error is not None
    assert (standing.end.usage, standing.end.cost_nano) == (Usage(), 0)
    stats = await world.keeper.stats(["tiny"])
    assert (stats.dead_letters, stats.reservations_open) == (1, 0)
    assert await world.take(W2, 3) == []
    (event,) = await world.usage_events()
    assert (event.outcome, event.cost_nano, event.prompt_tokens) == ("failed", 0, 0)
    assert await world.credit() == RICH_NANO


async def test_what_is_past_its_deadline_is_settled_in_any_state(world: World):
    deadline_ms = world.clock.now_ms() + 20_000
    rule = Rule(RuleKind.CONCURRENCY, "organisation", "acme", 100)
    await world.fund()
    jobs = [world.job(deadline_ms=deadline_ms) for _ in range(3)]
    for job in jobs:
        await world.try_admit(job, rules=(rule,))
    running = (await world.take(W1, 1))[0]
    await world.keeper.reap()
    await world.pass_time(11_000, W1)
    await world.take(W2, 1)
    await world.workers.leave(W2)
    await world.pass_time(1_000, W1)
    await world.gateway.retry(jobs[1].request_id, 1)
    await world.pass_time(12_000, W1)
    assert await world.open_reservations() == 3, "24 s: there are 5 s of grace"
    await world.pass_time(2_000, W1)
    for job in jobs:
        standing = await world.gateway.standing(job.request_id)
        assert standing.state is RequestState.SETTLED
        assert standing.end is not None
        assert standing.end.cost_nano == 0
    assert {event.outcome for event in await world.usage_events()} == {"timeout"}
    assert not (await world.finish(W1, running)).accepted
    assert await world.open_in_scope(rule) == 0
    assert await world.credit() == RICH_NANO
    assert await world.take(W2, 3) == []


async def test_a_worker_is_told_to_abort_what_was_settled_over_it(world: World):
    job = await world.admit(deadline_ms=world.clock.now_ms() + 2_000)
    await world.take(W1)
    await world.keeper.reap()
    await world.pass_time(8_000, W1)
    assert (await world.workers.renew(W1)).cancelled == (job.request_id,)
    late = End(job.request_id, 1, ("stop",), Usage(10, 5))
    assert not (await world.finish(W1, replace(job, attempt=late.attempt), outcome=Outcome.CANCELLED)).accepted
    assert (await world.workers.renew(W1)).cancelled == ()
