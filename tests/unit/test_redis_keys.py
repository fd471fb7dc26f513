"""What requests leave in Redis: nothing if they were refused, nothing for ever if they were not."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from core.meter.keys import cell_key
from core.queue.base import Admitted, Claim, Extension, Outcome, Price, Refused, RefusedBy, Repeated, WorkerSlot
from core.queue.rules import CALENDAR, Rule, RuleKind, Window
from core.wire import Usage
from tests.contracts.queue.world import START_MS, World, redis_world

DAY_MS = 86_400_000
WINDOWS = (Window("now", START_MS - 1_000, START_MS + 1_000), Window("next", START_MS + 1_000, START_MS + DAY_MS))
RULES = tuple(Rule(kind, "key", "key1", 50_000, windows=WINDOWS if kind in CALENDAR else ()) for kind in RuleKind)
SEEDED = tuple(rule for rule in RULES if rule.kind in CALENDAR)
CLAIM = Claim("claim", "digest")
SLOT = WorkerSlot("w1", "tiny", 4)
CELL = cell_key("c0")


@pytest.fixture
async def world(bundled_socket: str) -> AsyncIterator[World]:
    async with redis_world(bundled_socket) as made:
        yield made


@pytest.fixture
async def client(bundled_socket: str) -> AsyncIterator[Redis]:
    async with Redis(unix_socket_path=bundled_socket) as made:
        yield made


async def everything(client: Redis) -> dict[bytes, tuple[bytes, bool]]:
    keys = sorted(await client.keys())
    return {key: (await client.dump(key), await client.pttl(key) > 0) for key in keys}


async def seed(world: World) -> None:
    for rule in SEEDED:
        await world.counters.seed(rule, WINDOWS[0], 100)


REFUSED = {
    "generation": (RefusedBy.STALE, {"generation": 0}),
    "price": (RefusedBy.STALE, {"prices": (Price("later", 1, 1, 1, START_MS + 1),)}),
    "window": (RefusedBy.STALE, {"rules": (*RULES, replace(SEEDED[0], windows=WINDOWS[1:]))}),
    "wait": (RefusedBy.QUEUE_SLOW, {"queue_wait_ms_max": -1}),
    "calendar": (RefusedBy.UNSEEDED, {"rules": (*RULES, replace(SEEDED[0], scope_id="other"))}),
    "credit": (RefusedBy.CREDIT, {"prices": (Price("dear", 0, 0, 10**9),), "output_reserved": 10**9}),
    **{
        f"{rule.kind.value} {limit}": (RefusedBy.RULE, {"rules": (*RULES, replace(rule, scope_id="low", limit=limit))})
        for rule in RULES
        if rule.kind not in CALENDAR
        for limit in (0, 20 if rule.kind is RuleKind.TOKENS_PER_MINUTE else 1)
    },
    **{rule.kind.value: (RefusedBy.RULE, {"rules": (*RULES, replace(rule, limit=100))}) for rule in SEEDED},
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal_leaves_no_trace(world: World, client: Redis, name: str):
    by, changes = REFUSED[name]
    await world.fund("acme")
    await world.keeper.set_generation("acme", 1)
    await seed(world)
    low = tuple(replace(rule, scope_id="low", limit=21) for rule in RULES if rule.kind not in CALENDAR)
    await world.must_admit(world.job(), rules=(*RULES, *low))
    before = await everything(client)
    refused = await world.try_admit(world.job(), claim=CLAIM, **changes)
    assert isinstance(refused, Refused)
    assert refused.by is by
    assert await everything(client) == before


async def test_without_an_epoch_there_is_no_trace_either(world: World, client: Redis):
    await world.restart()
    before = await everything(client)
    assert (await world.must_refuse(world.job(), claim=CLAIM, rules=RULES)).by is RefusedBy.EPOCH
    assert await everything(client) == before


async def test_a_repetition_and_a_look_leave_no_trace(world: World, client: Redis):
    await world.fund("acme")
    await seed(world)
    await world.must_admit(world.job(), claim=CLAIM, rules=RULES)
    world.clock.advance(70_000)  # so that there is something old which a look could tidy up
    before = await everything(client)
    assert isinstance(await world.try_admit(world.job(), claim=CLAIM, rules=RULES), Repeated)
    await world.counters.states(RULES)
    await world.funds.level("acme")
    assert await everything(client) == before


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_what_belongs_to_one_request_or_counter_expires(world: World, client: Redis, outcome: Outcome):
    await world.fund("acme")
    await seed(world)
    job = world.job()
    assert isinstance(await world.try_admit(job, claim=CLAIM, rules=RULES), Admitted)
    await world.take(SLOT)
    await world.workers.extend([Extension(job.request_id, 1, SLOT.worker_id, 50)])
    await world.finish(SLOT, job, Usage(10, 30), outcome)
    await world.usage_events()
    bounded = [key for key, (_, expires) in (await everything(client)).items() if not expires]
    for key in bounded:
        for part in (job.request_id, CLAIM.key, "key1"):
            assert part.encode() not in key
    await world.forget(5 * DAY_MS)
    await world.workers.leave(SLOT)
    names = {key.decode().removeprefix(f"{CELL}:") for key in await client.keys()}
    of_the_platform = {"epoch", "usage", "o:acme", "t:tiny", "v:tiny", "bell:tiny"}
    assert names <= of_the_platform, "a handful for an organisation and a tier, whatever they did"


async def test_a_log_of_requests_is_kept_while_anything_in_it_counts_and_not_much_longer(world: World, client: Redis):
    await world.fund("acme")
    key = f"{CELL}:n:requests_per_minute:key:key1"
    per_minute = Rule(RuleKind.REQUESTS_PER_MINUTE, "key", "key1", 10_000)
    lengths = []
    for _ in range(400):
        await world.must_admit(world.job(), rules=(per_minute,))
        left_ms = await client.pttl(key)
        assert left_ms >= 60_060
        lengths.append(await client.strlen(key) // 16)
        world.clock.advance(500)
        await client.pexpire(key, left_ms - 500)
    assert max(lengths[:150]) == 150
    assert max(lengths) <= 2 * 120 + 66
    assert await client.pttl(key) <= 120_000


async def test_a_calendar_counter_is_kept_three_days_beyond_its_window(world: World, client: Redis):
    await seed(world)
    for rule in SEEDED:
        left_ms = await client.pttl(f"{CELL}:u:1:{rule.kind.value}:key:key1:now")
        assert 3 * DAY_MS - 60_000 < left_ms <= 3 * DAY_MS + 1_000
