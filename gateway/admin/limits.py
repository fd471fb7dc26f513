"""/v1/admin/limits, and Mistral's /v1/admin/rate-limit and /v1/admin/spend-limit over the same table."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy.orm import Session

from billing.money import parse_amount
from gateway.accounts.generations import Generation
from gateway.accounts.limits import LimitTerms, Subject, SubjectKind, list_limits, remove_limit, set_limit
from gateway.accounts.models import Limit
from gateway.admin.ceilings import MONTHLY, own_monthly, rate_limits, spend_limit
from gateway.admin.desk import ERRORS, Acting, AdminDesk, Changed
from gateway.schemas.admin.fields import IdInPath, NameInQuery, Page
from gateway.schemas.admin.limits import (
    LimitCreation,
    LimitShown,
    RateLimits,
    SpendLimit,
    SpendLimitUpdate,
    shown,
)
from gateway.schemas.openapi import body_of
from gateway.services import Services

LIMIT_BODIES = (LimitCreation, SpendLimitUpdate)
OF_ORGANISATION = frozenset({SubjectKind.ORGANISATION, SubjectKind.CUSTOMER})


def limits_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/admin/limits", tags=["admin: limits"], responses=ERRORS)
    desk = AdminDesk(services)
    tiers = [tier.name for tier in services.catalog.tiers]

    @router.get("", operation_id="admin_list_limits")
    async def list_all(
        acting: Annotated[Acting, Depends(desk.enter)],
        subject_kind: Annotated[SubjectKind, Query()] = SubjectKind.CUSTOMER,
        subject_id: NameInQuery = None,
    ) -> Page[LimitShown]:
        """Those set for exactly this subject, at most 64; GET /v1/limits tells what applies to a key in the end."""

        def run(session: Session) -> Page[LimitShown]:
            subject = _subject(session, acting, subject_kind, subject_id)
            found = list_limits(session, subject, within=acting.within(session))
            return Page(data=[shown(limit) for limit in found])

        return await desk.read(run)

    @router.put("", operation_id="admin_set_limit", openapi_extra=body_of(LimitCreation))
    async def put(request: Request, acting: Annotated[Acting, Depends(desk.enter)]) -> LimitShown:
        """In force on every gateway within a second."""
        asked = await desk.body(request, LimitCreation)

        def run(session: Session) -> Changed[LimitShown]:
            done = set_limit(
                session,
                _subject(session, acting, asked.subject_kind, asked.subject_id),
                asked.terms(),
                within=acting.rights,
                known_tiers=tiers,
                actor=acting.actor,
                clock=services.clock,
                ids=services.ids,
            )
            return shown(session.get_one(Limit, done.id)), done.publish

        return await desk.change(run)

    @router.delete("/{limit_id}", operation_id="admin_remove_limit", status_code=204)
    async def remove(acting: Annotated[Acting, Depends(desk.enter)], limit_id: IdInPath) -> None:
        def run(session: Session) -> Changed[None]:
            done = remove_limit(session, limit_id, within=acting.rights, actor=acting.actor, clock=services.clock)
            return None, done.publish

        await desk.change(run)

    return router


def ceilings_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/admin", tags=["admin: limits"], responses=ERRORS)
    desk = AdminDesk(services)
    currency = services.catalog.currency
    tiers = [tier.name for tier in services.catalog.tiers]

    @router.get("/rate-limit", operation_id="admin_get_rate_limit")
    async def get_rate_limit(acting: Annotated[Acting, Depends(desk.enter)]) -> RateLimits:
        """What bounds the organisation: its plan's limits, or its own in their place."""
        return await desk.read(lambda session: rate_limits(session, acting.organisation(session), tiers))

    @router.get("/spend-limit", operation_id="admin_get_spend_limit")
    async def get_spend_limit(acting: Annotated[Acting, Depends(desk.enter)]) -> SpendLimit:
        """Of the current month, in the organisation's time zone."""
        now_ms = services.clock.now_ms()
        return await desk.read(lambda session: spend_limit(session, acting.organisation(session), currency, now_ms))

    @router.post("/spend-limit", operation_id="admin_set_spend_limit", openapi_extra=body_of(SpendLimitUpdate))
    async def set_spend_limit(request: Request, acting: Annotated[Acting, Depends(desk.enter)]) -> SpendLimit:
        """A request that would pass it is refused with 402; it never loosens what the operator set."""
        asked = await desk.body(request, SpendLimitUpdate)
        amount_nano = None if asked.amount is None else parse_amount(str(asked.amount))

        def run(session: Session) -> Changed[SpendLimit]:
            home = acting.organisation(session)
            publish = _set_monthly(session, acting, home, amount_nano, services)
            return spend_limit(session, home, currency, services.clock.now_ms()), publish

        return await desk.change(run)

    return router


def _subject(session: Session, acting: Acting, kind: SubjectKind, subject_id: str | None) -> Subject:
    """An organisation is the subject that is meant where none is named."""
    if subject_id is None and kind in OF_ORGANISATION:
        subject_id = acting.organisation(session)
    return Subject(kind, subject_id or "")


def _set_monthly(
    session: Session, acting: Acting, home: str, amount_nano: int | None, services: Services
) -> tuple[Generation, ...]:
    """None: without a limit of its own."""
    actor, clock, ids = acting.actor, services.clock, services.ids
    if amount_nano is not None:
        subject, terms = Subject(SubjectKind.CUSTOMER, home), LimitTerms(MONTHLY, amount_nano)
        done = set_limit(session, subject, terms, within=home, known_tiers=(), actor=actor, clock=clock, ids=ids)
        return done.publish
    kept = own_monthly(session, home)
    return () if kept is None else remove_limit(session, kept.id, within=home, actor=actor, clock=clock).publish
