"""Each settled request becomes one usage record, whatever fails between the stream, SQL and the acknowledgement."""

import asyncio
import random
from contextlib import contextmanager

import pytest
import structlog
from sqlalchemy import event

from billing.accounts import available, held
from billing.collector import Collector, CollectorBounds
from billing.epochs import EpochRow
from billing.journal import LOSS, balance, check_journal
from billing.models import KeyLastUsed, UsageRecord
from billing.records import store
from billing.usage import UsageRow, usage_rows
from core.clock import ManualClock
from core.db import Database, DatabaseUnavailableError
from core.heartbeat import Heartbeat, read_beat
from core.queue.base import QueueSettings
from core.queue.memory.broker import MemoryBroker
from core.queue.memory.views import MemoryUsageSource
from tests.books import CREDIT_NANO, fund, rows_of, sum_of
from tests.usage_events import EPOCH, row, usage_event

BOUNDS = CollectorBounds(batch=7, wait_s=0.01, pause_s=0.001, pause_s_max=0.004)
EVENTS = 100
NOW_MS = 1_700_000_100_000


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


@pytest.fixture(autouse=True)
def credit(database):
    fund(database, "o1")


@pytest.fixture
def log():
    return structlog.get_logger()


def collector(source, database, log, heartbeat=None):
    return Collector(source, database, ManualClock(NOW_MS), heartbeat or Heartbeat(None), log, BOUNDS)


async def run_until(condition, *collectors):
    stop = asyncio.Event()
    tasks = [asyncio.create_task(each.run(stop)) for each in collectors]
    async with asyncio.timeout(30):
        while not condition() and not any(task.done() for task in tasks):  # noqa: ASYNC110 - a plain dict or a file
            await asyncio.sleep(0.002)
        stop.set()
        await asyncio.gather(*tasks)


def stored(database):
    """Without the numbers of the transactions, which depend on how events came together."""
    records = rows_of(database, UsageRecord, UsageRecord.request_id)
    for record in records:
        assert record.pop("transaction_id") is not None
        assert record.pop("loss_nano") == 0
    return records


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
    cost_nano = sum(row["cost_nano"] for row in EXPECTED)
    with database.reading() as session:
        assert available(session, "o1").posted_nano == CREDIT_NANO - cost_nano
        assert balance(session, "prepaid:o1") == CREDIT_NANO - cost_nano
        assert held(session, "o1", EPOCH) == CREDIT_NANO - cost_nano
        assert check_journal(session) == []


async def test_a_collector_that_died_between_commit_and_acknowledgement_is_followed_by_another(database, broker, log):
    events = await MemoryUsageSource(broker).read(30, 0)
    store(database, [event for _, event in events], NOW_MS)  # and gone
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


def test_twins_in_one_batch_are_one_record(database):
    assert store(database, [usage_event(1), usage_event(2), usage_event(1)], NOW_MS) == 2
    assert store(database, [usage_event(2), usage_event(1)], NOW_MS) == 0
    assert stored(database) == [row(1), row(2)]


def test_each_organisation_gets_one_transaction_for_a_batch(database):
    fund(database, "o2", epoch=2)
    events = [usage_event(number, organisation=f"o{1 + number % 2}", epoch=1 + number % 2) for number in range(10)]
    free = usage_event(10, cost_nano=0, outcome="failed")
    store(database, [*events, free], NOW_MS)
    records = rows_of(database, UsageRecord, UsageRecord.request_id)
    by_organisation = {}
    for record in records[:-1]:
        by_organisation.setdefault(record["organisation"], set()).add(record["transaction_id"])
    assert sorted(by_organisation) == ["o1", "o2"]
    assert all(len(transactions) == 1 for transactions in by_organisation.values())
    assert records[-1]["transaction_id"] is None


def test_usage_of_a_closed_epoch_is_our_loss(database):
    with database.unit_of_work() as session:
        session.add(EpochRow(number=7, opened_ms=1, ended_ms=2, closed_ms=3))
    store(database, [usage_event(1), usage_event(2, epoch=7)], NOW_MS)
    first, second = rows_of(database, UsageRecord, UsageRecord.request_id)
    assert (first["cost_nano"], first["loss_nano"]) == (10**12 + 1, 0)
    assert (second["cost_nano"], second["loss_nano"]) == (0, 10**12 + 2)
    with database.reading() as session:
        assert balance(session, LOSS) == -(10**12 + 2)
        assert available(session, "o1").posted_nano == CREDIT_NANO - (10**12 + 1)


def test_what_the_hold_does_not_cover_is_our_loss_and_the_balance_stays_whole(database):
    fund(database, "poor", nano=10**12)
    store(database, [usage_event(number, organisation="poor") for number in range(3)], NOW_MS)
    records = rows_of(database, UsageRecord, UsageRecord.request_id)
    assert sum_of(records, "cost_nano", "loss_nano") == (10**12, 2 * 10**12 + 3)
    with database.reading() as session:
        assert available(session, "poor").posted_nano == 0


def test_the_youngest_use_of_a_key_is_remembered(database):
    store(database, [usage_event(4), usage_event(1)], NOW_MS)
    store(database, [usage_event(0), usage_event(2), usage_event(7, key_id="k2")], NOW_MS)
    assert rows_of(database, KeyLastUsed, KeyLastUsed.key_id) == [
        {"key_id": "k0", "last_used_ms": usage_event(0).admitted_ms},
        {"key_id": "k1", "last_used_ms": usage_event(4).admitted_ms},
        {"key_id": "k2", "last_used_ms": usage_event(7).admitted_ms},
    ]


def test_a_batch_costs_a_bounded_number_of_statements(database):
    """Whatever its size: the cost of a record is that of its rows."""
    statements = []

    def note(_connection, _cursor, statement, *_rest):
        statements.append(statement)

    counts = []
    for base in (1_000, 2_000):
        statements.clear()
        event.listen(database._engine, "before_cursor_execute", note)
        store(database, [usage_event(base + number) for number in range(base // 10)], NOW_MS)
        event.remove(database._engine, "before_cursor_execute", note)
        counts.append(len(statements))
    assert counts[0] == counts[1] < 40


def test_usage_is_summed_by_tier_and_key(database):
    events = [usage_event(1, tier="b"), usage_event(2), usage_event(5), usage_event(4, key_id="k2")]
    store(database, [*events, usage_event(900_000, key_id="k2")], NOW_MS)
    with database.reading() as session:
        rows = usage_rows(session)
        since = usage_rows(session, since_ms=usage_event(4).admitted_ms)
    late = usage_event(900_000)
    assert rows == [
        UsageRow("b", "k1", 1, 11, 2, 1, 10**12 + 1),
        UsageRow(
            "mistral-tiny", "k2", 4, 41 + late.prompt_tokens, 22 + late.completion_tokens, 6, 4 * 10**12 + 900_011
        ),
    ]
    assert since == [
        UsageRow("mistral-tiny", "k2", 3, 29 + late.prompt_tokens, 18 + late.completion_tokens, 4, 3 * 10**12 + 900_009)
    ]
