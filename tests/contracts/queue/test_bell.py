"""A worker that waits is woken as soon as there is something for it, not by its safety look."""

import asyncio

from core.queue.base import WorkerSlot
from core.wire import Job
from tests.contracts.queue.world import World

W1 = WorkerSlot("w1", "tiny", 8)
SHORT_S, LONG_S = 0.02, 1.0


async def waiting(world: World) -> "asyncio.Task[list[Job]]":
    """A take that finds nothing yet; rings from before are used up."""
    for _ in range(3):
        assert await world.workers.take(W1, 2, SHORT_S) == []
    task = asyncio.create_task(world.workers.take(W1, 2, LONG_S))
    await asyncio.sleep(SHORT_S)
    return task


async def test_an_admission_wakes_it(world: World):
    take = await waiting(world)
    job = await world.admit()
    assert await take == [job]


async def test_a_finish_wakes_it_when_the_reserve_had_held_jobs_back(world: World):
    for _ in range(10):
        await world.admit("flood")
    jobs = await world.take(W1, 8)
    assert len(jobs) == 6
    take = await waiting(world)
    await world.finish(W1, jobs[0])
    assert len(await take) == 1


async def test_a_finish_wakes_it_when_it_had_to_run_alone(world: World):
    poison = await world.admit()
    for attempt in (1, 2):
        await world.take(W1)
        await world.lose()
        await world.gateway.retry(poison.request_id, attempt)
    (alone,) = await world.take(W1)
    other = await world.admit()
    take = await waiting(world)
    await world.finish(W1, alone)
    assert await take == [other]
