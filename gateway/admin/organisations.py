"""/v1/admin/organisations, the operator's, and /v1/admin/customer, which is billed."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from sqlalchemy.orm import Session

from billing.customers import CustomerChange, customer_of
from core.clock import Clock
from gateway.accounts.customers import change_customer
from gateway.accounts.generations import Generation
from gateway.accounts.opening import open_account
from gateway.accounts.organisations import (
    change_plan,
    create_organisation,
    list_organisations,
    rename_organisation,
    resume_organisation,
    set_organisation_lenient,
    suspend_organisation,
)
from gateway.admin.desk import ERRORS, Acting, AdminDesk, Changed
from gateway.admin.places import organisation_by_id
from gateway.schemas.admin.fields import PAGE_DEFAULT, IdInPath, Limit, Offset, Page
from gateway.schemas.admin.organisations import (
    CustomerShown,
    CustomerUpdate,
    OrganisationCreation,
    OrganisationShown,
    OrganisationUpdate,
    shown,
    shown_customer,
)
from gateway.schemas.openapi import body_of
from gateway.services import Services

ORGANISATION_BODIES = (OrganisationCreation, OrganisationUpdate, CustomerUpdate)


def organisations_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/admin/organisations", tags=["admin: organisations"], responses=ERRORS)
    desk, clock = AdminDesk(services), services.clock

    @router.get("", operation_id="admin_list_organisations", dependencies=[Depends(desk.enter_operator)])
    async def list_all(limit: Limit = PAGE_DEFAULT, offset: Offset = 0) -> Page[OrganisationShown]:
        """Oldest first."""

        def run(session: Session) -> Page[OrganisationShown]:
            return Page(data=[shown(found) for found in list_organisations(session, offset=offset, count=limit)])

        return await desk.read(run)

    @router.post(
        "", operation_id="admin_create_organisation", status_code=201, openapi_extra=body_of(OrganisationCreation)
    )
    async def create(request: Request, acting: Annotated[Acting, Depends(desk.enter_operator)]) -> OrganisationShown:
        """With its default workspace, its customer and its plan's first credit. Names are unique."""
        asked = await desk.body(request, OrganisationCreation)

        return await desk.change(lambda session: _create(session, acting, asked, services))

    @router.get(
        "/{organisation_id}", operation_id="admin_get_organisation", dependencies=[Depends(desk.enter_operator)]
    )
    async def get(organisation_id: IdInPath) -> OrganisationShown:
        return await desk.read(lambda session: shown(organisation_by_id(session, organisation_id)))

    @router.patch(
        "/{organisation_id}", operation_id="admin_change_organisation", openapi_extra=body_of(OrganisationUpdate)
    )
    async def change(
        request: Request, acting: Annotated[Acting, Depends(desk.enter_operator)], organisation_id: IdInPath
    ) -> OrganisationShown:
        """Limits, weight and prices of another plan count at once; credit that the plan before gave stays."""
        asked = await desk.body(request, OrganisationUpdate)
        return await desk.change(lambda session: _change(session, acting, organisation_id, asked, clock))

    @router.post("/{organisation_id}/suspend", operation_id="admin_suspend_organisation")
    async def suspend(
        acting: Annotated[Acting, Depends(desk.enter_operator)], organisation_id: IdInPath
    ) -> OrganisationShown:
        """None of its keys is valid until it is resumed; open streams end."""

        def run(session: Session) -> Changed[OrganisationShown]:
            done = suspend_organisation(session, organisation_id, actor=acting.actor, clock=clock)
            return shown(organisation_by_id(session, done.id)), done.publish

        return await desk.change(run)

    @router.post("/{organisation_id}/resume", operation_id="admin_resume_organisation")
    async def resume(
        acting: Annotated[Acting, Depends(desk.enter_operator)], organisation_id: IdInPath
    ) -> OrganisationShown:
        def run(session: Session) -> Changed[OrganisationShown]:
            done = resume_organisation(session, organisation_id, actor=acting.actor, clock=clock)
            return shown(organisation_by_id(session, done.id)), done.publish

        return await desk.change(run)

    return router


def customer_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/admin/customer", tags=["admin: customer"], responses=ERRORS)
    desk = AdminDesk(services)

    @router.get("", operation_id="admin_get_customer")
    async def get(acting: Annotated[Acting, Depends(desk.enter)]) -> CustomerShown:
        return await desk.read(lambda session: shown_customer(customer_of(session, acting.organisation(session))))

    @router.patch("", operation_id="admin_change_customer", openapi_extra=body_of(CustomerUpdate))
    async def change(request: Request, acting: Annotated[Acting, Depends(desk.enter)]) -> CustomerShown:
        asked = await desk.body(request, CustomerUpdate)
        return await desk.change(lambda session: _change_customer(session, acting, asked, services.clock))

    return router


def _create(
    session: Session, acting: Acting, asked: OrganisationCreation, services: Services
) -> Changed[OrganisationShown]:
    by, clock, ids = acting.actor, services.clock, services.ids
    done = create_organisation(
        session, asked.name, actor=by, clock=clock, ids=ids, plan=asked.plan, lenient=asked.lenient
    )
    open_account(session, done.id, services.catalog.currency, clock, time_zone=asked.time_zone)
    return shown(organisation_by_id(session, done.id)), done.publish


def _change(
    session: Session, acting: Acting, organisation_id: str, asked: OrganisationUpdate, clock: Clock
) -> Changed[OrganisationShown]:
    by = acting.actor
    publish: tuple[Generation, ...] = ()
    if asked.name is not None:
        publish = rename_organisation(session, organisation_id, asked.name, actor=by, clock=clock).publish
    if asked.lenient is not None:
        publish = set_organisation_lenient(session, organisation_id, asked.lenient, actor=by, clock=clock).publish
    if asked.plan is not None:
        publish = change_plan(session, organisation_id, asked.plan, actor=by, clock=clock).publish
    return shown(organisation_by_id(session, organisation_id)), publish


def _change_customer(session: Session, acting: Acting, asked: CustomerUpdate, clock: Clock) -> Changed[CustomerShown]:
    home = acting.organisation(session)
    change = CustomerChange(name=asked.name, address=asked.address, email=asked.email, time_zone=asked.time_zone)
    done = change_customer(session, home, change, actor=acting.actor, clock=clock)
    return shown_customer(customer_of(session, home)), done.publish
