"""A hash chain over the journal: once an hour is sealed, whoever changes it must change every later seal too.

A seal covers all transactions from the end of the seal before it up to the end of its own hour; hours without any get
none. Its digest is the SHA-256, as hexadecimal digits, of these ASCII lines, each ended by a line feed:

    the digest of the seal before it (64 zeros for the first)
    the hour's start in ms since 1970-01-01 UTC
    for each transaction, by id: a JSON array without spaces, non-ASCII characters escaped,
    [id, key, kind, organisation, booked_ms, note, [[line, account, amount_nano], ...]]
"""

import hashlib
import json
from collections.abc import Iterator
from itertools import groupby

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from billing.calendar import HOUR_MS, hour_start_ms
from billing.journal import LedgerEntry, LedgerHour, LedgerSeal, LedgerTransaction, own_sums, sealed_until_ms
from core.db import insert_new

GENESIS = "0" * 64
SETTLING_MS = 600_000  # after an hour's end, for transactions that were begun in it
HOURS_MAX = 1_000
_ROWS_AT_ONCE = 1_000


def seal_closed_hours(session: Session, now_ms: int) -> int:
    """Seal what is closed, HOURS_MAX at most in one call; how many hours were sealed. Twice does no harm."""
    closed_ms = hour_start_ms(now_ms - SETTLING_MS)
    previous, from_ms = _last(session)
    for number in range(HOURS_MAX):
        oldest = select(func.min(LedgerTransaction.booked_ms)).where(
            LedgerTransaction.booked_ms >= from_ms, LedgerTransaction.booked_ms < closed_ms
        )
        first_ms = session.execute(oldest).scalar_one()
        if first_ms is None:
            return number
        hour_ms = hour_start_ms(first_ms)
        transactions, digest = _digest(session, previous, from_ms, hour_ms)
        row = {"hour_ms": hour_ms, "transactions": transactions, "digest": digest, "previous": previous}
        insert_new(session, LedgerSeal, [row], ["hour_ms"])
        sums = own_sums(session, from_ms, hour_ms + HOUR_MS)
        rows = [
            {"hour_ms": hour_ms, "account": account, "kind": kind, "amount_nano": nano} for account, kind, nano in sums
        ]
        insert_new(session, LedgerHour, rows, ["hour_ms", "account", "kind"])
        previous, from_ms = digest, hour_ms + HOUR_MS
    return HOURS_MAX


def verify_seals(session: Session) -> int | None:
    """The start of the first hour whose seal does not fit; None if all do."""
    previous, from_ms = GENESIS, 0
    for seal in session.scalars(select(LedgerSeal).order_by(LedgerSeal.hour_ms)):
        found = (*_digest(session, previous, from_ms, seal.hour_ms), previous)
        if found != (seal.transactions, seal.digest, seal.previous):
            return seal.hour_ms
        previous, from_ms = seal.digest, seal.hour_ms + HOUR_MS
    return None


def _last(session: Session) -> tuple[str, int]:
    last = session.scalars(select(LedgerSeal).order_by(LedgerSeal.hour_ms.desc()).limit(1)).first()
    return (GENESIS, 0) if last is None else (last.digest, sealed_until_ms(session))


def _digest(session: Session, previous: str, from_ms: int, hour_ms: int) -> tuple[int, str]:
    """How many transactions, and the digest."""
    digest = hashlib.sha256(f"{previous}\n{hour_ms}\n".encode("ascii"))
    count = 0
    for line in _lines(session, from_ms, hour_ms + HOUR_MS):
        digest.update(line)
        count += 1
    return count, digest.hexdigest()


def _lines(session: Session, from_ms: int, to_ms: int) -> Iterator[bytes]:
    head = LedgerTransaction
    query = (
        select(
            *(head.id, head.key, head.kind, head.organisation, head.booked_ms, head.note),
            *(LedgerEntry.line, LedgerEntry.account, LedgerEntry.amount_nano),
        )
        .outerjoin(LedgerEntry, LedgerEntry.transaction_id == head.id)
        .where(head.booked_ms >= from_ms, head.booked_ms < to_ms)
        .order_by(head.id, LedgerEntry.line)
        .execution_options(yield_per=_ROWS_AT_ONCE)
    )
    rows = (tuple(row) for row in session.execute(query))
    for fields, lines in groupby(rows, key=lambda row: row[:6]):
        entries = [row[6:] for row in lines]
        yield json.dumps([*fields, entries], separators=(",", ":")).encode("ascii") + b"\n"
