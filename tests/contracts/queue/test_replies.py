"""Reply streams: in order, kept alive by reading, and a writer learns that nobody reads."""

import asyncio

from core.queue.base import REPLIES_KEPT_MS, Outcome, WorkerSlot
from core.wire import End, Event, Piece, Usage
from tests.contracts.queue.world import World

W1 = WorkerSlot("w1", "tiny", 8)


def piece(index: int) -> Piece:
    return Piece("c0" + "1" * 30, 1, 0, index, (index,), f"word{index} ")


async def receive(world: World, count: int) -> list[Event]:
    events: list[Event] = []
    async with asyncio.timeout(20):
        while len(events) < count:
            events += await world.gateway.receive(1)
    return events


async def test_everything_arrives_once_and_in_order(world: World):
    sent: list[Event] = [piece(index) for index in range(300)]
    for start in range(0, 300, 3):
        assert await world.workers.send({"g1": sent[start : start + 3]}) == frozenset()
    assert await receive(world, 300) == sent
    assert await world.gateway.receive(0.01) == []


async def test_every_kind_of_event_survives_the_way(world: World):
    end = End("c0" + "2" * 30, 3, ("stop", "length"), Usage(10, 5, 2), 17, (b"\x00\xff",), None, "credit")
    failed = End("c0" + "3" * 30, 1, ("error",), error="The engine failed.")
    sent: list[Event] = [piece(0), end, failed]
    await world.workers.send({"g1": sent})
    assert await receive(world, 3) == sent


async def test_submitters_get_only_their_own(world: World):
    other = await world.new_submitter("g2")
    assert await world.workers.send({"g1": [piece(1)], "g2": [piece(2)]}) == frozenset()
    assert await receive(world, 1) == [piece(1)]
    assert await other.receive(1) == [piece(2)]


async def test_a_waiting_receive_wakes_up(world: World):
    waiting = asyncio.create_task(receive(world, 1))
    await asyncio.sleep(0)
    await world.workers.send({"g1": [piece(7)]})
    assert await waiting == [piece(7)]


async def test_a_writer_learns_that_nobody_reads(world: World):
    assert await world.workers.send({"g1": [piece(0)], "nobody": [piece(1)]}) == frozenset({"nobody"})
    assert await world.workers.send({"nobody": [piece(1)]}) == frozenset({"nobody"}), "sending creates nothing"
    await world.gateway.close()
    assert await world.workers.send({"g1": [piece(2)]}) == frozenset({"g1"})


async def test_reading_keeps_a_stream_alive_and_silence_ends_it(world: World):
    for _ in range(3):
        await world.forget(REPLIES_KEPT_MS - 5_000)
        await world.gateway.receive(0.01)
    assert await world.workers.send({"g1": [piece(0)]}) == frozenset()
    await world.forget(REPLIES_KEPT_MS + 1_000)
    assert await world.workers.send({"g1": [piece(1)]}) == frozenset({"g1"})


async def test_what_runs_for_a_gateway_that_is_gone_ends_free(world: World):
    await world.admit()
    (job,) = await world.take(W1)
    await world.gateway.close()
    assert await world.workers.send({job.submitter: [piece(0)]}) == frozenset({"g1"})
    settlement = await world.finish(W1, job, Usage(10, 3), Outcome.GATEWAY_LOST)
    assert (settlement.accepted, settlement.end.cost_nano) == (True, 0)
    assert await world.open_reservations() == 0


async def test_a_waiting_take_wakes_up(world: World):
    waiting = asyncio.create_task(world.workers.take(W1, 1, 30))
    await asyncio.sleep(0.01)
    job = await world.admit()
    async with asyncio.timeout(20):
        taken = await waiting
        while not taken:  # an implementation may look up earlier than asked
            taken = await world.workers.take(W1, 1, 30)
    assert taken == [job]


async def test_each_of_many_waiting_workers_gets_a_job(world: World):
    slots = [WorkerSlot(f"w{number}", "open", 1) for number in range(5)]

    async def one(slot: WorkerSlot) -> str:
        while not (jobs := await world.workers.take(slot, 1, 1)):
            pass
        return jobs[0].request_id

    waiting = [asyncio.create_task(one(slot)) for slot in slots]
    await asyncio.sleep(0.01)
    jobs = [await world.admit(tier="open") for _ in slots]
    async with asyncio.timeout(20):
        assert sorted(await asyncio.gather(*waiting)) == sorted(job.request_id for job in jobs)
