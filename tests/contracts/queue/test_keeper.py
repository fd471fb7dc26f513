"""What the keeper counts, and the usage source that billing reads."""

import asyncio
from dataclasses import replace

from core.queue.base import OpenRequest, RequestState, TierStats, WorkerSlot
from tests.contracts.queue.world import World

W1 = WorkerSlot("w1", "tiny", 8)
OTHER = WorkerSlot("w2", "open", 8)


async def test_an_empty_cell_counts_nothing(world: World):
    stats = await world.keeper.stats(["tiny", "open"])
    assert stats.tiers == {"tiny": TierStats(0, 0, 0, 0), "open": TierStats(0, 0, 0, 0)}
    assert (stats.reservations_open, stats.usage_backlog, stats.dead_letters) == (0, 0, 0)
    assert await world.keeper.reap() == 0
    assert await world.keeper.generations([]) == {}


async def test_stats_follow_a_request_through_its_life(world: World):
    await world.admit()
    world.clock.advance(1_000)
    await world.admit()
    await world.admit(tier="open")
    world.clock.advance(500)
    await world.take(OTHER, 0)
    stats = await world.keeper.stats(["tiny", "open"])
    assert stats.tiers == {"tiny": TierStats(2, 0, 0, 1_500), "open": TierStats(1, 0, 1, 500)}
    (job,) = await world.take(W1)
    stats = await world.keeper.stats(["tiny"])
    assert (stats.tiers["tiny"], stats.reservations_open) == (TierStats(1, 1, 1, 500), 3)
    await world.finish(W1, job)
    stats = await world.keeper.stats(["tiny"])
    assert stats.tiers["tiny"] == TierStats(1, 0, 1, 500)
    assert (stats.reservations_open, stats.usage_backlog) == (2, 1)
    await world.workers.leave(W1)
    assert (await world.keeper.stats(["tiny"])).tiers["tiny"].workers == 0


async def test_a_lost_request_neither_waits_nor_runs_but_is_open(world: World):
    await world.admit()
    await world.take(W1)
    await world.lose()
    stats = await world.keeper.stats(["tiny"])
    assert (stats.tiers["tiny"], stats.reservations_open) == (TierStats(0, 0, 0, 0), 1)


async def test_a_request_is_told_of_until_it_is_settled(world: World):
    assert await world.keeper.open_request("c0" + "f" * 30) is None
    await world.admit()
    admitted_ms = world.clock.now_ms()
    world.clock.advance(70)
    (job,) = await world.take(W1)
    running = OpenRequest(
        job.request_id, "acme", "acme-main", "key1", "tiny", RequestState.RUNNING, 1, job.streamed, 10, admitted_ms,
        admitted_ms + 70,
    )  # fmt: skip
    assert await world.keeper.open_request(job.request_id) == running
    await world.lose()
    lost = replace(running, state=RequestState.LOST, taken_ms=0)
    assert await world.keeper.open_request(job.request_id) == lost
    await world.gateway.retry(job.request_id, 1)
    queued = await world.keeper.open_request(job.request_id)
    assert queued == replace(lost, state=RequestState.QUEUED, attempt=2)
    await world.gateway.cancel(job.request_id, 0)
    assert await world.keeper.open_request(job.request_id) is None


async def test_two_reapers_do_no_harm(world: World):
    for _ in range(4):
        await world.admit()
    await world.take(W1, 4)
    await world.keeper.reap()
    for _ in range(6):
        world.clock.advance(1_000)
        await asyncio.gather(world.keeper.reap(), world.keeper.reap())
    world.clock.advance(1_000)
    assert sum(await asyncio.gather(*(world.keeper.reap() for _ in range(3)))) == 4


async def test_usage_is_read_in_order_and_in_portions(world: World):
    jobs = [await world.admit(tier="open") for _ in range(7)]
    for job in await world.take(OTHER, 7):
        await world.finish(OTHER, job)
    portions = [await world.usage.read(3, 0) for _ in range(3)]
    assert [len(portion) for portion in portions] == [3, 3, 1]
    read = [event.request_id for portion in portions for _, event in portion]
    assert read == [job.request_id for job in jobs]
    assert await world.usage.read(3, 0.01) == []
    assert await world.usage.backlog() == 7


async def test_what_is_not_acknowledged_comes_again_after_a_restart(world: World):
    for _ in range(4):
        await world.admit(tier="open")
    for job in await world.take(OTHER, 4):
        await world.finish(OTHER, job)
    first = await world.usage.read(4, 0)
    await world.usage.acknowledge([event_id for event_id, _ in first[:2]])
    assert await world.usage.backlog() == 2
    again = world.new_usage_source()
    assert await again.read(10, 0) == first[2:]
    await again.acknowledge([event_id for event_id, _ in first])
    await again.acknowledge([])
    assert await again.read(10, 0.01) == []
    assert await again.backlog() == 0
    assert (await world.keeper.stats([])).usage_backlog == 0


async def test_a_restarted_reader_gets_the_old_and_then_the_new(world: World):
    await world.admit(tier="open")
    (job,) = await world.take(OTHER)
    await world.finish(OTHER, job)
    old = await world.usage.read(10, 0)
    again = world.new_usage_source()
    await world.admit(tier="open")
    (job,) = await world.take(OTHER)
    await world.finish(OTHER, job)
    seen = [*await again.read(10, 0), *await again.read(10, 0)]
    assert seen[: len(old)] == old
    assert [event.request_id for _, event in seen[len(old) :]] == [job.request_id]


async def test_a_waiting_reader_wakes_up(world: World):
    waiting = asyncio.create_task(world.usage.read(10, 30))
    await asyncio.sleep(0.01)
    await world.admit(tier="open")
    (job,) = await world.take(OTHER)
    await world.finish(OTHER, job)
    async with asyncio.timeout(20):
        found = await waiting
        while not found:  # an implementation may look up earlier than asked
            found = await world.usage.read(10, 30)
    assert [event.request_id for _, event in found] == [job.request_id]
