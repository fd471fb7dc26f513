"""/v1/admin/credit: how an organisation's account stands; what an operator puts in."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.accounts import lock_account, set_limit
from billing.grants import KEY_LENGTH_MAX, Grant, Statement, grant, statement, top_up
from billing.money import parse_amount
from core.clock import Clock
from core.errors import CONFLICT, PlatformError
from core.meter.credit import Level
from gateway.accounts.trail import Target, record
from gateway.admin.desk import ERRORS, Acting, AdminDesk, Changed
from gateway.desk import QUEUE_AWAY
from gateway.schemas.admin.credit import (
    Credit,
    CreditLimitUpdate,
    GrantCreation,
    GrantShown,
    TopUp,
    shown_credit,
    shown_grant,
)
from gateway.schemas.admin.fields import ID_PATTERN, to_ms
from gateway.schemas.openapi import body_of
from gateway.services import Services

CREDIT_BODIES = (TopUp, GrantCreation, CreditLimitUpdate)
IDEMPOTENCY = "The same key again is the same grant; with another amount it is refused with 409."

IdempotencyKey = Annotated[
    str, Header(min_length=1, max_length=KEY_LENGTH_MAX, pattern=ID_PATTERN, description=IDEMPOTENCY)
]


def credit_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/admin/credit", tags=["admin: credit"], responses=ERRORS)
    desk, clock = AdminDesk(services), services.clock

    async def shown(acting: Acting) -> Credit:
        def run(session: Session) -> tuple[str, Statement]:
            home = acting.organisation(session)
            return home, statement(session, home)

        home, found = await desk.read(run)
        return shown_credit(home, services.catalog.currency, found, await _level(services, home))

    @router.get("", operation_id="admin_get_credit")
    async def get(acting: Annotated[Acting, Depends(desk.enter)]) -> Credit:
        """The account in SQL, and what of it lies in the cell at this moment."""
        return await shown(acting)

    @router.post("/top-ups", operation_id="admin_top_up", status_code=201, openapi_extra=body_of(TopUp))
    async def create_top_up(
        request: Request,
        acting: Annotated[Acting, Depends(desk.enter_operator_for)],
        idempotency_key: IdempotencyKey,
    ) -> GrantShown:
        """Credit that was paid; it never expires. The operator's."""
        asked = await desk.body(request, TopUp)
        nano = parse_amount(asked.amount)

        def give(session: Session, home: str) -> Grant:
            by, note = acting.actor.label, asked.note
            return top_up(session, home, nano, key=idempotency_key, clock=clock, created_by=by, note=note)

        return await desk.change(lambda session: _given(session, acting, "credit.top_up", idempotency_key, give, clock))

    @router.post("/grants", operation_id="admin_grant", status_code=201, openapi_extra=body_of(GrantCreation))
    async def create_grant(
        request: Request,
        acting: Annotated[Acting, Depends(desk.enter_operator_for)],
        idempotency_key: IdempotencyKey,
    ) -> GrantShown:
        """Credit that is given. The operator's."""
        asked = await desk.body(request, GrantCreation)
        give = _giving(asked, idempotency_key, acting, clock)
        return await desk.change(lambda session: _given(session, acting, "credit.grant", idempotency_key, give, clock))

    @router.patch("/limit", operation_id="admin_set_credit_limit", openapi_extra=body_of(CreditLimitUpdate))
    async def change_limit(request: Request, acting: Annotated[Acting, Depends(desk.enter_operator_for)]) -> Credit:
        """The operator's. Refused with 409 if more than that is used or held already."""
        asked = await desk.body(request, CreditLimitUpdate)
        nano = parse_amount(asked.amount)

        def run(session: Session) -> Changed[None]:
            _set_limit(session, acting, nano, clock)
            return None, ()

        await desk.change(run)
        return await shown(acting)

    return router


async def _level(services: Services, organisation: str) -> Level | None:
    try:
        return await services.credit.level(organisation)
    except QUEUE_AWAY:
        return None


def _giving(asked: GrantCreation, key: str, acting: Acting, clock: Clock) -> Callable[[Session, str], Grant]:
    nano = parse_amount(asked.amount)
    expires_ms = None if asked.expires_at is None else to_ms(asked.expires_at)

    def give(session: Session, home: str) -> Grant:
        return grant(
            session,
            home,
            nano,
            key=key,
            clock=clock,
            priority=asked.priority,
            expires_ms=expires_ms,
            created_by=acting.actor.label,
            note=asked.note,
        )

    return give


def _given(
    session: Session,
    acting: Acting,
    action: str,
    key: str,
    give: Callable[[Session, str], Grant],
    clock: Clock,
) -> Changed[GrantShown]:
    """A repetition changes nothing, and leaves nothing in the audit log."""
    home = acting.organisation(session)
    lock_account(session, home)
    known = session.scalars(select(Grant.id).where(Grant.organisation == home, Grant.key == key)).first()
    made = give(session, home)
    if known is None:
        facts = {"grant": made.id, "key": key, "amount_nano": made.amount_nano, "expires_ms": made.expires_ms}
        after = {**facts, "priority": made.priority, "note": made.note}
        _record(session, acting, action, home, clock, None, after)
    return shown_grant(made), ()


def _set_limit(session: Session, acting: Acting, limit_nano: int, clock: Clock) -> None:
    home = acting.organisation(session)
    before_nano = lock_account(session, home).limit_nano
    if not set_limit(session, home, limit_nano):
        raise PlatformError(CONFLICT, "More than that is used or held beyond the balance already.", param="amount")
    if before_nano != limit_nano:
        before, after = {"limit_nano": before_nano}, {"limit_nano": limit_nano}
        _record(session, acting, "credit.set_limit", home, clock, before, after)


def _record(
    session: Session,
    acting: Acting,
    action: str,
    home: str,
    clock: Clock,
    before: dict[str, Any] | None,
    after: dict[str, Any],
) -> None:
    target = Target("credit_account", home)
    now_ms = clock.now_ms()
    record(session, acting.actor, action, target, organisation=home, now_ms=now_ms, before=before, after=after)
