"""Jobs run once in each window, are made up for when they were lost, and leave the books as they should be."""

import asyncio
import json

import pytest
import redis
import structlog
from redis.asyncio import Redis
from sqlalchemy import select, update

from billing import task_runs
from billing.check import Findings
from billing.epochs import EpochRow
from billing.experts import expert_shares
from billing.grants import grant
from billing.jobs import CHECKS_KEPT_MS, DAY_MS, JOBS, RUN_MS_MAX, Job, Workshop, check, make_up, run, run_now
from billing.journal import BREAKAGE, LedgerSeal, balance
from billing.models import BooksCheck, TaskRun, UsageSpan
from billing.records import store
from billing.rollups import HOUR_MS
from billing.task_runs import RunState, Window, claim, finish
from core.clock import ManualClock
from core.db import DatabaseUnavailableError
from core.experts import BEGINNING, ExpertCounts, ExpertSample, RedisExpertLog, entry_place
from core.ids import CountingIds
from tests.books import fund, rows_of
from tests.usage_events import usage_event

START_MS = 1_700_000_000_000 // DAY_MS * DAY_MS + 13 * HOUR_MS


@pytest.fixture
def clock():
    return ManualClock(START_MS + 5_000)


@pytest.fixture
def told():
    return []


@pytest.fixture
def shop(database, clock, told, bundled_socket):
    with redis.Redis(unix_socket_path=bundled_socket) as client:
        client.flushall()
    return Workshop(
        database=database,
        redis_url=f"unix://{bundled_socket}",
        redis_timeout_s=5.0,
        cell="c0",
        clock=clock,
        ids=CountingIds(),
        log=structlog.get_logger(),
        checked=told.append,
    )


def states(database):
    return {(row["name"], row["window_ms"]): row["state"] for row in rows_of(database, TaskRun, TaskRun.name)}


WINDOW = Window("job", START_MS)


def claimed(database, now_ms, window=WINDOW):
    with database.unit_of_work() as session:
        return claim(session, window, now_ms, RUN_MS_MAX)


def test_a_window_is_claimed_once_and_again_only_if_it_failed_or_never_ended(database):
    assert claimed(database, 1_000)
    assert not claimed(database, 2_000)
    assert claimed(database, 2_000, Window("job", START_MS + 1))
    assert claimed(database, 2_000, Window("other", START_MS))
    with database.unit_of_work() as session:
        finish(session, WINDOW, 3_000, "it broke" * 1_000)
    errors = {(row["name"], row["window_ms"]): row["error"] for row in rows_of(database, TaskRun)}
    assert errors["job", START_MS].startswith("it broke")
    assert claimed(database, 4_000)
    assert not claimed(database, 3_999 + RUN_MS_MAX)
    assert claimed(database, 4_000 + RUN_MS_MAX)
    with database.unit_of_work() as session:
        finish(session, WINDOW, 5_000)
    assert not claimed(database, 10**15)


def test_a_job_runs_once_in_its_window_and_a_failed_one_again(shop, clock):
    windows = []
    job = Job("job", HOUR_MS, lambda _shop, window_ms: windows.append(window_ms))
    assert run_now(shop, job)
    assert not run_now(shop, job)
    clock.advance(HOUR_MS)
    assert run_now(shop, job)
    assert windows == [START_MS, START_MS + HOUR_MS]

    def breaks(_shop, _window_ms):
        raise DatabaseUnavailableError("away")

    with pytest.raises(DatabaseUnavailableError):
        run_now(shop, Job("broken", HOUR_MS, breaks))
    assert states(shop.database)["broken", START_MS + HOUR_MS] == RunState.FAILED
    assert run_now(shop, Job("broken", HOUR_MS, lambda _shop, _window_ms: None))


def test_what_was_missed_is_made_up_once(shop):
    done = make_up(shop)
    assert done == sum(job.windows_kept for job in JOBS.values())
    assert set(states(shop.database).values()) == {RunState.DONE}
    assert make_up(shop) == 0


def test_roll_ups_that_are_wrong_are_mended(shop, clock):
    fund(shop.database, "o1")
    hour_ms = START_MS - HOUR_MS
    store(shop.database, [usage_event(1, admitted_ms=hour_ms, settled_ms=hour_ms + 10)], START_MS)
    right = rows_of(shop.database, UsageSpan)
    assert run_now(shop, JOBS["rollups"])
    assert rows_of(shop.database, UsageSpan) == right
    with shop.database.unit_of_work() as session:
        session.execute(update(UsageSpan).values(cost_nano=0))
        session.execute(update(TaskRun).values(state=RunState.FAILED))
    assert run_now(shop, JOBS["rollups"])
    assert rows_of(shop.database, UsageSpan) == right


def test_closed_hours_are_sealed_and_what_expired_is_booked(shop, clock):
    with shop.database.unit_of_work() as session:
        grant(session, "o1", 500, key="gift", clock=clock, expires_ms=clock.now_ms() + 1)
    clock.advance(2 * HOUR_MS)
    assert run_now(shop, JOBS["expire"])
    assert run_now(shop, JOBS["seal"])
    with shop.database.reading() as session:
        assert balance(session, BREAKAGE) == 500
        assert session.scalars(select(LedgerSeal.hour_ms)).all() == [START_MS]


def test_the_treasury_closes_epochs_whose_time_is_over(shop):
    with shop.database.unit_of_work() as session:
        for number, ended_ms in ((1, START_MS - 2 * HOUR_MS), (2, START_MS), (3, None)):
            session.add(EpochRow(number=number, opened_ms=1, ended_ms=ended_ms, closed_ms=None))
    assert run_now(shop, JOBS["treasury"])
    closed = {row["number"]: row["closed_ms"] is not None for row in rows_of(shop.database, EpochRow)}
    assert closed == {1: True, 2: False, 3: False}


def test_a_check_is_remembered_and_told(shop, told, clock):
    fund(shop.database, "o1", epoch=10**6)  # an epoch that Redis does not know: nothing to compare there
    admitted_ms = START_MS - 5 * HOUR_MS
    store(shop.database, [usage_event(1, epoch=10**6, admitted_ms=admitted_ms)], START_MS)
    with shop.database.unit_of_work() as session:
        session.execute(update(UsageSpan).values(cost_nano=0))
    findings = check(shop, 0)
    assert told == [findings]
    (row,) = rows_of(shop.database, BooksCheck)
    assert not row["ok"]
    assert {finding["check"] for finding in json.loads(row["findings"])} == {"rollups", "prices"}
    clock.advance(1)
    assert run_now(shop, JOBS["check"])
    assert len(rows_of(shop.database, BooksCheck)) == 2
    assert told[1].ok  # looks at the last hours only


def test_a_redis_that_is_away_is_skipped_and_told(shop, told, tmp_path):
    away = Workshop(
        **{name: getattr(shop, name) for name in shop.__slots__ if name != "redis_url"},
        redis_url=f"unix://{tmp_path}/nobody",
    )
    findings = check(away, 0)
    assert isinstance(findings, Findings)
    assert findings.ok
    assert findings.skipped == ["holds: Redis does not answer (ConnectionError)"]


async def test_chosen_experts_are_collected(shop, bundled_socket):
    log = RedisExpertLog(Redis(unix_socket_path=bundled_socket), shop.cell)
    try:
        await log.append([ExpertSample("small", "o1", "w1", ExpertCounts((0,), ((3, 1),)))])
        [(entry_id, _)] = await log.read(BEGINNING, 10)
        assert await asyncio.to_thread(run_now, shop, JOBS["experts"])
        assert await log.read(BEGINNING, 10) == []
    finally:
        await log.close()
    at_ms, _ = entry_place(entry_id)
    with shop.database.reading() as session:
        [layer] = expert_shares(session, "small", at_ms - HOUR_MS, at_ms + 1)
    assert layer.counts == (3, 1)


def test_what_is_old_is_dropped(shop, clock):
    old_ms = START_MS - CHECKS_KEPT_MS - DAY_MS
    with shop.database.unit_of_work() as session:
        session.add(BooksCheck(at_ms=old_ms, ok=True, findings="[]"))
        session.add(BooksCheck(at_ms=START_MS, ok=True, findings="[]"))
        assert task_runs.claim(session, Window("old", old_ms), old_ms, RUN_MS_MAX)
    assert run(shop, JOBS["tidy"], START_MS // DAY_MS * DAY_MS)
    assert [row["at_ms"] for row in rows_of(shop.database, BooksCheck)] == [START_MS]
    assert [name for name, _ in states(shop.database)] == ["tidy"]
