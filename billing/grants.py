"""Grants: where an organisation's credit comes from, in which order it is used up, and when it expires.

Burn order: priority (low first), expiry (soonest first, never last), creation. What the grants have left is the
balance of prepaid:ORG in the journal. Each grant is made once for its key, each change of money is one transaction.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from sqlalchemy import CheckConstraint, Index, String, UniqueConstraint, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from billing.accounts import Available, available, lock_account, post
from billing.journal import BREAKAGE, CASH, LOSS, PROMO, REVENUE_PAID, Entry, book, booked, prepaid
from billing.money import check_amount
from core.clock import Clock
from core.db import Base
from core.errors import CONFLICT, VALIDATION, PlatformError

KEY_LENGTH_MAX = 128
NOTE_LENGTH_MAX = 200
PRIORITY_MAX = 1_000
TOP_UP_PRIORITY = 100
GIVEN_PRIORITY = 50  # what we gave is used before what was paid for
EXPIRE_BATCH = 500


class GrantKind(StrEnum):
    TOP_UP = "topup"  # paid
    PROMO = "promo"  # given
    PLAN = "plan"  # given once with the plan
    CORRECTION = "correction"  # given back


GIVEN = frozenset({GrantKind.PROMO, GrantKind.PLAN})
Against = Literal["cash", "revenue", "promo", "loss"]
_AGAINST = {"cash": CASH, "revenue": REVENUE_PAID, "promo": PROMO, "loss": LOSS}


class Grant(Base):
    __tablename__ = "grants"
    __table_args__ = (
        UniqueConstraint("organisation", "key"),
        CheckConstraint("remaining_nano BETWEEN 0 AND amount_nano", name="remaining"),
        Index(None, "organisation", "priority"),
        Index(None, "expires_ms"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    organisation: Mapped[str] = mapped_column(String(32))
    key: Mapped[str] = mapped_column(String(KEY_LENGTH_MAX))
    kind: Mapped[str] = mapped_column(String(16))
    amount_nano: Mapped[int]
    remaining_nano: Mapped[int]
    priority: Mapped[int]
    expires_ms: Mapped[int | None]
    created_ms: Mapped[int]
    created_by: Mapped[str] = mapped_column(String(128))
    note: Mapped[str] = mapped_column(String(NOTE_LENGTH_MAX))


@dataclass(frozen=True, slots=True)
class Part:
    """What one grant paid."""

    grant_id: str
    kind: GrantKind
    amount_nano: int


@dataclass(frozen=True, slots=True)
class Statement:
    """`owed_nano` was used beyond the grants; `grants` have something left, in burn order."""

    account: Available
    owed_nano: int
    grants: tuple[Grant, ...]


def top_up(
    session: Session,
    organisation: str,
    amount_nano: int,
    *,
    key: str,
    clock: Clock,
    created_by: str = "",
    note: str = "",
) -> Grant:
    """Paid credit; it never expires. The same key again is the same top-up. Raises PlatformError: VALIDATION, CONFLICT
    (the key was used for another amount).
    """
    return _give(
        session,
        Grant(
            organisation=organisation,
            key=key,
            kind=GrantKind.TOP_UP,
            amount_nano=amount_nano,
            priority=TOP_UP_PRIORITY,
            expires_ms=None,
            created_by=created_by,
            note=note,
        ),
        CASH,
        clock.now_ms(),
    )


def grant(
    session: Session,
    organisation: str,
    amount_nano: int,
    *,
    key: str,
    clock: Clock,
    kind: GrantKind = GrantKind.PROMO,
    priority: int = GIVEN_PRIORITY,
    expires_ms: int | None = None,
    created_by: str = "",
    note: str = "",
) -> Grant:
    """Credit that we give (kind promo or plan). As top_up."""
    if kind not in GIVEN:
        raise ValueError(f"a grant of kind {kind} is not given")
    made = Grant(
        organisation=organisation,
        key=key,
        kind=kind,
        amount_nano=amount_nano,
        priority=priority,
        expires_ms=expires_ms,
        created_by=created_by,
        note=note,
    )
    return _give(session, made, PROMO, clock.now_ms())


def ensure_plan_credit(session: Session, organisation: str, amount_nano: int, clock: Clock) -> None:
    """What a plan gives once, to the first plan's amount: later changes of plan or amount give nothing more."""
    key = f"plan:{organisation}"
    if amount_nano and _find(session, organisation, key) is None:
        lock_account(session, organisation)
        if _find(session, organisation, key) is None:
            grant(session, organisation, amount_nano, key=key, clock=clock, kind=GrantKind.PLAN)


def correct(
    session: Session,
    organisation: str,
    amount_nano: int,
    *,
    against: Against,
    key: str,
    clock: Clock,
    created_by: str = "",
    note: str = "",
) -> None:
    """Give back (above 0) or take away (below 0), as a new transaction against cash, revenue, promo or loss. What is
    held cannot be taken; against promo only what was given can, else only what was not. The same key again changes
    nothing. Raises PlatformError: VALIDATION, CONFLICT.
    """
    other = _AGAINST[against]
    if amount_nano > 0:
        made = Grant(
            organisation=organisation,
            key=key,
            kind=GrantKind.CORRECTION,
            amount_nano=amount_nano,
            priority=TOP_UP_PRIORITY,
            expires_ms=None,
            created_by=created_by,
            note=note,
        )
        _give(session, made, other, clock.now_ms())
    else:
        _take(session, organisation, -amount_nano, other, key=key, now_ms=clock.now_ms(), note=note)


def burn(session: Session, organisation: str, amount_nano: int) -> tuple[Part, ...]:
    """Use up grants in their order; what they do not reach is owed. The caller has locked the account, changes its
    balance and books it.
    """
    return _burn(session, _open_grants(session, organisation), amount_nano)


def expire(session: Session, now_ms: int) -> int:
    """Move what is left of expired grants to breakage, in nano-units; how much it was, the first to be used first. What
    is held now stays until a later call. At most EXPIRE_BATCH grants in one call.
    """
    due = select(Grant.organisation, Grant.id).where(Grant.expires_ms <= now_ms, Grant.remaining_nano > 0)
    order = (Grant.organisation, Grant.priority, Grant.expires_ms, Grant.created_ms, Grant.id)
    rows = session.execute(due.order_by(*order).limit(EXPIRE_BATCH)).all()
    return sum(_expire(session, organisation, grant_id, now_ms) for organisation, grant_id in rows)


def statement(session: Session, organisation: str) -> Statement:
    account = available(session, organisation)
    grants = tuple(_open_grants(session, organisation))
    owed_nano = sum(each.remaining_nano for each in grants) - account.posted_nano
    return Statement(account, owed_nano, grants)


def _give(session: Session, made: Grant, source: str, now_ms: int) -> Grant:
    _check(made, now_ms)
    lock_account(session, made.organisation)
    known = _find(session, made.organisation, made.key)
    if known is not None:
        if (known.kind, known.amount_nano) != (made.kind, made.amount_nano):
            raise PlatformError(CONFLICT, f"The key {made.key} was used before for something else.", param="key")
        return known
    if not post(session, made.organisation, made.amount_nano):
        raise PlatformError(VALIDATION, "The balance would be larger than amounts may be.", param="amount")
    # Derived, so that a repetition can never be a second grant.
    made.id = hashlib.sha256(f"{made.organisation}\n{made.key}".encode()).hexdigest()[:32]
    made.remaining_nano = made.amount_nano
    made.created_ms = now_ms
    session.add(made)
    session.flush()
    book(
        session,
        key=f"grant:{made.organisation}:{made.key}",
        kind=made.kind,
        organisation=made.organisation,
        entries=(Entry(source, -made.amount_nano), Entry(prepaid(made.organisation), made.amount_nano)),
        booked_ms=now_ms,
        note=made.note,
    )
    return made


def _check(made: Grant, now_ms: int) -> None:
    check_amount(made.amount_nano)
    if made.amount_nano == 0:
        raise PlatformError(VALIDATION, "amount is above 0.", param="amount")
    if not 1 <= len(made.key) <= KEY_LENGTH_MAX or not made.key.isprintable():
        raise PlatformError(VALIDATION, f"key has 1 to {KEY_LENGTH_MAX} printable characters.", param="key")
    if len(made.note) > NOTE_LENGTH_MAX:
        raise PlatformError(VALIDATION, f"note has at most {NOTE_LENGTH_MAX} characters.", param="note")
    if not 0 <= made.priority <= PRIORITY_MAX:
        raise PlatformError(VALIDATION, f"priority is 0 to {PRIORITY_MAX}.", param="priority")
    if made.expires_ms is not None and made.expires_ms <= now_ms:
        raise PlatformError(VALIDATION, "The grant expires in the past.", param="expires")


def _take(
    session: Session, organisation: str, amount_nano: int, other: str, *, key: str, now_ms: int, note: str
) -> None:
    check_amount(amount_nano)
    if amount_nano == 0:
        raise PlatformError(VALIDATION, "amount is not 0.", param="amount")
    account = lock_account(session, organisation)
    entries = (Entry(prepaid(organisation), -amount_nano), Entry(other, amount_nano))
    journal_key = f"correct:{organisation}:{key}"
    if booked(session, journal_key) is None:
        grants = [each for each in _open_grants(session, organisation) if (each.kind in GIVEN) == (other == PROMO)]
        left_nano = min(sum(each.remaining_nano for each in grants), account.posted_nano - account.held_nano)
        if left_nano < amount_nano or not post(session, organisation, -amount_nano):
            raise PlatformError(CONFLICT, "There is not so much credit that is not held.", param="amount")
        _burn(session, grants, amount_nano)
    book(
        session,
        key=journal_key,
        kind=GrantKind.CORRECTION,
        organisation=organisation,
        entries=entries,
        booked_ms=now_ms,
        note=note,
    )


def _expire(session: Session, organisation: str, grant_id: str, now_ms: int) -> int:
    account = lock_account(session, organisation)
    remaining_nano = session.execute(select(Grant.remaining_nano).where(Grant.id == grant_id)).scalar_one()
    amount_nano = min(remaining_nano, max(0, account.posted_nano - account.held_nano))
    if amount_nano == 0:
        return 0
    if not post(session, organisation, -amount_nano):
        raise AssertionError("what is not held can be taken")
    _use(session, grant_id, amount_nano)
    book(
        session,
        key=f"expire:{grant_id}:{remaining_nano}",  # what is left only falls: each part has a key of its own
        kind="expiry",
        organisation=organisation,
        entries=(Entry(prepaid(organisation), -amount_nano), Entry(BREAKAGE, amount_nano)),
        booked_ms=now_ms,
    )
    return amount_nano


def _burn(session: Session, grants: Sequence[Grant], amount_nano: int) -> tuple[Part, ...]:
    parts: list[Part] = []
    for each in grants:
        used_nano = min(each.remaining_nano, amount_nano)
        if used_nano:
            _use(session, each.id, used_nano)
            parts.append(Part(each.id, GrantKind(each.kind), used_nano))
            amount_nano -= used_nano
    return tuple(parts)


def _use(session: Session, grant_id: str, amount_nano: int) -> None:
    session.execute(update(Grant).where(Grant.id == grant_id).values(remaining_nano=Grant.remaining_nano - amount_nano))


def _open_grants(session: Session, organisation: str) -> list[Grant]:
    """In burn order, as they are now."""
    query = (
        select(Grant)
        .where(Grant.organisation == organisation, Grant.remaining_nano > 0)
        .order_by(Grant.priority, Grant.expires_ms.is_(None), Grant.expires_ms, Grant.created_ms, Grant.id)
    )
    return list(session.scalars(query.execution_options(populate_existing=True)))


def _find(session: Session, organisation: str, key: str) -> Grant | None:
    return session.scalars(select(Grant).where(Grant.organisation == organisation, Grant.key == key)).first()
