"""What an operator sees of the pools, and can do to them."""

import asyncio

from core.pools import OPERATOR, PoolLine, WorkerLine
from core.queue.base import DECIDE_MS, Outcome, RequestState, WorkerSlot
from core.wire import Usage
from tests.contracts.queue.world import LEASE_MS, World

W1, W2 = WorkerSlot("w1", "tiny", 8), WorkerSlot("w2", "tiny", 4)
AGAIN = "c0" + "f" * 30
WAIT_S = 5.0


async def buried(world: World):
    """A job that lost three workers."""
    job = await world.admit()
    for attempt in (1, 2, 3):
        assert len(await world.take(W1, 8)) == 1
        await world.lose()
        await world.gateway.retry(job.request_id, attempt)
    return job


async def test_an_overview_tells_workers_leases_and_what_waits(world: World):
    await world.take(W1)
    await world.take(W2)
    await world.keeper.reap()
    for _ in range(3):
        await world.admit()
    assert len(await world.take(W1, 2)) == 2
    await world.pass_time(1_500, W1)
    overview = await world.pools.overview(["tiny", "open"])
    assert overview.dead_letters == 0
    assert overview.tiers["open"] == PoolLine("open", False, 0, 0, 0, 0, ())
    tiny = overview.tiers["tiny"]
    assert (tiny.queued, tiny.running, tiny.oldest_wait_ms, tiny.drained) == (1, 2, 1_500, False)
    assert tiny.workers == (
        WorkerLine("w1", 8, 2, LEASE_MS, drained=False),
        WorkerLine("w2", 4, 0, LEASE_MS - 1_500, drained=False),
    )


async def test_a_drained_worker_takes_nothing_and_goes_on_with_what_it_holds(world: World):
    await world.take(W2)
    first = await world.admit()
    assert len(await world.take(W1)) == 1
    assert await world.pools.drain("tiny", "w1")
    second = await world.admit()
    assert await world.take(W1, 8) == []
    assert (await world.workers.renew(W1)).held
    assert (await world.finish(W1, first)).accepted
    workers = (await world.pools.overview(["tiny"])).tiers["tiny"].workers
    assert [worker.drained for worker in workers] == [True, False]
    assert [job.request_id for job in await world.take(W2)] == [second.request_id]
    third = await world.admit()
    assert await world.pools.resume("tiny", "w1")
    assert [job.request_id for job in await world.take(W1)] == [third.request_id]


async def test_a_drained_tier_keeps_its_queue_and_resumes_at_once(world: World):
    await world.take(W1)
    assert await world.pools.drain("tiny")
    job = await world.admit()
    assert await world.take(W1) == []
    assert await world.take(W2) == []
    tiny = (await world.pools.overview(["tiny"])).tiers["tiny"]
    assert (tiny.drained, tiny.queued) == (True, 1)
    waiting = asyncio.create_task(_wait_for_one(world))
    assert await world.pools.resume("tiny")
    async with asyncio.timeout(WAIT_S):
        assert (await waiting).request_id == job.request_id


async def _wait_for_one(world: World):
    while True:
        if jobs := await world.workers.take(W1, 1, 0.9):
            return jobs[0]


async def test_another_worker_is_woken_while_one_is_drained(world: World):
    """Both wait; whomever the bell wakes first."""
    await world.take(W1)
    await world.take(W2)
    await world.pools.drain("tiny", "w1")

    async def take(slot):
        while True:
            if jobs := await world.workers.take(slot, 1, 0.9):
                return slot, jobs

    waiting = [asyncio.create_task(take(slot)) for slot in (W1, W2)]
    await asyncio.sleep(0.05)  # so that both listen; the test holds without it, too
    await world.admit()
    done, pending = await asyncio.wait(waiting, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
    for each in pending:
        each.cancel()
    await asyncio.wait(pending)
    [first] = done
    assert first.result()[0] == W2


async def test_who_is_not_there_cannot_be_drained_and_who_leaves_is_forgotten(world: World):
    assert not await world.pools.drain("tiny", "w1")
    await world.take(W1)
    assert not await world.pools.drain("open", "w1")
    assert await world.pools.drain("tiny", "w1")
    await world.workers.leave(W1)
    assert not await world.pools.resume("tiny", "w1")
    await world.admit()
    assert len(await world.take(W1)) == 1


async def test_a_drained_worker_does_not_keep_what_must_run_alone(world: World):
    job = await world.admit()
    for attempt in (1, 2):
        await world.take(W1)
        await world.lose()
        await world.gateway.retry(job.request_id, attempt)
    await world.admit()
    held = await world.take(W1, 1)
    assert [each.request_id for each in held] == [job.request_id]
    await world.workers.leave(W1)
    await world.gateway.retry(job.request_id, 3)
    await world.take(W1, 0)
    await world.take(W2, 0)
    await world.pools.drain("tiny", "w1")
    assert await world.take(W1) == []
    assert [each.request_id for each in await world.take(W2)] == [job.request_id]


async def test_a_dead_letter_is_listed_and_can_be_dropped(world: World):
    job = await buried(world)
    [letter] = await world.pools.dead_letters(10)
    assert (letter.request_id, letter.tier, letter.organisation, letter.workspace) == (
        job.request_id,
        "tiny",
        "acme",
        "acme-main",
    )
    assert (letter.lost_ms, letter.runnable) == (world.clock.now_ms(), True)
    assert await world.pools.drop(letter.letter_id)
    assert not await world.pools.drop(letter.letter_id)
    assert not await world.pools.requeue(letter.letter_id, AGAIN)
    assert await world.pools.dead_letters(10) == []
    assert (await world.keeper.stats(["tiny"])).dead_letters == 0


async def test_a_dead_letter_runs_once_more_alone_and_for_nothing(world: World):
    job = await buried(world)
    [letter] = await world.pools.dead_letters(10)
    await world.usage_events()
    credit = await world.credit()
    assert await world.pools.requeue(letter.letter_id, AGAIN)
    assert not await world.pools.requeue(letter.letter_id, AGAIN)
    await world.admit("beta")
    [again] = await world.take(W1, 8)
    assert (again.request_id, again.attempt, again.prompt_ids) == (AGAIN, 1, job.prompt_ids)
    assert again.keep_answer
    assert (await world.finish(W1, again, Usage(10, 5), Outcome.GATEWAY_LOST)).accepted
    standing = await world.gateway.standing(AGAIN)
    assert standing.state is RequestState.SETTLED
    assert standing.end is not None
    assert standing.end.cost_nano == 0
    [event] = await world.usage_events()
    assert (event.organisation, event.cost_nano) == (OPERATOR, 0)
    assert await world.credit() == credit
    assert len(await world.take(W1, 8)) == 1, "beta's"
    assert (await world.keeper.stats(["tiny"])).dead_letters == 0


async def test_one_that_loses_its_worker_again_is_a_letter_again(world: World):
    await buried(world)
    [letter] = await world.pools.dead_letters(10)
    assert await world.pools.requeue(letter.letter_id, AGAIN)
    assert len(await world.take(W1, 8)) == 1
    assert await world.lose() == 1
    await world.pass_time(DECIDE_MS + 2_000)  # nobody decides
    assert [letter.request_id for letter in await world.pools.dead_letters(10)] == [AGAIN]
    assert (await world.gateway.standing(AGAIN)).state is RequestState.SETTLED
    assert await world.open_reservations() == 0
