"""The ledger of the year: credit given, bought, used and expired, so that it agrees with the records."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from benchmarks.bulk import load
from benchmarks.console.people import DAY_MS, Company
from benchmarks.console.traffic import ORGANISATION_SLOTS, SLOTS, Batch
from billing.accounts import CreditAccount
from billing.grants import GIVEN, GIVEN_PRIORITY, TOP_UP_PRIORITY, Grant, GrantKind
from billing.journal import (
    BREAKAGE,
    CASH,
    LOSS,
    PROMO,
    REVENUE_LOST,
    REVENUE_PAID,
    REVENUE_PROMO,
    LedgerEntry,
    LedgerTransaction,
    prepaid,
    receivable,
)
from billing.prices import PriceVersion
from core.catalog import NANO_PER_UNIT

HOUR_MS = 3_600_000
# For each thousand records of the whole year, so that most of them are paid for.
TOP_UP_NANO, PLAN_NANO, PROMO_NANO = NANO_PER_UNIT // 50, NANO_PER_UNIT // 1_000, NANO_PER_UNIT // 500
PROMO_DAYS, PROMO_KEPT_DAYS, PROMOTED = 30, 20, 6  # every so many days, for every sixth organisation
GRANT_COLUMNS = tuple(column.key for column in Grant.__mapper__.columns)
TRANSACTION_COLUMNS = ("id", "key", "kind", "organisation", "booked_ms", "note")
ENTRY_COLUMNS = ("transaction_id", "line", "account", "amount_nano")
Transaction = tuple[int, str, str, str, int, str]
Entry = tuple[int, int, str, int]


@dataclass(slots=True)
class Purse:
    """The credit of one organisation, in burn order."""

    company: Company
    open: list[dict[str, Any]] = field(default_factory=list)
    used_up: list[dict[str, Any]] = field(default_factory=list)
    owed_nano: int = 0

    @property
    def left_nano(self) -> int:
        return sum(grant["remaining_nano"] for grant in self.open)


class Ledger:
    """`transactions` and `entries` are what is not loaded yet."""

    def __init__(self, companies: Sequence[Company], start_ms: int, records: int) -> None:
        self._start_ms = start_ms
        self._unit = max(1, records // 1_000)
        self._purses = [Purse(company) for company in companies]
        self.transactions: list[Transaction] = []
        self.entries: list[Entry] = []

    def settle(self, batches: Sequence[Batch]) -> None:
        """The hours of one day, in order."""
        for batch in batches:
            if batch.charged_nano + batch.lost_nano:
                self._settle(batch)

    def flush(self, session: Session) -> None:
        load(session, LedgerTransaction, TRANSACTION_COLUMNS, self.transactions)
        load(session, LedgerEntry, ENTRY_COLUMNS, self.entries)
        self.transactions, self.entries = [], []

    def begin(self) -> None:
        """Credit of the plan for everybody."""
        for purse in self._purses:
            self._give(purse, GrantKind.PLAN, PLAN_NANO * self._unit, 0, None)

    def promote(self, day: int) -> None:
        """Every month something for some, which expires; and what is left of the last is gone."""
        for purse in self._purses:
            at_ms = self._start_ms + day * DAY_MS
            self._expire(purse, at_ms)
            if day and day % PROMO_DAYS == 0 and purse.company.number % PROMOTED == 0:
                self._give(purse, GrantKind.PROMO, PROMO_NANO * self._unit, day * 24, at_ms + PROMO_KEPT_DAYS * DAY_MS)

    def close(self, session: Session) -> None:
        """What is left, as grants and accounts tell it."""
        grants = [grant for purse in self._purses for grant in (*purse.used_up, *purse.open)]
        load(session, Grant, GRANT_COLUMNS, ([grant[name] for name in GRANT_COLUMNS] for grant in grants))
        accounts = [
            {
                "organisation": purse.company.id,
                "posted_nano": purse.left_nano - purse.owed_nano,
                "held_nano": 0,
                "limit_nano": 2 * purse.owed_nano + 1_000 * NANO_PER_UNIT if purse.company.postpaid else 0,
            }
            for purse in self._purses
        ]
        session.execute(insert(CreditAccount), accounts)

    def _settle(self, batch: Batch) -> None:
        purse = self._purses[batch.organisation]
        place = batch.transaction_id // SLOTS // ORGANISATION_SLOTS - 1
        if purse.left_nano < batch.charged_nano and not purse.company.postpaid:
            short_nano = batch.charged_nano - purse.left_nano
            step_nano = TOP_UP_NANO * self._unit
            self._give(purse, GrantKind.TOP_UP, -(-short_nano // step_nano) * step_nano, place, None)
        burnt_nano = given_nano = 0
        for grant, used_nano in self._burn(purse, batch.charged_nano):
            burnt_nano += used_nano
            given_nano += used_nano if grant["kind"] in GIVEN else 0
        owed_nano = batch.charged_nano - burnt_nano
        purse.owed_nano += owed_nano
        self._book(
            (batch.transaction_id, f"usage:{batch.first_id}", "usage", purse.company.id, batch.booked_ms, ""),
            (prepaid(purse.company.id), -burnt_nano),
            (receivable(purse.company.id), -owed_nano),
            (LOSS, -batch.lost_nano),
            (REVENUE_PAID, batch.charged_nano - given_nano),
            (REVENUE_PROMO, given_nano),
            (REVENUE_LOST, batch.lost_nano),
        )

    def _give(self, purse: Purse, kind: GrantKind, amount_nano: int, place: int, expires_ms: int | None) -> None:
        owner, at_ms = purse.company.id, self._start_ms + place * HOUR_MS
        key = f"plan:{owner}" if kind is GrantKind.PLAN else f"{kind.value}-{place}"
        paid = kind is GrantKind.TOP_UP
        note = "By card" if paid else "Welcome" if kind is GrantKind.PLAN else "Promotion"
        grant: dict[str, Any] = {
            "id": sha256(f"{owner}\n{key}".encode()).hexdigest()[:32],
            "organisation": owner,
            "key": key,
            "kind": kind.value,
            "amount_nano": amount_nano,
            "remaining_nano": amount_nano,
            "priority": TOP_UP_PRIORITY if paid else GIVEN_PRIORITY,
            "expires_ms": expires_ms,
            "created_ms": at_ms,
            "created_by": "" if paid else "user:operator",
            "note": note,
        }
        purse.open.append(grant)
        purse.open.sort(key=_burn_order)
        self._book(
            (self._id(place, purse, 1 if paid else 0), f"grant:{owner}:{key}", kind.value, owner, at_ms, note),
            (CASH if paid else PROMO, -amount_nano),
            (prepaid(owner), amount_nano),
        )

    def _expire(self, purse: Purse, at_ms: int) -> None:
        due = next((grant for grant in purse.open if (grant["expires_ms"] or at_ms + 1) <= at_ms), None)
        if due is not None:
            left_nano, due["remaining_nano"] = due["remaining_nano"], 0
            purse.open.remove(due)
            purse.used_up.append(due)
            number = self._id((at_ms - self._start_ms) // HOUR_MS, purse, 2)
            key = f"expire:{due['id']}:{left_nano}"
            self._book(
                (number, key, "expiry", purse.company.id, at_ms, ""),
                (prepaid(purse.company.id), -left_nano),
                (BREAKAGE, left_nano),
            )

    def _burn(self, purse: Purse, amount_nano: int) -> Iterator[tuple[dict[str, Any], int]]:
        while amount_nano and purse.open:
            grant = purse.open[0]
            used_nano = min(grant["remaining_nano"], amount_nano)
            grant["remaining_nano"] -= used_nano
            amount_nano -= used_nano
            if not grant["remaining_nano"]:
                purse.used_up.append(purse.open.pop(0))
            yield grant, used_nano

    def _id(self, place: int, purse: Purse, slot: int) -> int:
        return ((place + 1) * ORGANISATION_SLOTS + purse.company.number) * SLOTS + slot

    def _book(self, transaction: Transaction, *entries: tuple[str, int]) -> None:
        self.transactions.append(transaction)
        kept = [entry for entry in entries if entry[1]]
        self.entries.extend((transaction[0], line, account, nano) for line, (account, nano) in enumerate(kept))


def _burn_order(grant: dict[str, Any]) -> tuple[Any, ...]:
    expires_ms = grant["expires_ms"]
    return grant["priority"], expires_ms is None, expires_ms or 0, grant["created_ms"], grant["id"]


def later_prices(
    session: Session, launch: Sequence[PriceVersion], from_ms: int, name: str, percent: int
) -> list[PriceVersion]:
    """The launch's prices, dearer from then on."""
    made = []
    for version in launch:
        values = {column.key: getattr(version, column.key) for column in PriceVersion.__mapper__.columns}
        for part in ("input_nano", "cached_nano", "output_nano"):
            values[part] = values[part] * percent // 100
        values |= {"version": f"{name}:{version.tier}", "start_ms": from_ms, "created_ms": from_ms - 30 * DAY_MS}
        made.append(PriceVersion(**values | {"note": f"{percent} % of the launch's"}))
    session.add_all(made)
    session.flush()
    return made
