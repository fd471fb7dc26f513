"""All organisations, for operators: found, made, opened, changed."""

from dataclasses import asdict
from typing import Annotated, Any
from zoneinfo import available_timezones

from fastapi import APIRouter, Query, Request
from pydantic import Field
from sqlalchemy.orm import Session
from starlette.responses import RedirectResponse, Response

from billing.calendar import DEFAULT_ZONE
from billing.customers import ZONE_LENGTH_MAX
from gateway.accounts.directory import SORTS, Directory, DirectoryQuery, directory
from gateway.accounts.invitations import invite
from gateway.accounts.links import Link
from gateway.accounts.models import NAME_LENGTH_MAX
from gateway.accounts.opening import open_account
from gateway.accounts.organisations import DEFAULT_PLAN, create_organisation
from gateway.accounts.people import EMAIL_LENGTH_MAX
from gateway.accounts.plans import list_plans
from gateway.accounts.roles import Role
from gateway.console.desk import HOME, Changed, Console
from gateway.console.entrance import Fields
from gateway.console.listing import csv_file
from gateway.console.members import answer_link
from gateway.console.table import PAGE_ROWS, Column, Row, Table, TableAsked, csv_of
from gateway.console.visitor import Visitor, place_of

PATH = f"{HOME}/operator/organisations"
CSV_ROWS_MAX = 10_000
COLUMNS = (
    Column("name", "Name", "cell"),
    Column("plan", "Plan"),
    Column("balance_nano", "Balance", "money"),
    Column("spent_nano", "Spent this month", "money"),
    Column("requests", "Requests today", "number"),
    Column("members", "Members", "number"),
    Column("created_ms", "Created", "cell"),
)
EXPORTED = (Column("id", "Id"), Column("status", "Status"), *COLUMNS, Column("limit_nano", "Credit limit", "money"))


class OrganisationsAsked(TableAsked):
    plan: str = Field(default="", max_length=NAME_LENGTH_MAX)
    status: str = Field(default="", max_length=16)

    def kept(self) -> dict[str, str]:
        return {name: value for name, value in (("plan", self.plan), ("status", self.status)) if value}


class CreationForm(Fields):
    """`owner`: who is invited as the first one."""

    name: str = Field(max_length=NAME_LENGTH_MAX)
    plan: str = Field(default=DEFAULT_PLAN, max_length=NAME_LENGTH_MAX)
    time_zone: str = Field(default=DEFAULT_ZONE, max_length=ZONE_LENGTH_MAX)
    owner: str = Field(default="", max_length=EMAIL_LENGTH_MAX)


def organisations_router(console: Console) -> APIRouter:
    router = console.router()
    services = console.services
    currency = services.catalog.currency

    @router.get("/operator")
    async def begin(request: Request) -> Response:
        await console.operator(request)
        return RedirectResponse(PATH, status_code=303)

    @router.get("/operator/organisations")
    async def show(request: Request, asked: Annotated[OrganisationsAsked, Query()]) -> Response:
        visitor = await console.operator(request)
        now_ms = services.clock.now_ms()
        found = await console.read(lambda session: directory(session, _query(asked), now_ms))
        if asked.format == "csv":
            text = await console.in_thread(lambda: csv_of(EXPORTED, _rows(found)))
            return csv_file(text, "organisations")
        plans = await console.read(lambda session: [plan.name for plan in list_plans(session)])
        context = {
            "table": _table(found, asked),
            "asked": asked,
            "plans": plans,
            "default_plan": DEFAULT_PLAN if DEFAULT_PLAN in plans else (plans or [""])[0],
            "zones": time_zones(),
            "money_unit": currency,
            "mail": services.mailer is not None,
        }
        return await console.page(request, "pages/organisations.html", context, visitor=visitor)

    @router.post("/operator/organisations")
    async def create(request: Request) -> Response:
        visitor = await console.operator(request)
        asked = await console.form(request, visitor, CreationForm)
        made, link = await console.change(lambda session: _create(session, console, visitor, asked))
        path = f"{PATH}/{made}"
        if link is None:
            return console.done(request, path, f"The organisation {asked.name} is there.")
        place = await console.read(lambda session: place_of(session, visitor, made))
        return await answer_link(console, request, place, link, "create-form", path)

    return router


def time_zones() -> list[tuple[str, str]]:
    """For a choice: value and label."""
    return [(zone, zone.replace("_", " ")) for zone in sorted(available_timezones() - {"localtime", "Factory"})]


def _query(asked: OrganisationsAsked) -> DirectoryQuery:
    sort = asked.sort.removeprefix("-")
    everything = asked.format == "csv"
    return DirectoryQuery(
        text=asked.q.strip(),
        plan=asked.plan,
        status=asked.status,
        sort=sort if sort in SORTS else "name",
        falling=asked.sort.startswith("-"),
        offset=0 if everything else (asked.page - 1) * PAGE_ROWS,
        count=CSV_ROWS_MAX if everything else PAGE_ROWS,
    )


def _table(found: Directory, asked: OrganisationsAsked) -> Table:
    pages = max(1, -(-found.matching // PAGE_ROWS))
    rows = _rows(found)
    return Table("organisations", PATH, COLUMNS, rows, asked, found.total, found.matching, pages, asked.kept())


def _rows(found: Directory) -> list[Row]:
    return [asdict(each) for each in found.rows]


def _create(
    session: Session, console: Console, visitor: Visitor, asked: CreationForm
) -> Changed[tuple[str, Link | None]]:
    services = console.services
    by: dict[str, Any] = {"actor": visitor.actor, "clock": services.clock, "ids": services.ids}
    done = create_organisation(session, asked.name, plan=asked.plan, **by)
    open_account(session, done.id, services.catalog.currency, services.clock, time_zone=asked.time_zone)
    link = None
    if asked.owner:
        link = invite(session, asked.owner, done.id, Role.OWNER, access=visitor.access, **by)
    return (done.id, link), done.publish
