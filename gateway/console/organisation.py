"""One organisation, for operators: how it stands, and whatever only they may change of it."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field
from sqlalchemy.orm import Session
from starlette.responses import Response

from billing.customers import Customer, customer_of
from billing.money import show_amount
from gateway.accounts.directory import DirectoryQuery, directory
from gateway.accounts.models import ACTIVE, NAME_LENGTH_MAX
from gateway.accounts.organisations import (
    change_plan,
    rename_organisation,
    resume_organisation,
    suspend_organisation,
)
from gateway.accounts.plans import list_plans
from gateway.console.billing import ONCE_BYTES
from gateway.console.desk import Changed, Console
from gateway.console.entrance import Fields, NoFields
from gateway.console.organisations import PATH
from gateway.console.visitor import Place


class RenameForm(Fields):
    name: str = Field(max_length=NAME_LENGTH_MAX)


class PlanForm(Fields):
    plan: str = Field(max_length=NAME_LENGTH_MAX)


def organisation_router(console: Console) -> APIRouter:
    router, services = console.router(), console.services
    _add_changes(router, console)

    @router.get("/operator/organisations/{organisation}")
    async def show(request: Request, organisation: str) -> Response:
        place = await _enter(console, request, organisation)

        def run(session: Session) -> dict[str, Any]:
            found = directory(session, DirectoryQuery(only=place.id, count=1), services.clock.now_ms()).rows[0]
            customer: Customer = customer_of(session, place.id)
            return {
                "found": found,
                "customer": customer,
                "limit_text": show_amount(found.limit_nano),
                "plans": [(plan.name, plan.name) for plan in list_plans(session)],
                "active": place.status == ACTIVE,
                "once": services.ids.token(ONCE_BYTES),
                "path": f"{PATH}/{place.id}",
            }

        context = await console.read(run)
        return await console.page(request, "pages/organisation.html", context, place=place)

    return router


def _add_changes(router: APIRouter, console: Console) -> None:
    clock = console.services.clock

    @router.post("/operator/organisations/{organisation}/name")
    async def rename(request: Request, organisation: str) -> Response:
        place = await _enter(console, request, organisation)
        asked = await console.form(request, place.visitor, RenameForm)

        def run(session: Session) -> Changed[None]:
            return None, rename_organisation(
                session, place.id, asked.name, actor=place.visitor.actor, clock=clock
            ).publish

        await console.change(run)
        return console.done(request, f"{PATH}/{place.id}", f"It is called {asked.name} now.")

    @router.post("/operator/organisations/{organisation}/plan")
    async def put_plan(request: Request, organisation: str) -> Response:
        place = await _enter(console, request, organisation)
        asked = await console.form(request, place.visitor, PlanForm)

        def run(session: Session) -> Changed[None]:
            return None, change_plan(session, place.id, asked.plan, actor=place.visitor.actor, clock=clock).publish

        await console.change(run)
        told = f"{place.name} is on the plan {asked.plan}. Its limits, weight and prices count at once."
        return console.done(request, f"{PATH}/{place.id}", told)

    @router.post("/operator/organisations/{organisation}/suspend")
    async def suspend(request: Request, organisation: str) -> Response:
        place = await _enter(console, request, organisation)
        await console.form(request, place.visitor, NoFields)

        def run(session: Session) -> Changed[None]:
            return None, suspend_organisation(session, place.id, actor=place.visitor.actor, clock=clock).publish

        await console.change(run)
        return console.done(request, f"{PATH}/{place.id}", f"{place.name} is suspended: nothing of it is admitted.")

    @router.post("/operator/organisations/{organisation}/resume")
    async def resume(request: Request, organisation: str) -> Response:
        place = await _enter(console, request, organisation)
        await console.form(request, place.visitor, NoFields)

        def run(session: Session) -> Changed[None]:
            return None, resume_organisation(session, place.id, actor=place.visitor.actor, clock=clock).publish

        await console.change(run)
        return console.done(request, f"{PATH}/{place.id}", f"{place.name} goes on: its keys work again.")


async def _enter(console: Console, request: Request, organisation: str) -> Place:
    """Of an operator; for anybody else there is no such page."""
    await console.operator(request)
    return await console.enter(request, organisation)
