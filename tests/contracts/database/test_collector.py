"""Each settled request becomes one usage record, whatever fails between the stream, SQL and the acknowledgement."""

import asyncio
import random
from contextlib import contextmanager

import pytest
import structlog
from sqlalchemy import select

from billing.collector import Collector, CollectorBounds, store
from billing.models import UsageRecord
from billing.usage import UsageRow, usage_rows
from core.clock import ManualClock
from core.db import Database, DatabaseUnavailableError
from core.heartbeat import Heartbeat, read_beat
from core.queue.base import QueueSettings
from core.queue.memory.broker import MemoryBroker
from core.queue.memory.views import MemoryUsageSource
from tests.usage_events import row, usage_event

BOUNDS = CollectorBounds(batch=7, wait_s=0.01, pause_s=0.001, pause_s_max=0.004)
EVENTS = 100


class FlakySource:
    """Fails before or after each call of the source behind it, as a lost connection does."""

    def __init__(self, source, chances: random.Random) -> None:
        self._source = source
        self._chances = chances
        self.reads = 0

    async def read(self, count, wait_s):
        self._fail("before the read")
        self.reads += 1
        return await self._source.read(count, wait_s)

    async def acknowledge(self, event_ids):
        self._fail("before the acknowledgement")
        await self._source.acknowledge(event_ids)
        self._fail("after the acknowledgement")

    async def backlog(self):
        return await self._source.backlog()

    def _fail(self, when):
        if self._chances.random() < 0.3:
            raise ConnectionResetError(when)


class FlakyDatabase(Database):
    """Fails before or after the commit: the caller cannot know which."""

    def __init__(self, database, chances: random.Random) -> None:
        super().__init__(database._engine)
        self._chances = chances

    @contextmanager
    def unit_of_work(self):
        if self._chances.random() < 0.2:
            raise DatabaseUnavailableError("before")
        with super().unit_of_work() as session:
            yield session
        if self._chances.random() < 0.2:
            raise DatabaseUnavailableError("after")


@pytest.fixture
def broker():
    broker = MemoryBroker(QueueSettings("c0", 6_000, {}), ManualClock())
    for number in range(1, EVENTS + 1):
        broker.usage[str(number)] = usage_event(number)
    return broker


@pytest.fixture
def log():
    return structlog.get_logger()


def collector(source, database, log, heartbeat=None):
    return Collector(source, database, heartbeat or Heartbeat(None), log, BOUNDS)


async def run_until(condition, *collectors):
    stop = asyncio.Event()
    tasks = [asyncio.create_task(each.run(stop)) for each in collectors]
    async with asyncio.timeout(30):
        while not condition() and not any(task.done() for task in tasks):  # noqa: ASYNC110 - a plain dict or a file
            await asyncio.sleep(0.002)
        stop.set()
        await asyncio.gather(*tasks)


def stored(database):
    with database.reading() as session:
        query = select(UsageRecord).order_by(UsageRecord.request_id)
        return [
            {column.key: getattr(record, column.key) for column in UsageRecord.__mapper__.columns}
            for record in session.scalars(query)
        ]


EXPECTED = [row(number) for number in range(1, EVENTS + 1)]


async def test_every_event_is_one_record_with_all_its_fields(database, broker, log):
    await run_until(lambda: not broker.usage, collector(MemoryUsageSource(broker), database, log))
    assert stored(database) == EXPECTED


@pytest.mark.parametrize("seed", range(3))
async def test_exactly_once_though_everything_fails_now_and_then(database, broker, log, seed):
    chances = random.Random(seed)
    source = FlakySource(MemoryUsageSource(broker), chances)
    await run_until(lambda: not broker.usage, collector(source, FlakyDatabase(database, chances), log))
    assert stored(database) == EXPECTED


async def test_a_collector_that_died_between_commit_and_acknowledgement_is_followed_by_another(database, broker, log):
    events = await MemoryUsageSource(broker).read(30, 0)
    store(database, [event for _, event in events])  # and gone
    assert len(broker.usage) == EVENTS
    await run_until(lambda: not broker.usage, collector(MemoryUsageSource(broker), database, log))
    assert stored(database) == EXPECTED


async def test_two_collectors_of_the_same_events_store_them_once(database, broker, log):
    both = [collector(MemoryUsageSource(broker), database, log) for _ in range(2)]
    await run_until(lambda: not broker.usage, *both)
    assert stored(database) == EXPECTED


async def test_nothing_is_acknowledged_while_sql_is_away_and_the_heartbeat_says_so(database, broker, log, tmp_path):
    class Away(Database):
        @contextmanager
        def unit_of_work(self):
            raise DatabaseUnavailableError("SQL: away")
            yield

    beat = tmp_path / "beat"
    away = collector(MemoryUsageSource(broker), Away(database._engine), log, Heartbeat(beat))
    await run_until(lambda: (found := read_beat(beat)) and not found.ready, away)
    assert "store" in read_beat(beat).note
    assert len(broker.usage) == EVENTS
    await run_until(lambda: not broker.usage, collector(MemoryUsageSource(broker), database, log, Heartbeat(beat)))
    assert read_beat(beat).ready
    assert stored(database) == EXPECTED


async def test_a_stop_finishes_the_batch_at_hand(database, broker, log):
    source = FlakySource(MemoryUsageSource(broker), random.Random(0))
    source._fail = lambda _when: None
    await run_until(lambda: source.reads > 0, collector(source, database, log))
    found = stored(database)
    assert len(found) + len(broker.usage) == EVENTS
    assert found == EXPECTED[: len(found)]


async def test_a_defect_ends_the_collector_loudly(database, broker, log):
    broker.usage["1"] = usage_event(1, tier=None)
    with pytest.raises(Exception, match=r"(?i)null"):
        await run_until(lambda: False, collector(MemoryUsageSource(broker), database, log))
    assert len(broker.usage) == EVENTS
    assert stored(database) == []


def test_usage_is_summed_by_tier_and_key(database):
    store(database, [usage_event(1, tier="b"), usage_event(2), usage_event(5), usage_event(4, key_id="k2")])
    with database.reading() as session:
        rows = usage_rows(session)
        since = usage_rows(session, since_ms=usage_event(4).admitted_ms)
    assert rows == [
        UsageRow("b", "k1", 1, 11, 2, 1, 10**14 + 1),
        UsageRow("mistral-tiny", "k2", 3, 41, 22, 6, 3 * 10**14 + 11),
    ]
    assert since == [UsageRow("mistral-tiny", "k2", 2, 29, 18, 4, 2 * 10**14 + 9)]
