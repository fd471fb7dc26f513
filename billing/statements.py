"""An organisation's account as it is read: its grants, and what was booked on it."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from billing.grants import Grant
from billing.journal import LedgerEntry, LedgerTransaction, prepaid, receivable

IDS_AT_ONCE = 1_000
KINDS = ("topup", "promo", "plan", "correction", "usage", "expiry")


@dataclass(frozen=True, slots=True)
class AccountLine:
    """One transaction. `prepaid_nano` is what it did to the credit, `owed_nano` to what is owed beyond it: below 0
    more is owed.
    """

    id: int
    booked_ms: int
    kind: str
    note: str
    prepaid_nano: int
    owed_nano: int

    @property
    def amount_nano(self) -> int:
        return self.prepaid_nano + self.owed_nano


def list_grants(session: Session, organisation: str, count: int) -> list[Grant]:
    """Newest first, used up and expired ones too."""
    query = select(Grant).where(Grant.organisation == organisation)
    return list(session.scalars(query.order_by(Grant.created_ms.desc(), Grant.id).limit(count)))


def account_lines(
    session: Session,
    organisation: str,
    count: int,
    *,
    before: tuple[int, int] | None = None,
    kinds: Sequence[str] = (),
    from_ms: int | None = None,
    until_ms: int | None = None,
) -> list[AccountLine]:
    """Newest first. `before` is (booked_ms, id) of the last line of the page before."""
    at = (LedgerTransaction.booked_ms, LedgerTransaction.id)
    query = select(LedgerTransaction).where(LedgerTransaction.organisation == organisation)
    if before is not None:
        query = query.where(tuple_(*at) < before)
    if kinds:
        query = query.where(LedgerTransaction.kind.in_(kinds))
    if from_ms is not None:
        query = query.where(LedgerTransaction.booked_ms >= from_ms)
    if until_ms is not None:
        query = query.where(LedgerTransaction.booked_ms < until_ms)
    found = list(session.scalars(query.order_by(*(column.desc() for column in at)).limit(count)))
    accounts = (prepaid(organisation), receivable(organisation))
    amounts: dict[tuple[int, str], int] = {}
    for start in range(0, len(found), IDS_AT_ONCE):
        ids = [each.id for each in found[start : start + IDS_AT_ONCE]]
        entries = select(LedgerEntry.transaction_id, LedgerEntry.account, LedgerEntry.amount_nano)
        entries = entries.where(LedgerEntry.transaction_id.in_(ids), LedgerEntry.account.in_(accounts))
        amounts |= {(row[0], row[1]): row[2] for row in session.execute(entries)}
    return [
        AccountLine(
            each.id,
            each.booked_ms,
            each.kind,
            each.note,
            *(amounts.get((each.id, account), 0) for account in accounts),
        )
        for each in found
    ]
