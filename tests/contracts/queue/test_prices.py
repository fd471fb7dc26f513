"""A change of price: the version in force at the admission, by one clock, whatever gateways believe."""

import asyncio
from dataclasses import replace

from core.queue.base import Price, RefusedBy, WorkerSlot
from core.wire import Usage
from tests.contracts.queue.world import START_MS, World

W1 = WorkerSlot("w1", "open", 500)
CHANGE_MS = START_MS + 3_000
OLD = Price("old", 1_000, 100, 2_000, START_MS - 1)
NEW = Price("new", 3_000, 300, 5_000, CHANGE_MS)


async def test_the_edge_is_exact_and_the_version_stays_with_the_request(world: World):
    await world.fund()
    world.clock.advance(2_999)
    before = await world.must_admit(world.job(tier="open"), prices=(OLD, NEW))
    world.clock.advance(1)
    after = await world.must_admit(world.job(tier="open"), prices=(OLD, NEW))
    assert (before.price_version, before.cost_reserved_nano) == ("old", 10 + 20)
    assert (after.price_version, after.cost_reserved_nano) == ("new", 30 + 50)
    jobs = await world.take(W1, 2)
    assert [(await world.finish(W1, job, Usage(10, 5))).end.cost_nano for job in jobs] == [20, 55]
    assert [event.price_version for event in await world.usage_events()] == ["old", "new"]


async def test_under_load_no_request_mixes_versions(world: World):
    """Gateways whose clocks differ carry the same versions: the change comes for all at once, in mid-load."""
    await world.fund()

    async def gateway(number: int) -> None:
        for step in range(20):
            job = world.job(tier="open", deadline_ms=world.clock.now_ms() + 800_000 + 60_000 * (number - 5))
            await world.must_admit(job, prices=(OLD, NEW))
            if (number + step) % 3 == 0:
                world.clock.advance(100)

    await asyncio.gather(*(gateway(number) for number in range(10)))
    while jobs := await world.take(W1, 100):
        for job in jobs:
            await world.finish(W1, job, Usage(10, 5))
    events = await world.usage_events()
    assert len(events) == 200
    assert {event.price_version for event in events} == {"old", "new"}
    for event in events:
        version = "new" if event.admitted_ms >= CHANGE_MS else "old"
        assert (event.price_version, event.cost_nano) == (version, 55 if version == "new" else 20)


async def test_without_a_price_in_force_the_principal_is_old(world: World):
    await world.fund()
    refused = await world.must_refuse(world.job(), prices=(NEW, replace(NEW, version="later", start_ms=CHANGE_MS + 1)))
    assert (refused.by, refused.refusal.rule) == (RefusedBy.STALE, "price")
    world.clock.advance(20_000)
    answer = await world.must_admit(world.job(), prices=(NEW, replace(NEW, version="later", start_ms=CHANGE_MS + 1)))
    assert answer.price_version == "later"
