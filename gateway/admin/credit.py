"""/v1/admin/credit: how an organisation's account stands; what an operator puts in."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from sqlalchemy.orm import Session

from billing.grants import KEY_LENGTH_MAX, Statement, statement
from billing.money import parse_amount
from core.meter.credit import Level
from gateway.accounts.credit import Gift, book_gift, book_top_up, change_credit_limit
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

        def run(session: Session) -> Changed[GrantShown]:
            home, by = acting.organisation(session), acting.actor
            made = book_top_up(session, home, nano, key=idempotency_key, note=asked.note, actor=by, clock=clock)
            return shown_grant(made), ()

        return await desk.change(run)

    @router.post("/grants", operation_id="admin_grant", status_code=201, openapi_extra=body_of(GrantCreation))
    async def create_grant(
        request: Request,
        acting: Annotated[Acting, Depends(desk.enter_operator_for)],
        idempotency_key: IdempotencyKey,
    ) -> GrantShown:
        """Credit that is given. The operator's."""
        asked = await desk.body(request, GrantCreation)
        gift = _gift(asked)

        def run(session: Session) -> Changed[GrantShown]:
            home, by = acting.organisation(session), acting.actor
            return shown_grant(book_gift(session, home, gift, key=idempotency_key, actor=by, clock=clock)), ()

        return await desk.change(run)

    @router.patch("/limit", operation_id="admin_set_credit_limit", openapi_extra=body_of(CreditLimitUpdate))
    async def change_limit(request: Request, acting: Annotated[Acting, Depends(desk.enter_operator_for)]) -> Credit:
        """The operator's. Refused with 409 if more than that is used or held already."""
        asked = await desk.body(request, CreditLimitUpdate)
        nano = parse_amount(asked.amount)

        def run(session: Session) -> Changed[None]:
            home = acting.organisation(session)
            change_credit_limit(session, home, nano, actor=acting.actor, clock=clock)
            return None, ()

        await desk.change(run)
        return await shown(acting)

    return router


async def _level(services: Services, organisation: str) -> Level | None:
    try:
        return await services.credit.level(organisation)
    except QUEUE_AWAY:
        return None


def _gift(asked: GrantCreation) -> Gift:
    expires_ms = None if asked.expires_at is None else to_ms(asked.expires_at)
    return Gift(parse_amount(asked.amount), asked.priority, expires_ms, asked.note)
