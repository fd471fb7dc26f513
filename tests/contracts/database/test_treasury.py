"""Credit between SQL and Redis: what may be lent, what comes back, and what becomes of it when either side fails."""

import asyncio

import pytest
from sqlalchemy import select

from billing.accounts import available, charge, post
from billing.epochs import EpochRow
from billing.lender import Lender
from billing.transfers import CreditTransfer
from billing.treasury import EpochNotOpenError, Treasury, TreasurySettings
from core.clock import ManualClock
from core.ids import SystemIds
from core.queue.base import QueueSettings
from core.queue.memory.broker import MemoryBroker
from core.queue.memory.funds import MemoryCreditStore

ORG = "acme"
CLOSING_MS = 960_000


class Stage:
    """A treasury over a real database and a Redis that can be restarted, or fail once after or before it has acted."""

    def __init__(self, database):
        self.clock = ManualClock()
        self.database = database
        self.broker = MemoryBroker(QueueSettings("c0", 6_000, {}), self.clock)
        self.store = FlakyStore(MemoryCreditStore(self.broker))
        self.treasury = Treasury(
            database, self.store, self.clock, SystemIds(self.clock), TreasurySettings(closing_ms=CLOSING_MS)
        )

    def pay_in(self, amount_nano, organisation=ORG):
        with self.database.unit_of_work() as session:
            assert post(session, organisation, amount_nano)

    def account(self, organisation=ORG):
        with self.database.reading() as session:
            return available(session, organisation)

    async def lend(self, *amounts, **named):
        """As a gateway does: after the epoch is open."""
        await self.treasury.ensure_epoch()
        return await self.treasury.lend(ORG, *amounts, **named)

    def restart_redis(self):
        self.broker.reservations.credit.restart()

    def transfers(self):
        with self.database.reading() as session:
            return [(row.kind, row.amount_nano, row.state) for row in session.scalars(select(CreditTransfer))]


class FlakyStore:
    def __init__(self, store):
        self._store = store
        self.fail_before = set()
        self.fail_after = set()

    def __getattr__(self, name):
        call = getattr(self._store, name)

        async def flaky(*arguments):
            if name in self.fail_before:
                raise ConnectionError(name)
            answer = await call(*arguments)
            if name in self.fail_after:
                raise ConnectionError(name)
            return answer

        return flaky


@pytest.fixture
def stage(database):
    return Stage(database)


async def test_a_block_is_a_tenth_or_what_is_needed(stage):
    stage.pay_in(1_000)
    first = await stage.lend(5)
    assert (first.given_nano, first.level_nano, first.balance_nano) == (100, 100, 1_000)
    assert (await stage.lend(100)).given_nano == 0  # it has as much
    second = await stage.lend(300)
    assert (second.given_nano, second.level_nano, second.balance_nano) == (200, 300, 1_000)
    assert stage.account().held_nano == 300


async def test_more_than_the_balance_is_not_lent(stage):
    stage.pay_in(50)
    lent = await stage.lend(51)
    assert (lent.given_nano, lent.level_nano, lent.balance_nano) == (0, 0, 50)
    rest = await stage.lend(500, least_nano=20)
    assert (rest.given_nano, rest.level_nano) == (50, 50)
    assert stage.account().available_nano == 0


async def test_what_is_on_its_way_is_neither_lent_nor_missing_from_the_balance(stage):
    stage.pay_in(100)
    await stage.treasury.ensure_epoch()
    stage.store.fail_before = {"give"}
    with pytest.raises(ConnectionError):
        await stage.lend(100)  # held, and Redis has not heard of it
    lent = await stage.lend(1)
    assert (lent.given_nano, lent.level_nano, lent.moving_nano, lent.balance_nano) == (0, 0, 100, 100)
    stage.store.fail_before = set()
    stage.clock.advance(6_000)
    await stage.treasury.sweep()
    stage.store.fail_after = {"take_back"}
    with pytest.raises(ConnectionError):
        await stage.treasury.take_back(ORG, 100)  # out of Redis, and SQL has not heard of it
    lent = await stage.lend(1)
    assert (lent.given_nano, lent.level_nano, lent.moving_nano, lent.balance_nano) == (0, 0, 100, 100)


async def test_parallel_lenders_never_lend_more_than_there_is(stage):
    stage.pay_in(1_000)
    await stage.treasury.ensure_epoch()
    lent = await asyncio.gather(*(stage.lend(90 * (i + 1), least_nano=1) for i in range(40)))
    assert sum(one.given_nano for one in lent) == 1_000
    assert stage.account().held_nano == 1_000
    assert (await stage.store.level(ORG)).available_nano == 1_000


async def test_what_is_taken_back_is_free_again(stage):
    stage.pay_in(1_000)
    await stage.lend(400)
    assert await stage.treasury.take_back(ORG, 150) == 150
    assert stage.account().held_nano == 250
    assert await stage.treasury.take_back(ORG, 999) == 250
    assert (stage.account().held_nano, (await stage.store.level(ORG)).available_nano) == (0, 0)


@pytest.mark.parametrize("moment", ["fail_before", "fail_after"])
async def test_an_interrupted_gift_is_finished_once(stage, moment):
    stage.pay_in(1_000)
    await stage.treasury.ensure_epoch()
    getattr(stage.store, moment).add("give")
    with pytest.raises(ConnectionError):
        await stage.lend(100)
    assert stage.account().held_nano == 100
    getattr(stage.store, moment).clear()
    assert await stage.treasury.sweep() == 0  # it may still be on its way
    stage.clock.advance(6_000)
    assert await stage.treasury.sweep() == 1
    assert await stage.treasury.sweep() == 0
    assert (await stage.store.level(ORG)).available_nano == 100
    assert stage.transfers() == [("gift", 100, "done")]


@pytest.mark.parametrize("moment", ["fail_before", "fail_after"])
async def test_an_interrupted_return_is_finished_once(stage, moment):
    stage.pay_in(1_000)
    await stage.lend(100)
    getattr(stage.store, moment).add("take_back")
    with pytest.raises(ConnectionError):
        await stage.treasury.take_back(ORG, 60)
    assert stage.account().held_nano == 100
    getattr(stage.store, moment).clear()
    stage.clock.advance(6_000)
    assert await stage.treasury.sweep() == 1
    assert (stage.account().held_nano, (await stage.store.level(ORG)).available_nano) == (40, 40)


async def test_after_a_restart_what_was_lent_stays_held_until_its_epoch_closes(stage):
    stage.pay_in(1_000)
    await stage.lend(600)
    stage.restart_redis()
    lent = await stage.lend(500, least_nano=1)
    assert (lent.given_nano, lent.held_before_nano) == (400, 600)
    assert (await stage.store.epoch()).number == 2
    stage.clock.advance(CLOSING_MS - 1)
    await stage.treasury.sweep()
    assert stage.account().held_nano == 1_000
    stage.clock.advance(10)
    assert await stage.treasury.sweep() == 1
    assert stage.account().held_nano == 400


async def test_usage_of_a_closed_epoch_is_our_loss(stage):
    stage.pay_in(1_000)
    await stage.lend(600)
    stage.restart_redis()
    await stage.treasury.ensure_epoch()
    with stage.database.unit_of_work() as session:
        assert charge(session, ORG, 1, 30, epoch_open=True).charged_nano == 30
    stage.clock.advance(CLOSING_MS + 1)
    assert await stage.treasury.sweep() == 1
    with stage.database.unit_of_work() as session:
        charged = charge(session, ORG, 1, 30, epoch_open=False)
    assert (charged.charged_nano, charged.lost_nano) == (0, 30)
    assert stage.account().posted_nano == 970


async def test_a_gift_whose_epoch_ended_on_the_way_is_void(stage):
    stage.pay_in(1_000)
    await stage.treasury.ensure_epoch()
    give = stage.store._store.give

    async def restarted_just_before(*arguments):
        stage.restart_redis()
        return await give(*arguments)

    stage.store._store.give = restarted_just_before
    with pytest.raises(EpochNotOpenError):
        await stage.lend(100)
    assert stage.account().held_nano == 0
    assert stage.transfers() == [("gift", 100, "void")]


async def test_one_of_many_opens_the_next_epoch(stage):
    numbers = await asyncio.gather(*(stage.treasury.ensure_epoch() for _ in range(12)), return_exceptions=True)
    assert {number for number in numbers if isinstance(number, int)} == {1}
    stage.restart_redis()
    numbers = await asyncio.gather(*(stage.treasury.ensure_epoch() for _ in range(12)), return_exceptions=True)
    assert {number for number in numbers if isinstance(number, int)} == {2}
    with stage.database.reading() as session:
        assert [row.number for row in session.scalars(select(EpochRow).order_by(EpochRow.number))] == [1, 2]


@pytest.mark.parametrize("moment", ["fail_before", "fail_after"])
async def test_an_epoch_that_only_stands_in_sql_is_opened_under_its_number_once(stage, moment):
    getattr(stage.store, moment).add("open_epoch")
    with pytest.raises(ConnectionError):
        await stage.treasury.ensure_epoch()
    getattr(stage.store, moment).clear()
    assert await stage.treasury.ensure_epoch() == 1


async def test_a_wiped_redis_gets_a_number_above_all_before(stage):
    stage.pay_in(1_000)
    await stage.lend(100)
    stage.broker = MemoryBroker(QueueSettings("c0", 6_000, {}), stage.clock)
    stage.store._store = MemoryCreditStore(stage.broker)
    assert await stage.treasury.ensure_epoch() == 2
    assert (await stage.store.level(ORG)).available_nano == 0


async def test_the_lender_feeds_the_hungry_and_fetches_idle_blocks(stage):
    stage.pay_in(1_000)
    log = NoLog()
    lender = Lender(stage.treasury, stage.store, stage.database, stage.clock, log, idle_s=60, wait_s=0.01)
    stop = asyncio.Event()
    await stage.treasury.ensure_epoch()
    stage.broker.reservations.credit.ran_dry(ORG, 70)
    running = asyncio.create_task(lender.run(stop))
    await until(lambda: stage.account().held_nano == 100)

    def idle_for_a_minute():
        stage.clock.advance(61_000)
        return stage.account().held_nano == 0

    await until(idle_for_a_minute)
    stop.set()
    await running


class NoLog:
    def warning(self, *_, **__): ...


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - another task makes it true
            await asyncio.sleep(0.02)
