"""What an operator does to an organisation's credit, each act with its entry in the audit log.

Functions take a unit of work's session and never commit. `key` makes a repetition harmless: the same again is the same
grant and leaves nothing in the log; with another amount it is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.accounts import lock_account, set_limit
from billing.grants import GIVEN_PRIORITY, Against, Grant, correct, grant, top_up
from core.clock import Clock
from core.errors import CONFLICT, PlatformError
from gateway.accounts.trail import Actor, Target, record


@dataclass(frozen=True, slots=True)
class Gift:
    """Credit that is given. `expires_ms` None: never."""

    amount_nano: int
    priority: int = GIVEN_PRIORITY
    expires_ms: int | None = None
    note: str = ""


def book_top_up(
    session: Session, organisation: str, amount_nano: int, *, key: str, note: str, actor: Actor, clock: Clock
) -> Grant:
    """Credit that was paid; it never expires. Raises PlatformError: VALIDATION, CONFLICT."""

    def give() -> Grant:
        return top_up(session, organisation, amount_nano, key=key, clock=clock, created_by=actor.label, note=note)

    return _given(session, organisation, "credit.top_up", key, give, actor, clock)


def book_gift(session: Session, organisation: str, gift: Gift, *, key: str, actor: Actor, clock: Clock) -> Grant:
    """Raises PlatformError: VALIDATION, CONFLICT."""

    def give() -> Grant:
        return grant(
            session,
            organisation,
            gift.amount_nano,
            key=key,
            clock=clock,
            priority=gift.priority,
            expires_ms=gift.expires_ms,
            created_by=actor.label,
            note=gift.note,
        )

    return _given(session, organisation, "credit.grant", key, give, actor, clock)


def book_correction(
    session: Session,
    organisation: str,
    amount_nano: int,
    *,
    against: Against,
    key: str,
    note: str,
    actor: Actor,
    clock: Clock,
) -> None:
    """Credit that is given back (above 0) or taken away (below 0). Raises PlatformError: VALIDATION, CONFLICT."""
    before_nano = lock_account(session, organisation).posted_nano
    correct(
        session, organisation, amount_nano, against=against, key=key, clock=clock, created_by=actor.label, note=note
    )
    after_nano = lock_account(session, organisation).posted_nano
    if before_nano != after_nano:
        after = {"posted_nano": after_nano, "key": key, "amount_nano": amount_nano, "against": against, "note": note}
        _record(session, organisation, "credit.correct", actor, clock, {"posted_nano": before_nano}, after)


def change_credit_limit(session: Session, organisation: str, limit_nano: int, *, actor: Actor, clock: Clock) -> None:
    """How far the balance may go below zero. Raises PlatformError (CONFLICT) if more is used or held already."""
    before_nano = lock_account(session, organisation).limit_nano
    if not set_limit(session, organisation, limit_nano):
        raise PlatformError(CONFLICT, "More than that is used or held beyond the balance already.", param="amount")
    if before_nano != limit_nano:
        before, after = {"limit_nano": before_nano}, {"limit_nano": limit_nano}
        _record(session, organisation, "credit.set_limit", actor, clock, before, after)


def _given(
    session: Session,
    organisation: str,
    action: str,
    key: str,
    give: Callable[[], Grant],
    actor: Actor,
    clock: Clock,
) -> Grant:
    lock_account(session, organisation)
    known = session.scalars(select(Grant.id).where(Grant.organisation == organisation, Grant.key == key)).first()
    made = give()
    if known is None:
        facts = {"grant": made.id, "key": key, "amount_nano": made.amount_nano, "expires_ms": made.expires_ms}
        after = {**facts, "priority": made.priority, "note": made.note}
        _record(session, organisation, action, actor, clock, None, after)
    return made


def _record(
    session: Session,
    organisation: str,
    action: str,
    actor: Actor,
    clock: Clock,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any],
) -> None:
    target = Target("credit_account", organisation)
    now_ms = clock.now_ms()
    record(session, actor, action, target, organisation=organisation, now_ms=now_ms, before=before, after=after)
