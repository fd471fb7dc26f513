"""The way in, with billing behind it: blocks, seeds and epochs are fetched before a caller hears of them."""

import asyncio
import contextlib
from collections import Counter
from dataclasses import replace

import pytest
import structlog

from billing.accounts import available, post
from billing.treasury import Treasury
from core.errors import PlatformError
from core.ids import SystemIds
from core.queue.base import Price
from core.queue.memory import MemoryCounterStore, MemoryCreditStore
from core.queue.rules import Rule, RuleKind, Window
from gateway.conversation import Conversation
from gateway.funding import BillingFunding, FundingSettings
from gateway.gate import Gate
from gateway.principal import Principal
from gateway.routes.access import Caller
from tests.unit.exchange_stage import Stage, chat

COST_NANO = 1_000_000  # of one admission here, prompt and output slice
EXPIRES_MS = 4_102_444_800_000
LOW_NANO = FundingSettings().low_requests * COST_NANO
PRICE = Price("v1", 100_000, 100_000, 1_998_000)  # 10 x 100 + 500 x 1998 = 1 000 000 nano


class Generations:
    """What is published before an epoch opens."""

    def __init__(self):
        self.published = 0

    async def publish(self):
        self.published += 1


class SlowStore:
    """Gifts arrive while `arriving` is set."""

    def __init__(self, store):
        self._store = store
        self.arriving = asyncio.Event()
        self.arriving.set()

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def give(self, *arguments):
        await self.arriving.wait()
        return await self._store.give(*arguments)


class Principals:
    def __init__(self):
        self.generation = 1
        self.forgotten = 0

    async def by_key(self, _secret):
        return replace(principal(self.generation), expires_ms=EXPIRES_MS)

    def forget(self, _secret):
        self.forgotten += 1


def principal(generation=1):
    return Principal("key", "w", "org", frozenset({"inference"}), generation, 1, (), {"tiny": (PRICE,)})


class World(Stage):
    def __init__(self, database):
        super().__init__()
        self.database = database
        self.store = SlowStore(MemoryCreditStore(self.broker))
        self.counters = MemoryCounterStore(self.broker, self.clock)
        self.treasury = Treasury(database, self.store, self.clock, SystemIds(self.clock))
        self.generations = Generations()
        self.principals = Principals()
        quiet = structlog.wrap_logger(structlog.ReturnLogger())
        self.funding = BillingFunding(
            self.treasury,
            self.generations,
            self.counters,
            database,
            self.clock,
            quiet,
            FundingSettings(refill_ms=1, moving_ms=1),
        )
        self.gate = Gate(self.exchange, self.principals, self.funding)

    @contextlib.asynccontextmanager
    async def running(self):
        await self.memory_queue.open()
        runner = asyncio.create_task(self.exchange.run())
        try:
            yield self
        finally:
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)
            await self.funding.close()
            await self.exchange.close()

    def pay_in(self, amount_nano):
        with self.database.unit_of_work() as session:
            assert post(session, "org", amount_nano)

    def account(self):
        with self.database.reading() as session:
            return available(session, "org")

    async def open(self, rules=()):
        def admit(who):
            return self.priced(chat(generation=who.generation, rules=rules))

        return await self.gate.open(Caller("secret", principal()), admit)

    @staticmethod
    def priced(admission):
        return replace(admission, prices=(PRICE,))


@pytest.fixture
async def world(database):
    async with World(database).running() as made:
        yield made


async def outcome(world, **options):
    try:
        opened = await world.open(**options)
    except PlatformError as error:
        return error.kind.status, error.kind.type
    assert isinstance(opened, Conversation)
    return 200, ""


async def test_the_first_request_opens_the_epoch_and_fetches_a_block(world):
    world.pay_in(100 * COST_NANO)
    assert await outcome(world) == (200, "")
    assert world.generations.published == 1
    assert world.account().held_nano >= COST_NANO


async def test_many_at_once_are_served_as_far_as_the_credit_goes(world):
    world.pay_in(20 * COST_NANO)
    answers = Counter(await asyncio.gather(*(outcome(world) for _ in range(60))))
    assert answers == {(200, ""): 20, (429, "credit_reserved"): 40}
    assert world.account().available_nano == 0


async def test_without_credit_the_figures_are_told(world):
    world.pay_in(COST_NANO - 1)
    with pytest.raises(PlatformError) as refused:
        await world.open()
    assert refused.value.kind.status == 402
    assert all(str(figure) in refused.value.message for figure in (COST_NANO, COST_NANO - 1))


async def test_credit_on_its_way_is_waited_for_and_never_called_used_up(world):
    world.pay_in(COST_NANO)
    await world.treasury.ensure_epoch()
    world.store.arriving.clear()
    other = asyncio.create_task(world.treasury.lend("org", COST_NANO))  # of another gateway
    async with asyncio.timeout(20):
        while not world.account().held_nano:  # noqa: ASYNC110 - a thread makes it true
            await asyncio.sleep(0.005)
    assert await outcome(world) == (503, "unreachable_backend")
    world.store.arriving.set()
    await other
    assert await outcome(world) == (200, "")
    assert await outcome(world) == (429, "credit_reserved")


async def test_who_comes_while_a_block_is_on_its_way_needs_no_other(world):
    world.pay_in(1_000 * COST_NANO)
    await world.treasury.ensure_epoch()
    world.store.arriving.clear()
    asked = []
    for _ in range(20):
        asked.append(asyncio.create_task(outcome(world)))
        await asyncio.sleep(0.002)  # each in a moment of its own
    world.store.arriving.set()
    assert await asyncio.gather(*asked) == [(200, "")] * 20
    assert world.account().held_nano == 100 * COST_NANO


async def test_after_a_restart_of_redis_held_credit_is_our_trouble_not_the_customers(world):
    world.pay_in(3 * COST_NANO)
    assert [await outcome(world) for _ in range(3)] == [(200, "")] * 3
    world.broker.restart()
    assert await outcome(world) == (503, "unreachable_backend")
    assert world.generations.published == 2


async def test_calendar_counters_are_seeded_once_asked_for(world):
    world.pay_in(100 * COST_NANO)
    now_ms = world.clock.now_ms()
    month = (Window("m", now_ms - 1, now_ms + 10_000), Window("n", now_ms + 10_000, now_ms + 20_000))
    rules = tuple(
        Rule(RuleKind.SPEND_PER_MONTH, scope, scope_id, 2 * COST_NANO, windows=month)
        for scope, scope_id in (("organisation", "org"), ("workspace", "w"), ("key", "key"))
    )
    answers = [await outcome(world, rules=rules) for _ in range(3)]
    assert answers == [(200, ""), (200, ""), (402, "spending_limit_reached")]


async def test_a_stale_principal_is_loaded_anew_once(world):
    world.pay_in(100 * COST_NANO)
    await world.keeper.set_generation("org", 2)
    world.principals.generation = 2
    assert await outcome(world) == (200, "")
    assert world.principals.forgotten == 1
    (opened,) = world.exchange.conversations()
    assert opened.expires_ms == EXPIRES_MS, "as it was loaded anew"
    await world.keeper.set_generation("org", 3)  # published, and SQL not yet there
    assert await outcome(world) == (503, "unreachable_backend")


async def test_credit_is_refilled_before_it_is_used_up(world):
    world.pay_in(1_000 * COST_NANO)
    assert await outcome(world) == (200, "")
    for _ in range(300):
        answer = await world.exchange.ask(world.priced(chat()))
        assert isinstance(answer, Conversation), "never without credit"
        await refilled(world, answer.admitted.credit_left_nano)


async def refilled(world, left_nano):
    """As admissions tell of what they leave, until it is enough again."""
    async with asyncio.timeout(20):
        while True:
            world.funding.spent(world.priced(chat()), left_nano)
            if left_nano >= LOW_NANO:
                return
            await asyncio.sleep(0.005)
            left_nano = (await world.store.level("org")).available_nano
