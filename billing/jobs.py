"""What is done now and then: each job is idempotent and works on what SQL says is due, not on what it was told."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from redis.exceptions import RedisError
from sqlalchemy import delete
from structlog.stdlib import BoundLogger

from billing import grants, task_runs
from billing.check import Findings, check_books, snapshot
from billing.check_cell import check_cell
from billing.days import rebuild_day, wrong_rows
from billing.experts import forget as forget_experts
from billing.experts_move import move_experts
from billing.models import BooksCheck
from billing.rollups import HOUR_MS, hour_from_records, hour_stored, rebuild_hour
from billing.seal import seal_closed_hours
from billing.treasury import EpochNotOpenError, Treasury
from core.clock import Clock
from core.db import Database, DatabaseUnavailableError
from core.experts import RedisExpertLog
from core.ids import IdSource
from core.meter.credit_redis import RedisCreditStore
from core.redis import connect

MINUTE_MS = 60_000
DAY_MS = 24 * HOUR_MS
YOUNG_MS = 3 * HOUR_MS  # what the hourly check looks at in detail
RUNS_KEPT_MS = 7 * DAY_MS
CHECKS_KEPT_MS = 90 * DAY_MS
EXPERTS_KEPT_MS = 90 * DAY_MS
RUN_MS_MAX = 30 * MINUTE_MS


@dataclass(frozen=True, slots=True)
class Workshop:
    """What jobs work with. `checked` hears of each check of the books."""

    database: Database
    redis_url: str
    redis_timeout_s: float
    cell: str
    clock: Clock
    ids: IdSource
    log: BoundLogger
    checked: Callable[[Findings], None]


@dataclass(frozen=True, slots=True)
class Job:
    """Due once in each window of `every_ms`; `work` gets the start of the window. The sweep makes up for the last
    `windows_kept` windows.
    """

    name: str
    every_ms: int
    work: Callable[[Workshop, int], None]
    windows_kept: int = 1


def run(shop: Workshop, job: Job, window_ms: int) -> bool:
    """Whether it was this call that did it. Raises what the job raises, after it was noted as failed."""
    window = task_runs.Window(job.name, window_ms)
    with shop.database.unit_of_work() as session:
        if not task_runs.claim(session, window, shop.clock.now_ms(), RUN_MS_MAX):
            return False
    error = "interrupted"
    try:
        job.work(shop, window_ms)
        error = ""
    except (DatabaseUnavailableError, EpochNotOpenError, RedisError, OSError) as trouble:
        error = f"{type(trouble).__name__}: {trouble}"
        raise
    finally:
        with shop.database.unit_of_work() as session:
            task_runs.finish(session, window, shop.clock.now_ms(), error)
    return True


def run_now(shop: Workshop, job: Job) -> bool:
    """For the window that holds this moment."""
    now_ms = shop.clock.now_ms()
    return run(shop, job, now_ms - now_ms % job.every_ms)


def check(shop: Workshop, since_ms: int) -> Findings:
    """Look, and remember what was found. Raises DatabaseUnavailableError; Redis that is away is told as skipped."""
    findings = Findings()
    check_books(shop.database, since_ms, findings)
    try:
        asyncio.run(_check_cell(shop, findings))
    except (RedisError, OSError) as error:
        findings.skipped.append(f"holds: Redis does not answer ({type(error).__name__})")
    with shop.database.unit_of_work() as session:
        shown = json.dumps([asdict(finding) for finding in findings.kept])
        session.merge(BooksCheck(at_ms=shop.clock.now_ms(), ok=findings.ok, findings=shown))
    shop.checked(findings)
    for finding in findings.kept:
        shop.log.error("books_disagree", check=finding.check, sentence=finding.sentence)
    return findings


async def _check_cell(shop: Workshop, findings: Findings) -> None:
    client = connect(shop.redis_url, shop.redis_timeout_s)
    try:
        await check_cell(shop.database, client, shop.cell, findings)
    finally:
        await client.aclose()


def _check_young(shop: Workshop, window_ms: int) -> None:
    check(shop, window_ms - YOUNG_MS)


def _check_all(shop: Workshop, _window_ms: int) -> None:
    check(shop, 0)


def _seal(shop: Workshop, _window_ms: int) -> None:
    with shop.database.unit_of_work() as session:
        seal_closed_hours(session, shop.clock.now_ms())


def _expire(shop: Workshop, _window_ms: int) -> None:
    with shop.database.unit_of_work() as session:
        grants.expire(session, shop.clock.now_ms())


def _mend_rollups(shop: Workshop, window_ms: int) -> None:
    """The hour before the window, its day and its month. Looks without a lock first: as a rule nothing is wrong."""
    hour_ms = window_ms - HOUR_MS
    with snapshot(shop.database) as session:
        if hour_stored(session, hour_ms) == hour_from_records(session, hour_ms) and not wrong_rows(session, hour_ms):
            return
    with shop.database.unit_of_work() as session:
        wrong = rebuild_hour(session, hour_ms) + rebuild_day(session, hour_ms)
    if wrong:
        shop.log.error("rollups_mended", hour_ms=hour_ms, rows=wrong)


def _sweep_treasury(shop: Workshop, _window_ms: int) -> None:
    async def sweep() -> None:
        client = connect(shop.redis_url, shop.redis_timeout_s)
        store = RedisCreditStore(client, shop.cell)
        try:
            await Treasury(shop.database, store, shop.clock, shop.ids).sweep()
        finally:
            await store.close()
            await client.aclose()

    asyncio.run(sweep())


def _tidy(shop: Workshop, window_ms: int) -> None:
    with shop.database.unit_of_work() as session:
        task_runs.forget(session, window_ms - RUNS_KEPT_MS)
        session.execute(delete(BooksCheck).where(BooksCheck.at_ms < window_ms - CHECKS_KEPT_MS))
        forget_experts(session, window_ms - EXPERTS_KEPT_MS)


def _move_experts(shop: Workshop, _window_ms: int) -> None:
    async def move() -> None:
        log = RedisExpertLog(connect(shop.redis_url, shop.redis_timeout_s), shop.cell)
        try:
            await move_experts(shop.database, log, shop.cell)
        finally:
            await log.close()

    asyncio.run(move())


def make_up(shop: Workshop) -> int:
    """Run what was due and is not done: lost messages, failed runs, times when nothing ran. How many were run."""
    now_ms = shop.clock.now_ms()
    made_up = 0
    for job in JOBS.values():
        newest_ms = now_ms - now_ms % job.every_ms
        windows = [newest_ms - number * job.every_ms for number in reversed(range(job.windows_kept))]
        with shop.database.reading() as session:
            known = task_runs.done(session, job.name, windows[0])
        for window_ms in windows:
            if window_ms not in known:
                try:
                    made_up += run(shop, job, window_ms)
                except (EpochNotOpenError, RedisError, OSError) as error:
                    shop.log.warning("job_failed", job=job.name, error=f"{type(error).__name__}: {error}")
    return made_up


def _by_name(*jobs: Job) -> Mapping[str, Job]:
    return {job.name: job for job in jobs}


JOBS = _by_name(
    Job("treasury", 15_000, _sweep_treasury),
    Job("experts", 30_000, _move_experts),
    Job("seal", 10 * MINUTE_MS, _seal),
    Job("expire", 10 * MINUTE_MS, _expire),
    Job("rollups", HOUR_MS, _mend_rollups, windows_kept=24),
    Job("check", HOUR_MS, _check_young),
    Job("check_all", DAY_MS, _check_all),
    Job("tidy", DAY_MS, _tidy),
)
