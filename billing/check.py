"""The books against everything that says the same in another way: journal, accounts, seals, records, roll-ups, prices.

What Redis holds is compared in `check_cell.py`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, case, cast, func, select, text
from sqlalchemy.orm import InstrumentedAttribute, Session

from billing.account_check import check_accounts
from billing.calendar import hour_start_ms
from billing.days import DAY_MS, day_start_ms, next_day_ms, wrong_rows
from billing.journal import REVENUE_LOST, LedgerEntry, LedgerTransaction, check_journal, check_ledger_hours
from billing.models import UsageRecord
from billing.prices import PriceVersion
from billing.rollups import HOUR_MS, hour_from_records, hour_stored, next_hour_ms
from billing.seal import verify_seals
from billing.usage import local_time
from core.db import Database
from core.meter.cost import cost_nano

FINDINGS_MAX = 100
TRANSACTIONS_AT_ONCE = 500
ROWS_AT_ONCE = 2_000
USAGE = "usage"


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` is one of CHECKS; `sentence` names what disagrees and by how much."""

    check: str
    sentence: str


CHECKS = ("journal", "accounts", "seals", "transactions", "records", "rollups", "prices", "holds")


@dataclass(slots=True)
class Findings:
    """Counts all, keeps FINDINGS_MAX of each check. `looked_at` tells what was compared, `skipped` what was not and
    why.
    """

    kept: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CHECKS, 0))
    looked_at: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def add(self, check: str, sentence: str) -> None:
        self.counts[check] += 1
        if self.counts[check] <= FINDINGS_MAX:
            self.kept.append(Finding(check, sentence))

    def saw(self, what: str, count: int = 1) -> None:
        self.looked_at[what] = self.looked_at.get(what, 0) + count

    @property
    def ok(self) -> bool:
        return not any(self.counts.values())


def check_books(database: Database, since_ms: int, findings: Findings) -> None:
    """Journal, accounts and seals whole; what was booked or admitted since since_ms in detail. Reads only, in pieces of
    an hour and of TRANSACTIONS_AT_ONCE.
    """
    with snapshot(database) as session:
        for sentence in (*check_journal(session), *check_ledger_hours(session)):
            findings.add("journal", sentence)
        for sentence in check_accounts(session):
            findings.add("accounts", sentence)
        broken_ms = verify_seals(session)
        if broken_ms is not None:
            findings.add("seals", f"the seal of {local_time(broken_ms, 'UTC')} does not fit the journal")
    _check_transactions(database, since_ms, findings)
    _check_hours(database, hour_start_ms(since_ms), findings)
    _check_days(database, hour_start_ms(since_ms), findings)


@contextmanager
def snapshot(database: Database) -> Iterator[Session]:
    """Reads everything as of one moment, while others write. SQLite does so anyhow."""
    with database.reading() as session:
        if session.connection().dialect.name == "postgresql":
            session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        yield session


def _check_transactions(database: Database, since_ms: int, findings: Findings) -> None:
    """Each transaction of usage against the records that point to it: all of their cost, and the part that we lost."""
    last = 0
    while True:
        with snapshot(database) as session:
            found = select(LedgerTransaction.id).where(
                LedgerTransaction.kind == USAGE, LedgerTransaction.booked_ms >= since_ms, LedgerTransaction.id > last
            )
            ids = list(session.scalars(found.order_by(LedgerTransaction.id).limit(TRANSACTIONS_AT_ONCE)))
            if not ids:
                return
            booked, recorded = _booked(session, ids), _recorded(session, ids)
        for number in ids:
            if booked.get(number) != recorded.get(number):
                findings.add(
                    "transactions",
                    f"transaction {number} books {_costs(booked, number)}, its records say {_costs(recorded, number)}",
                )
        findings.saw("transactions", len(ids))
        last = ids[-1]


def _booked(session: Session, ids: list[int]) -> dict[int, tuple[int, int]]:
    """By transaction: all revenue, and the part that we paid ourselves."""
    revenue = LedgerEntry.account.startswith("revenue:", autoescape=True)
    lost = case((LedgerEntry.account == REVENUE_LOST, LedgerEntry.amount_nano), else_=0)
    query = (
        select(LedgerEntry.transaction_id, _sum(LedgerEntry.amount_nano), _sum(lost))
        .where(LedgerEntry.transaction_id.in_(ids), revenue)
        .group_by(LedgerEntry.transaction_id)
    )
    return {row[0]: (row[1], row[2]) for row in session.execute(query)}


def _recorded(session: Session, ids: list[int]) -> dict[int, tuple[int, int]]:
    record = UsageRecord
    query = (
        select(record.transaction_id, _sum(record.cost_nano + record.loss_nano), _sum(record.loss_nano))
        .where(record.transaction_id.in_(ids))
        .group_by(record.transaction_id)
    )
    found: dict[int, tuple[int, int]] = {}
    for row in session.execute(query):
        assert row[0] is not None, "it is one of ids"
        found[row[0]] = (row[1], row[2])
    return found


def _costs(sums: Mapping[int, tuple[int, int]], number: int) -> str:
    cost_nano, loss_nano = sums.get(number, (0, 0))
    return f"{cost_nano} nano, {loss_nano} of it lost"


def _check_hours(database: Database, from_ms: int, findings: Findings) -> None:
    """Hour by hour: roll-ups, prices, and whether what was charged points to a transaction of usage."""
    with snapshot(database) as session:
        prices = {version.version: version for version in session.scalars(select(PriceVersion))}
    while True:
        with snapshot(database) as session:
            hour_ms = next_hour_ms(session, from_ms)
            if hour_ms is None:
                return
            _check_rollups(session, hour_ms, findings)
            _check_records(session, hour_ms, prices, findings)
        findings.saw("hours")
        from_ms = hour_ms + HOUR_MS


def _check_days(database: Database, from_ms: int, findings: Findings) -> None:
    """Day by day: the sums of organisations, tiers and keys against those that are finer."""
    next_ms = day_start_ms(from_ms)
    while True:
        with snapshot(database) as session:
            day_ms = next_day_ms(session, next_ms)
            if day_ms is None:
                return
            wrong = wrong_rows(session, day_ms, from_ms)
        if wrong:
            day = local_time(day_ms, "UTC")
            findings.add("rollups", f"{wrong} sums of the day {day}, or of its month, are not those of its hours")
        findings.saw("days")
        next_ms = day_ms + DAY_MS


def _check_rollups(session: Session, hour_ms: int, findings: Findings) -> None:
    stored, right = set(hour_stored(session, hour_ms)), set(hour_from_records(session, hour_ms))
    if stored != right:
        wrong = len({row[:6] for row in stored ^ right})
        findings.add("rollups", f"{wrong} roll-ups of the hour {local_time(hour_ms, 'UTC')} are not their records")


def _check_records(session: Session, hour_ms: int, prices: Mapping[str, PriceVersion], findings: Findings) -> None:
    """Records of epoch 0 are older than the ledger and have no transaction."""
    record = UsageRecord
    query = (
        select(
            *(record.request_id, record.price_version, record.prompt_tokens, record.cached_tokens),
            *(record.completion_tokens, record.cost_nano, record.loss_nano, record.epoch, record.transaction_id),
            LedgerTransaction.kind,
        )
        .outerjoin(LedgerTransaction, LedgerTransaction.id == record.transaction_id)
        .where(record.admitted_ms >= hour_ms, record.admitted_ms < hour_ms + HOUR_MS)
        .execution_options(yield_per=ROWS_AT_ONCE)
    )
    count = 0
    for row in session.execute(query):
        count += 1
        owed = row.cost_nano + row.loss_nano
        if row.transaction_id is None and owed and row.epoch:
            findings.add("records", f"request {row.request_id} costs {owed} nano that no transaction books")
        elif row.transaction_id is not None and row.kind != USAGE:
            findings.add("records", f"request {row.request_id} points to {row.transaction_id}, no transaction of usage")
        price = prices.get(row.price_version)
        right = 0 if price is None else _cost(row, price)
        if owed != right:
            sentence = f"request {row.request_id} costs {owed} nano; its tokens at {row.price_version} are {right}"
            findings.add("prices", sentence)
    findings.saw("records", count)


def _cost(row: Any, price: PriceVersion) -> int:
    """What the tokens that the worker counted cost by the price that was pinned at admission."""
    return cost_nano(
        row.prompt_tokens,
        row.cached_tokens,
        row.completion_tokens,
        input_nano=price.input_nano,
        cached_nano=price.cached_nano,
        output_nano=price.output_nano,
    )


def _sum(amount: ColumnElement[int] | InstrumentedAttribute[int]) -> ColumnElement[int]:
    return cast(func.sum(amount), BigInteger)
