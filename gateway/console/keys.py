"""API keys: the list, and a new one, whose secret is shown once."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from core.errors import NOT_ALLOWED, VALIDATION, PlatformError
from gateway.accounts.api_keys import NewKey, create_key, list_keys
from gateway.accounts.generations import Generation
from gateway.accounts.limits import Subject, SubjectKind
from gateway.accounts.memberships import KeyOwner
from gateway.accounts.models import Workspace
from gateway.accounts.roles import Permission
from gateway.admin.places import refuse_second_name, workspace_by_id
from gateway.console.desk import Changed, Console
from gateway.console.formats import day
from gateway.console.key_forms import (
    MINE,
    NOBODY,
    SCOPE_HINTS,
    KeyCreation,
    is_member,
    require_scopes,
    scopes_to_give,
)
from gateway.console.key_rows import COLUMNS, FILE_COLUMNS, key_row, owners_of, workspaces_of
from gateway.console.limit_forms import put_limit
from gateway.console.listing import answer_table
from gateway.console.pages import html
from gateway.console.table import Asked, Row, make_table
from gateway.console.visitor import Place
from gateway.services import Services

KEYS_SHOWN_MAX = 2_000
DAY_MS = int(timedelta(days=1).total_seconds()) * 1_000


@dataclass(frozen=True, slots=True)
class _Read:
    """What the page shows. `homes`: the workspaces in which the visitor may make keys."""

    rows: list[Row]
    homes: list[Workspace]
    services: list[KeyOwner]


def keys_router(console: Console) -> APIRouter:
    router, services = console.router(), console.services
    tiers = [tier.name for tier in services.catalog.tiers]

    @router.get("/o/{organisation}/keys")
    async def show(
        request: Request, organisation: str, asked: Asked, revoked: Annotated[bool, Query()] = False
    ) -> Response:
        place = await console.enter(request, organisation, Permission.KEYS_READ)
        now_ms = services.clock.now_ms()
        found = await console.read(lambda session: _read(session, place, revoked, now_ms))
        columns = FILE_COLUMNS if asked.format == "csv" else COLUMNS
        kept = {"revoked": "true"} if revoked else {}
        table = make_table("keys", f"{place.path}/keys", columns, found.rows, asked, kept)
        context = {
            "homes": found.homes,
            "services": found.services,
            "scopes": [(scope, scope, SCOPE_HINTS[scope]) for scope in scopes_to_give(place)],
            "tiers": [(tier, tier, "") for tier in tiers],
            "revoked": revoked,
            "all_path": f"{place.path}/keys?revoked=true",
            "full": len(found.rows) >= KEYS_SHOWN_MAX,
            "tomorrow": day(now_ms + DAY_MS, place.zone),
            "member": is_member(place),
        }
        return await answer_table(console, request, "pages/keys.html", table, place, context=context)

    @router.post("/o/{organisation}/keys")
    async def create(request: Request, organisation: str) -> Response:
        place = await console.enter(request, organisation, Permission.KEYS_CREATE)
        asked = await console.form(request, place.visitor, KeyCreation)
        made = await console.change(lambda session: _create(session, place, asked, services))
        return await answer_secret(console, request, place, made, asked.scopes, "create-form", "Your new key")

    return router


async def answer_secret(
    console: Console, request: Request, place: Place, made: NewKey, scopes: tuple[str, ...], form: str, title: str
) -> Response:
    """The only answer that ever holds it: in place of the form with this id, or without scripts a page."""
    context = {
        "secret": made.key.get_secret_value(),
        "made": made,
        "scopes": scopes,
        "title": title,
        "base_url": console.public_url(request),
        "tier": next((tier.name for tier in console.services.catalog.tiers if tier.kind == "chat"), ""),
    }
    if "hx-request" not in request.headers:
        return await console.page(request, "pages/key_secret.html", context, place=place)
    text = await console.fragment(request, "parts/key_secret.html", context, place)
    return html(text, headers={"hx-retarget": f"#{form}", "hx-reswap": "outerHTML", "hx-trigger": "keys-changed"})


def _read(session: Session, place: Place, revoked: bool, now_ms: int) -> _Read:
    keys = list_keys(
        session,
        within=place.id,
        workspaces=place.workspaces(Permission.KEYS_READ),
        revoked=revoked,
        youngest_first=True,
        count=KEYS_SHOWN_MAX,
    )
    workspaces, owners = workspaces_of(session, place), owners_of(session, place, keys)
    archived = {each.id for each in workspaces if each.archived_ms is not None}
    homes = [each for each in workspaces if each.archived_ms is None and place.may(Permission.KEYS_CREATE, each.id)]
    rows = [key_row(key, place, owners, archived, now_ms) for key in keys]
    services = [owner for owner in owners.values() if owner.is_service]
    return _Read(rows, homes, services if place.somewhere(Permission.KEYS_MANAGE) else [])


def _create(session: Session, place: Place, asked: KeyCreation, services: Services) -> Changed[NewKey]:
    """With its own limits, in one unit of work; whoever makes a key may bound it."""
    workspace = workspace_by_id(session, asked.workspace, place.id, lock=True)
    place.visitor.access.require(Permission.KEYS_CREATE, place.id, workspace.id)
    require_scopes(place, asked.scopes)
    refuse_second_name(session, workspace.id, asked.name, services.clock.now_ms())
    made = create_key(
        session,
        workspace.id,
        asked.terms(place.zone),
        within=None if place.visitor.access.operator else place.id,
        actor=place.visitor.actor,
        peppers=services.peppers,
        clock=services.clock,
        ids=services.ids,
        known_tiers=[tier.name for tier in services.catalog.tiers],
        owner=_owner(session, place, workspace.id, asked.owner),
    )
    published: Iterable[Generation] = made.publish
    for terms in asked.limits():
        _, published = put_limit(session, place, Subject(SubjectKind.KEY, made.id), terms, services)
    return made, published


def _owner(session: Session, place: Place, workspace: str, asked: str) -> str | None:
    """Oneself; nobody or a service account for those who manage everybody's keys. An operator who only looks in owns
    nothing here. Raises PlatformError.
    """
    if asked == MINE:
        return place.visitor.signed_in.user if is_member(place) else None
    if not place.may(Permission.KEYS_MANAGE, workspace):
        raise PlatformError(NOT_ALLOWED, "You can make keys of your own.", param="owner")
    if asked == NOBODY:
        return None
    found = owners_of(session, place, ()).get(asked)
    if found is None:
        raise PlatformError(VALIDATION, "There is no such service account.", param="owner")
    return found.id
