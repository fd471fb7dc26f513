"""A year of fifty organisations, to look at and to measure pages with.

    python -m benchmarks.console.seed --records 1000000 --database sqlite:////tmp/year/tramontane.sqlite3

The database is migrated and has no usage yet; `tramontane books check` finds nothing wrong in it afterwards. Ten
million records take some ten minutes on two cores, and 10 GB.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from sqlalchemy import insert, select, text
from sqlalchemy.orm import Session

from benchmarks.bulk import load
from benchmarks.console.chats import seed_operator
from benchmarks.console.experts import seed_experts
from benchmarks.console.money import Ledger, later_prices
from benchmarks.console.people import seed_audit, seed_people
from benchmarks.console.traffic import DAY_MS, EPOCH, RECORD_COLUMNS, Day, Tariff, Town, make_day
from billing.days import day_start_ms, rebuild_day
from billing.epochs import EpochRow
from billing.journal import LedgerTransaction
from billing.models import KeyLastUsed, UsageHour, UsageRecord, UsageSpan
from billing.price_lists import seed_prices
from billing.prices import PriceVersion
from billing.rollups import COLUMNS, HOUR_COLUMNS
from billing.seal import seal_closed_hours
from core.catalog import Catalog, read_catalog
from core.clock import SystemClock
from core.db import Database, connect_database
from core.errors import SetupError
from core.ids import SystemIds
from gateway.accounts.organisations import DEFAULT_PLAN
from gateway.accounts.seed import ensure_default

DAYS = 365
AHEAD = 2  # days that are made while one is loaded
DEARER_DAY, DEARER_PERCENT = 200, 110
ACTS_MAX, RECORDS_PER_ACT = 20_000, 50
SAMPLED_WORKSPACES, SAMPLED_WORKSPACES_FEW, RECORDS_FOR_ALL = 12, 3, 1_000_000
MIXTURES = ("mistral-small", "mistral-medium")
CONFIG = Path("tramontane.toml")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--database", required=True, help="URL of a migrated database without usage")
    chosen = parser.parse_args()
    database = connect_database(chosen.database, migrating=True)
    began_s = time.monotonic()
    try:
        seed(database, read_catalog(CONFIG), chosen.records)
    finally:
        database.close()
    print(f"{chosen.records:,} records in {time.monotonic() - began_s:.0f} s")
    return 0


def seed(database: Database, catalog: Catalog, records: int, days: int = DAYS) -> Town:
    """Raises SetupError for a database that has usage."""
    clock = SystemClock()
    now_ms = clock.now_ms()
    town = _prepare(database, catalog, records, days, now_ms)
    ledger = Ledger(town.companies, town.start_ms, records)
    ledger.begin()
    used: dict[str, int] = {}
    with ProcessPoolExecutor(1) as pool:
        made: list[Future[Day]] = []
        for number in range(town.days):
            while len(made) < AHEAD and number + len(made) < town.days:
                made.append(pool.submit(make_day, town, number + len(made)))
            day = made.pop(0).result()
            ledger.promote(number)
            ledger.settle(day.batches)
            _load_day(database, ledger, day, town.start_ms + number * DAY_MS)
            used |= day.used
            print(f"\r  day {number + 1} of {town.days}", end="", file=sys.stderr)
    print(file=sys.stderr)
    _finish(database, town, ledger, used)
    while _seal(database, now_ms):
        pass
    with database.unit_of_work() as session:
        session.execute(text("ANALYZE"))
    return town


def _prepare(database: Database, catalog: Catalog, records: int, days: int, now_ms: int) -> Town:
    start_ms = day_start_ms(now_ms) - (days - 1) * DAY_MS
    clock = SystemClock()
    tiers = [tier.name for tier in catalog.tiers if tier.kind == "chat"]
    with database.unit_of_work() as session:
        if session.scalars(select(UsageRecord.request_id).limit(1)).first() is not None:
            raise SetupError("This database has usage already; seed a new one.")
        if session.scalars(select(LedgerTransaction.id).limit(1)).first() is not None:
            raise SetupError("This database has a ledger already; seed a new one.")
        ensure_default(session, catalog, clock=clock, ids=SystemIds(clock))
        seed_prices(session, catalog, clock)
        companies = seed_people(session, tiers, DEFAULT_PLAN, catalog.currency, start_ms)
        launch = list(session.scalars(select(PriceVersion).where(PriceVersion.tier.in_(tiers))))
        dearer = later_prices(session, launch, start_ms + DEARER_DAY * DAY_MS, "year", DEARER_PERCENT)
        later_prices(session, launch, day_start_ms(now_ms) + 10 * DAY_MS, "next", DEARER_PERCENT + 5)
        epoch = {"number": EPOCH, "opened_ms": start_ms, "ended_ms": None, "closed_ms": None}
        session.execute(insert(EpochRow), [epoch])
        tariffs = {tier: tuple(_tariff(each) for each in (*launch, *dearer) if each.tier == tier) for tier in tiers}
    return Town(tuple(companies), tariffs, start_ms, now_ms - 1_000, records)


def _tariff(version: PriceVersion) -> Tariff:
    return Tariff(version.version, version.start_ms, version.input_nano, version.cached_nano, version.output_nano)


def _load_day(database: Database, ledger: Ledger, day: Day, start_ms: int) -> None:
    with database.unit_of_work() as session:
        load(session, UsageRecord, RECORD_COLUMNS, day.records)
        load(session, UsageSpan, COLUMNS, day.spans)
        load(session, UsageHour, HOUR_COLUMNS, day.hours)
        rebuild_day(session, start_ms)
        ledger.flush(session)


def _finish(database: Database, town: Town, ledger: Ledger, used: Mapping[str, int]) -> None:
    sampled = SAMPLED_WORKSPACES if town.records >= RECORDS_FOR_ALL else SAMPLED_WORKSPACES_FEW
    tiers = list(town.tariffs)
    workspaces = list(dict.fromkeys(company.clients[0].workspace for company in town.companies[:sampled]))
    with database.unit_of_work() as session:
        ledger.close(session)
        load(session, KeyLastUsed, ("key_id", "last_used_ms"), sorted(used.items()))
        seed_operator(session, town.companies[0], tiers[0], town.end_ms)
        seed_audit(session, town.companies, min(ACTS_MAX, town.records // RECORDS_PER_ACT), town.start_ms, town.end_ms)
        seed_experts(session, [tier for tier in tiers if tier in MIXTURES], workspaces, town.end_ms, town.days)
        _set_sequences(session)


def _set_sequences(session: Session) -> None:
    """Postgres does not learn from ids that were given."""
    if session.connection().dialect.name == "postgresql":
        session.execute(
            text(
                "SELECT setval(pg_get_serial_sequence('ledger_transactions', 'id'), "
                "(SELECT MAX(id) FROM ledger_transactions))"
            )
        )


def _seal(database: Database, now_ms: int) -> int:
    with database.unit_of_work() as session:
        return seal_closed_hours(session, now_ms)


if __name__ == "__main__":
    sys.exit(main())
