"""Members: people and service accounts with their roles, invitations, and what roles may do."""

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from core.errors import UNAVAILABLE, PlatformError
from gateway.accounts.invitations import invite, list_invitations, withdraw_invitation
from gateway.accounts.labels import workspace_names
from gateway.accounts.letters import deliver
from gateway.accounts.links import Link
from gateway.accounts.mail import MailError
from gateway.accounts.members import create_service_account, list_members
from gateway.accounts.people import PERSON
from gateway.accounts.roles import Permission
from gateway.accounts.workspaces import list_workspaces
from gateway.console.desk import Changed, Console
from gateway.console.entrance import NoFields
from gateway.console.listing import answer_table
from gateway.console.member_forms import (
    ROLE_COLUMNS,
    ROLES,
    InviteForm,
    ServiceForm,
    ability_rows,
    roles_to_give,
)
from gateway.console.pages import html
from gateway.console.table import Asked, Column, Row, make_table
from gateway.console.visitor import Place

MEMBERS_SHOWN_MAX = 2_000
WORKSPACES_MAX = 1_000
COLUMNS = (
    Column("name", "Name", "cell", lambda row: row["name"]),
    Column("email", "E-mail"),
    Column("role", "Role", "cell"),
    Column("workspaces", "In workspaces", "cell", lambda row: row["workspaces"]),
    Column("last_login_ms", "Last log-in", "time"),
    Column("state", "State", "cell"),
)
INVITATION_COLUMNS = (
    Column("email", "E-mail"),
    Column("role", "Role"),
    Column("workspace", "To", value=lambda row: row["workspace"] or "the organisation"),
    Column("created_ms", "Invited", "time"),
    Column("expires_ms", "Works until", "time"),
    Column("actions", "", "cell", lambda _: "", sortable=False),
)


def members_router(console: Console) -> APIRouter:
    router = console.router()
    _add_invitations(router, console)
    _add_roles(router, console)
    services = console.services

    @router.get("/o/{organisation}/members")
    async def show(request: Request, organisation: str, asked: Asked) -> Response:
        place = await console.enter(request, organisation, Permission.MEMBERS_READ)
        rows = await console.read(lambda session: _members(session, place))
        table = make_table("members", f"{place.path}/members", COLUMNS, rows, asked)
        context = {
            "roles": roles_to_give(place),
            "service_roles": roles_to_give(place, service=True),
            "homes": await console.read(lambda session: _homes(session, place)),
            "mail": services.mailer is not None,
            "full": len(rows) >= MEMBERS_SHOWN_MAX,
        }
        return await answer_table(console, request, "pages/members.html", table, place, context=context)

    @router.post("/o/{organisation}/members/service-accounts")
    async def create_service(request: Request, organisation: str) -> Response:
        place = await console.enter(request, organisation)
        place.visitor.access.require(Permission.MEMBERS_MANAGE, place.id)
        asked = await console.form(request, place.visitor, ServiceForm)

        def run(session: Session) -> Changed[str]:
            visitor = place.visitor
            done = create_service_account(
                session,
                place.id,
                asked.name,
                asked.role,
                access=visitor.access,
                actor=visitor.actor,
                clock=services.clock,
                ids=services.ids,
            )
            return done.id, done.publish

        await console.change(run)
        return console.done(request, f"{place.path}/members", f"The service account {asked.name} is there.")

    return router


def _add_invitations(router: APIRouter, console: Console) -> None:
    services = console.services

    @router.get("/o/{organisation}/members/invitations")
    async def show_invitations(request: Request, organisation: str, asked: Asked) -> Response:
        place = await console.enter(request, organisation, Permission.MEMBERS_MANAGE)
        rows = await console.read(lambda session: _invitations(session, place))
        table = make_table("invitations", f"{place.path}/members/invitations", INVITATION_COLUMNS, rows, asked)
        context = {
            "roles": roles_to_give(place),
            "homes": await console.read(lambda session: _homes(session, place)),
            "mail": services.mailer is not None,
        }
        return await answer_table(console, request, "pages/members_invitations.html", table, place, context=context)

    def _invitations(session: Session, place: Place) -> list[Row]:
        names = workspace_names(session, place.id)
        return [
            {
                "id": each.id,
                "email": each.email,
                "role": each.role.value,
                "workspace": "" if each.workspace is None else names.get(each.workspace, each.workspace),
                "created_ms": each.created_ms,
                "expires_ms": each.expires_ms,
            }
            for each in list_invitations(session, place.id, access=place.visitor.access, clock=services.clock)
        ]

    @router.post("/o/{organisation}/members/invitations")
    async def create(request: Request, organisation: str) -> Response:
        place = await console.enter(request, organisation, Permission.MEMBERS_MANAGE)
        asked = await console.form(request, place.visitor, InviteForm)

        def run(session: Session) -> Changed[Link]:
            made = invite(
                session,
                asked.email,
                place.id,
                asked.role,
                access=place.visitor.access,
                actor=place.visitor.actor,
                clock=services.clock,
                ids=services.ids,
                workspace=asked.workspace or None,
            )
            return made, ()

        link = await console.change(run)
        return await answer_link(console, request, place, link, "invite-form", f"{place.path}/members/invitations")

    @router.post("/o/{organisation}/members/invitations/{invitation}/withdraw")
    async def withdraw(request: Request, organisation: str, invitation: str) -> Response:
        place = await console.enter(request, organisation, Permission.MEMBERS_MANAGE)
        await console.form(request, place.visitor, NoFields)

        def run(session: Session) -> Changed[None]:
            visitor = place.visitor
            withdraw_invitation(
                session, invitation, place.id, access=visitor.access, actor=visitor.actor, clock=services.clock
            )
            return None, ()

        await console.change(run)
        return console.done(request, f"{place.path}/members/invitations", "The invitation is withdrawn.")


def _add_roles(router: APIRouter, console: Console) -> None:
    @router.get("/o/{organisation}/members/roles")
    async def show_roles(request: Request, organisation: str, asked: Asked) -> Response:
        place = await console.enter(request, organisation, Permission.MEMBERS_READ)
        table = make_table("roles", f"{place.path}/members/roles", ROLE_COLUMNS, ability_rows(), asked)
        context = {"roles": {role.value: text for role, text in ROLES.items()}}
        return await answer_table(console, request, "pages/members_roles.html", table, place, context=context)


async def answer_link(console: Console, request: Request, place: Place, link: Link, form: str, path: str) -> Response:
    """Mail the link, or show it this once: in place of the form with this id, or without scripts on a page."""
    services = console.services
    try:
        url = await console.in_thread(lambda: deliver(link, services.mailer, console.public_url(request)))
    except MailError as error:
        message = "The link stands, but its mail was not accepted: try once more."
        raise PlatformError(UNAVAILABLE, message, retry_after_s=1) from error
    if url is None:
        return console.done(request, path, f"A letter is on its way to {link.email}.")
    context = {"url": url.get_secret_value(), "link": link, "path": path}
    if "hx-request" not in request.headers:
        return await console.page(request, "pages/member_link.html", context, place=place)
    text = await console.fragment(request, "parts/member_link.html", context, place)
    return html(text, headers={"hx-retarget": f"#{form}", "hx-reswap": "outerHTML"})


def _members(session: Session, place: Place) -> list[Row]:
    names = workspace_names(session, place.id)
    found = list_members(session, place.id, access=place.visitor.access, count=MEMBERS_SHOWN_MAX)
    return [
        {
            "id": each.user,
            "name": each.name,
            "email": each.email,
            "service": each.kind != PERSON,
            "mine": each.user == place.visitor.signed_in.user,
            "role": None if each.role is None else each.role.value,
            "workspaces": sorted(
                f"{names.get(home, home)}: {role.value}" for home, role in each.workspace_roles.items()
            ),
            "last_login_ms": each.last_login_ms,
            "state": "active" if each.disabled_ms is None else "disabled",
        }
        for each in found
    ]


def _homes(session: Session, place: Place) -> list[tuple[str, str]]:
    """To what the visitor may invite: value and label."""
    everything = [("", f"all of {place.name}")] if place.may(Permission.MEMBERS_MANAGE) else []
    workspaces = [
        (each.id, f"only the workspace {each.name}")
        for each in list_workspaces(session, within=place.id, count=WORKSPACES_MAX)
        if each.archived_ms is None and place.may(Permission.MEMBERS_MANAGE, each.id)
    ]
    return everything + workspaces if place.somewhere(Permission.MEMBERS_MANAGE) else []
