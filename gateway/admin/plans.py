"""/v1/admin/plans and /v1/admin/prices: the operator's."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from sqlalchemy.orm import Session

from billing.prices import price_versions
from gateway.accounts.plans import find_plan, list_plans, put_plan
from gateway.accounts.pricing import change_prices
from gateway.admin.desk import ERRORS, Acting, AdminDesk, Changed
from gateway.schemas.admin.fields import PAGE_DEFAULT, IdInQuery, Limit, Offset, Page
from gateway.schemas.admin.plans import (
    PlanShown,
    PlanUpdate,
    PriceChanges,
    PriceListCreation,
    PriceShown,
    shown_change,
    shown_plan,
    shown_price,
)
from gateway.schemas.openapi import body_of
from gateway.services import Services

PLAN_BODIES = (PlanUpdate, PriceListCreation)


def plans_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/admin/plans", tags=["admin: plans"], responses=ERRORS)
    desk = AdminDesk(services)
    tiers = [tier.name for tier in services.catalog.tiers]

    @router.get("", operation_id="admin_list_plans", dependencies=[Depends(desk.enter_operator)])
    async def list_all(limit: Limit = PAGE_DEFAULT, offset: Offset = 0) -> Page[PlanShown]:
        def run(session: Session) -> Page[PlanShown]:
            return Page(data=[shown_plan(plan) for plan in list_plans(session, offset=offset, count=limit)])

        return await desk.read(run)

    @router.put("", operation_id="admin_put_plan", openapi_extra=body_of(PlanUpdate))
    async def put(request: Request, acting: Annotated[Acting, Depends(desk.enter_operator)]) -> PlanShown:
        """Limits and weight count at once for every organisation on it."""
        asked = await desk.body(request, PlanUpdate)

        def run(session: Session) -> Changed[PlanShown]:
            done = put_plan(
                session,
                asked.terms(),
                known_tiers=tiers,
                actor=acting.actor,
                clock=services.clock,
                ids=services.ids,
            )
            return shown_plan(find_plan(session, done.id)), done.publish

        return await desk.change(run)

    return router


def prices_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/admin/prices", tags=["admin: prices"], responses=ERRORS)
    desk = AdminDesk(services)
    tiers = [tier.name for tier in services.catalog.tiers]

    @router.get("", operation_id="admin_list_prices", dependencies=[Depends(desk.enter_operator)])
    async def list_all(limit: Limit = PAGE_DEFAULT, offset: Offset = 0, tier: IdInQuery = None) -> Page[PriceShown]:
        """All versions, past and coming ones too, by tier, plan, organisation and start."""

        def run(session: Session) -> Page[PriceShown]:
            found = price_versions(session, None if tier is None else [tier])
            return Page(data=[shown_price(version) for version in found[offset : offset + limit]])

        return await desk.read(run)

    @router.post("", operation_id="admin_create_prices", status_code=201, openapi_extra=body_of(PriceListCreation))
    async def create(request: Request, acting: Annotated[Acting, Depends(desk.enter_operator)]) -> PriceChanges:
        """A request pays what was in force when it was admitted. A start that lies behind is refused."""
        asked = await desk.body(request, PriceListCreation)

        def run(session: Session) -> Changed[PriceChanges]:
            changes, raised = change_prices(
                session, asked.to_file(), tiers=tiers, actor=acting.actor, clock=services.clock
            )
            return PriceChanges(changes=[shown_change(change) for change in changes]), raised

        return await desk.change(run)

    return router
