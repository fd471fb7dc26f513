"""The journal: double entry, append-only, each transaction once and with the sum 0.

An entry with a positive amount is a credit: money flows into the account from the others of its transaction.

| account | balance |
|---|---|
| prepaid:ORG | at least 0: what the grants of the organisation have left; we owe it |
| receivable:ORG | at most 0: what the organisation used beyond its grants and owes us |
| cash | at most 0: minus what was paid to us |
| promo | at most 0: minus what we gave away |
| revenue:paid, revenue:promo, revenue:lost | what was used, by who pays for it: the customer, promo, we |
| loss | at most 0: minus what was used and nobody pays |
| breakage | what expired unused |
| rounding | what invoices rounded |

So the sum over revenue:* is the cost of all usage records, and loss mirrors revenue:lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, cast, func, insert, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from billing.calendar import HOUR_MS
from billing.money import AMOUNT_NANO_MAX
from core.db import Base, insert_new
from core.errors import CONFLICT, PlatformError

CASH, PROMO, LOSS, BREAKAGE, ROUNDING = "cash", "promo", "loss", "breakage", "rounding"
REVENUE_PAID, REVENUE_PROMO, REVENUE_LOST = "revenue:paid", "revenue:promo", "revenue:lost"
OWN_ACCOUNTS = frozenset({CASH, PROMO, LOSS, BREAKAGE, ROUNDING, REVENUE_PAID, REVENUE_PROMO, REVENUE_LOST})
ENTRIES_MAX = 16
KEY_LENGTH_MAX = 200


def prepaid(organisation: str) -> str:
    return f"prepaid:{organisation}"


def receivable(organisation: str) -> str:
    return f"receivable:{organisation}"


class LedgerTransaction(Base):
    """`organisation` is empty where none is concerned. `booked_ms` never lies in an hour that is sealed already."""

    __tablename__ = "ledger_transactions"
    __table_args__ = (Index(None, "booked_ms"), Index(None, "organisation", "booked_ms"))

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    key: Mapped[str] = mapped_column(String(KEY_LENGTH_MAX), unique=True)
    kind: Mapped[str] = mapped_column(String(32))
    organisation: Mapped[str] = mapped_column(String(32))
    booked_ms: Mapped[int]
    note: Mapped[str] = mapped_column(String(200))


class LedgerEntry(Base):
    __tablename__ = "ledger_entries"
    __table_args__ = (Index(None, "account", "transaction_id", "amount_nano"),)  # sums read the index only

    transaction_id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), ForeignKey("ledger_transactions.id"), primary_key=True
    )
    line: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[str] = mapped_column(String(64))
    amount_nano: Mapped[int]


class LedgerHour(Base):
    """What was booked on one of OWN_ACCOUNTS by transactions of a kind in an hour that is sealed: it never changes, so
    that reports need not read the journal itself. Hours without such entries have no row.
    """

    __tablename__ = "ledger_hours"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy's own way of declaring it

    hour_ms: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    account: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    amount_nano: Mapped[int]


class LedgerSeal(Base):
    """One link of the chain that `billing/seal.py` makes."""

    __tablename__ = "ledger_seals"

    hour_ms: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    transactions: Mapped[int]
    digest: Mapped[str] = mapped_column(String(64))
    previous: Mapped[str] = mapped_column(String(64))


@dataclass(frozen=True, slots=True)
class Entry:
    account: str
    amount_nano: int


def book(
    session: Session,
    *,
    key: str,
    kind: str,
    organisation: str | None,
    entries: Sequence[Entry],
    booked_ms: int,
    note: str = "",
) -> int:
    """The id of the one transaction with this key, booked now if there is none yet; a moment in a sealed hour becomes
    the start of the first that is not. Raises PlatformError (CONFLICT) if the key was used for something else, and
    ValueError for entries that are no transaction.
    """
    kept = _checked(entries, organisation)
    row = {
        "key": key,
        "kind": kind,
        "organisation": organisation or "",
        "booked_ms": max(booked_ms, sealed_until_ms(session)),
        "note": note,
    }
    found = _find(session, key)
    if found is None:
        insert_new(session, LedgerTransaction, [row], ["key"])
        found = _find(session, key)
        assert found is not None, "inserted just now, by us or by somebody quicker"
        if not _entries_of(session, found.id):
            lines = [
                {"transaction_id": found.id, "line": line, "account": entry.account, "amount_nano": entry.amount_nano}
                for line, entry in enumerate(kept)
            ]
            session.execute(insert(LedgerEntry), lines)
            return found.id
    if (found.kind, found.organisation, _entries_of(session, found.id)) != (kind, organisation or "", kept):
        raise PlatformError(CONFLICT, f"The key {key} was booked before with something else.")
    return found.id


def booked(session: Session, key: str) -> int | None:
    """The id of the transaction with this key, if there is one."""
    found = _find(session, key)
    return None if found is None else found.id


def balance(session: Session, account: str) -> int:
    total = func.coalesce(func.sum(LedgerEntry.amount_nano), 0)
    return session.execute(select(cast(total, BigInteger)).where(LedgerEntry.account == account)).scalar_one()


def balances(session: Session, prefix: str = "") -> dict[str, int]:
    """Of every account whose name begins so, by name."""
    query = (
        select(LedgerEntry.account, cast(func.sum(LedgerEntry.amount_nano), BigInteger))
        .where(LedgerEntry.account.startswith(prefix, autoescape=True))
        .group_by(LedgerEntry.account)
        .order_by(LedgerEntry.account)
    )
    return {row[0]: row[1] for row in session.execute(query)}


def own_sums(session: Session, from_ms: int, to_ms: int) -> list[tuple[str, str, int]]:
    """Account, kind, amount of what was booked on OWN_ACCOUNTS in [from_ms, to_ms), from the journal itself."""
    query = (
        select(LedgerEntry.account, LedgerTransaction.kind, cast(func.sum(LedgerEntry.amount_nano), BigInteger))
        .join(LedgerTransaction, LedgerTransaction.id == LedgerEntry.transaction_id)
        .where(LedgerTransaction.booked_ms >= from_ms, LedgerTransaction.booked_ms < to_ms)
        .group_by(LedgerEntry.account, LedgerTransaction.kind)
        .order_by(LedgerEntry.account, LedgerTransaction.kind)
    )
    # Chosen here: asked for by account, SQLite would read the accounts from the beginning, not the time.
    return [(row[0], row[1], row[2]) for row in session.execute(query) if row[0] in OWN_ACCOUNTS]


def check_journal(session: Session) -> list[str]:
    """What is wrong with it, one sentence each: transactions that are not whole, or do not sum to 0."""
    total = func.coalesce(func.sum(LedgerEntry.amount_nano), 0)
    query = (
        select(LedgerTransaction.id, func.count(LedgerEntry.line), cast(total, BigInteger))
        .outerjoin(LedgerEntry, LedgerEntry.transaction_id == LedgerTransaction.id)
        .group_by(LedgerTransaction.id)
        .having((func.count(LedgerEntry.line) < 2) | (total != 0))
        .order_by(LedgerTransaction.id)
    )
    return [f"transaction {row[0]} has {row[1]} entries with the sum {row[2]}" for row in session.execute(query)]


def check_ledger_hours(session: Session) -> list[str]:
    """Which sums of sealed hours are not what the journal says, one sentence for each account and kind."""
    kept = select(LedgerHour.account, LedgerHour.kind, cast(func.sum(LedgerHour.amount_nano), BigInteger))
    found = {row[:2]: row[2] for row in session.execute(kept.group_by(LedgerHour.account, LedgerHour.kind))}
    booked = {(account, kind): nano for account, kind, nano in own_sums(session, 0, sealed_until_ms(session))}
    return [
        f"the sealed hours of {account} by {kind} sum to {found.get((account, kind), 0)} nano, "
        f"the journal says {booked.get((account, kind), 0)}"
        for account, kind in sorted({*found, *booked})
        if found.get((account, kind), 0) != booked.get((account, kind), 0)
    ]


def sealed_until_ms(session: Session) -> int:
    """Before this moment nothing is booked any more; 0 if nothing is sealed."""
    last = session.execute(select(func.max(LedgerSeal.hour_ms))).scalar_one()
    return 0 if last is None else last + HOUR_MS


def _checked(entries: Sequence[Entry], organisation: str | None) -> tuple[Entry, ...]:
    accounts = {entry.account for entry in entries}
    theirs = {prepaid(organisation), receivable(organisation)} if organisation else set()
    if not accounts <= OWN_ACCOUNTS | theirs:
        raise ValueError(f"not accounts of this transaction: {sorted(accounts - OWN_ACCOUNTS - theirs)}")
    if not 2 <= len(entries) <= ENTRIES_MAX or len(accounts) != len(entries):
        raise ValueError(f"a transaction has 2 to {ENTRIES_MAX} entries, one for each account")
    if sum(entry.amount_nano for entry in entries) != 0:
        raise ValueError("the entries of a transaction sum to 0")
    if any(not 0 < abs(entry.amount_nano) <= AMOUNT_NANO_MAX for entry in entries):
        raise ValueError("an entry moves something, and at most 2^52")
    return tuple(entries)


def _find(session: Session, key: str) -> LedgerTransaction | None:
    return session.scalars(select(LedgerTransaction).where(LedgerTransaction.key == key)).first()


def _entries_of(session: Session, transaction_id: int) -> tuple[Entry, ...]:
    query = (
        select(LedgerEntry.account, LedgerEntry.amount_nano)
        .where(LedgerEntry.transaction_id == transaction_id)
        .order_by(LedgerEntry.line)
    )
    return tuple(Entry(*row) for row in session.execute(query))
