"""One key: what it may do, its limits, its usage, what was done to it; changed, rotated, revoked."""

from dataclasses import dataclass

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from billing.calendar import days
from billing.usage import Period, UsageLine, UsageQuery, periods_of, report
from core.errors import NOT_FOUND, PlatformError
from gateway.accounts.api_keys import KeyRow, NewKey, change_key, revoke_key, rotate_key
from gateway.accounts.limits import Subject, SubjectKind, list_limits
from gateway.accounts.models import AuditEntry, Limit
from gateway.accounts.roles import Permission
from gateway.accounts.trail import AuditFilter, list_audit
from gateway.admin.places import key_by_id
from gateway.console.desk import Changed, Console
from gateway.console.entrance import NoFields
from gateway.console.formats import day
from gateway.console.key_forms import (
    SCOPE_HINTS,
    KeyForm,
    RotationForm,
    last_day,
    require_change,
    require_scopes,
    scopes_to_give,
)
from gateway.console.key_rows import key_row, owners_of, workspaces_of
from gateway.console.keys import DAY_MS, answer_secret
from gateway.console.limit_forms import TITLES, may_limit
from gateway.console.listing import answer_table
from gateway.console.table import Asked, Column, Row, make_table
from gateway.console.visitor import Place
from gateway.services import Services

USAGE_DAYS = 30
AUDIT_SHOWN = 10
OVERLAPS = (("0", "At once"), ("3600", "In an hour"), ("86400", "In a day"), ("604800", "In a week"))
COLUMNS = (
    Column("day", "Day", "cell", lambda row: row["day"]),
    Column("requests", "Requests", "number"),
    Column("failed", "Failed by us", "number"),
    Column("prompt_tokens", "Input tokens", "number"),
    Column("cached_tokens", "of them cached", "number"),
    Column("completion_tokens", "Output tokens", "number"),
    Column("cost_nano", "Cost", "money"),
)
SUMS = ("requests", "failed", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_nano")


@dataclass(frozen=True, slots=True)
class _Read:
    """None: not for this visitor."""

    key: KeyRow
    row: Row
    limits: list[Limit] | None = None
    days: list[Row] | None = None
    entries: list[AuditEntry] | None = None


def key_page_router(console: Console) -> APIRouter:
    router, services = console.router(), console.services
    _add_changes(router, console)

    @router.get("/o/{organisation}/keys/{key_id}")
    async def show(request: Request, organisation: str, key_id: str, asked: Asked) -> Response:
        place = await console.enter(request, organisation, Permission.KEYS_READ)
        now_ms = services.clock.now_ms()
        found = await console.read(lambda session: _read(session, place, key_id, now_ms))
        usage = found.days or []
        used = [row for row in reversed(usage) if row["requests"]]
        table = make_table("usage", f"{place.path}/keys/{key_id}", COLUMNS, used, asked)
        context = {
            "key": found.row,
            "limits": found.limits,
            "titles": {kind.value: title for kind, title in TITLES.items()},
            "limiting": may_limit(place, SubjectKind.KEY, found.key.workspace_id),
            "usage": found.days is not None and _summed(usage),
            "chart": _chart(usage),
            "entries": found.entries,
            "scopes": _scopes(place, found.key),
            "tiers": [(tier.name, tier.name, "") for tier in services.catalog.tiers],
            "tomorrow": day(now_ms + DAY_MS, place.zone),
            "last_day": last_day(found.key.expires_ms, place.zone) or "",
            "overlaps": OVERLAPS,
        }
        return await answer_table(console, request, "pages/key.html", table, place, context=context)

    return router


def _add_changes(router: APIRouter, console: Console) -> None:
    services = console.services

    @router.post("/o/{organisation}/keys/{key_id}")
    async def change(request: Request, organisation: str, key_id: str) -> Response:
        place = await console.enter(request, organisation, Permission.KEYS_CREATE)
        asked = await console.form(request, place.visitor, KeyForm)
        await console.change(lambda session: _change(session, place, key_id, asked, services))
        return console.done(request, f"{place.path}/keys/{key_id}", "Saved. It is in force within a second.")

    @router.post("/o/{organisation}/keys/{key_id}/rotate")
    async def rotate(request: Request, organisation: str, key_id: str) -> Response:
        place = await console.enter(request, organisation, Permission.KEYS_CREATE)
        asked = await console.form(request, place.visitor, RotationForm)
        made, scopes = await console.change(lambda session: _rotate(session, place, key_id, asked, services))
        return await answer_secret(console, request, place, made, scopes, "rotate-form", "The new secret")

    @router.post("/o/{organisation}/keys/{key_id}/revoke")
    async def revoke(request: Request, organisation: str, key_id: str) -> Response:
        place = await console.enter(request, organisation, Permission.KEYS_CREATE)
        await console.form(request, place.visitor, NoFields)
        await console.change(lambda session: _revoke(session, place, key_id, services))
        return console.done(request, f"{place.path}/keys/{key_id}", "The key is revoked.")


def _read(session: Session, place: Place, key_id: str, now_ms: int) -> _Read:
    key = _seen(session, place, key_id)
    archived = {each.id for each in workspaces_of(session, place) if each.archived_ms is not None}
    limits = days_ = entries = None
    if place.may(Permission.LIMITS_READ, key.workspace_id):
        limits = list_limits(session, Subject(SubjectKind.KEY, key.id), within=place.id)
    if place.may(Permission.USAGE_READ, key.workspace_id):
        days_ = _usage(session, place, key.id, now_ms)
    if place.may(Permission.AUDIT_READ):
        wanted = AuditFilter(targets=(key.id, *(each.id for each in limits or ())))
        entries = list_audit(session, within=place.id, count=AUDIT_SHOWN, wanted=wanted)
    row = key_row(key, place, owners_of(session, place, [key]), archived, now_ms)
    return _Read(key, row, limits, days_, entries)


def _seen(session: Session, place: Place, key_id: str) -> KeyRow:
    """Raises PlatformError (NOT_FOUND)."""
    key = key_by_id(session, key_id, place.id)
    if not place.may(Permission.KEYS_READ, key.workspace_id):
        raise PlatformError(NOT_FOUND, f"There is no key {key_id!r}.")
    return key


def _usage(session: Session, place: Place, key_id: str, now_ms: int) -> list[Row]:
    """The last 30 days, oldest first, also those without any."""
    first, *_, last = days(place.zone, now_ms - (USAGE_DAYS - 1) * DAY_MS, now_ms + 1)
    query = UsageQuery(place.id, first.start_ms, last.end_ms, key_id=key_id, period=Period.DAY, time_zone=place.zone)
    used = {line.start_ms: line for line in report(session, query, count=USAGE_DAYS + 1)}
    return [{"day": window.id, **_figures(used.get(window.start_ms))} for window in periods_of(query)]


def _figures(line: UsageLine | None) -> dict[str, int]:
    return {name: 0 if line is None else getattr(line, name) for name in SUMS}


def _summed(rows: list[Row]) -> dict[str, int]:
    return {name: sum(row[name] for row in rows) for name in SUMS}


def _chart(rows: list[Row]) -> dict[str, object]:
    """Tokens; the money stands in the table and the tiles."""
    series = [
        {"name": "Input", "data": [row["prompt_tokens"] for row in rows]},
        {"name": "Output", "data": [row["completion_tokens"] for row in rows]},
    ]
    return {"kind": "bar", "x": [row["day"][5:] for row in rows], "series": series, "unit": "tokens", "stack": True}


def _scopes(place: Place, key: KeyRow) -> list[tuple[str, str, str]]:
    """Those that one may give, and those that it has."""
    offered = scopes_to_give(place)
    return [(scope, scope, hint) for scope, hint in SCOPE_HINTS.items() if scope in offered or scope in key.scopes]


def _change(session: Session, place: Place, key_id: str, asked: KeyForm, services: Services) -> Changed[None]:
    key = _seen(session, place, key_id)
    require_change(place, key)
    require_scopes(place, tuple(scope for scope in asked.scopes if scope not in key.scopes))
    done = change_key(
        session,
        key.id,
        asked.terms(place.zone, key.expires_ms),
        within=None if place.visitor.access.operator else place.id,
        actor=place.visitor.actor,
        clock=services.clock,
        known_tiers=[tier.name for tier in services.catalog.tiers],
    )
    return None, done.publish


def _rotate(
    session: Session, place: Place, key_id: str, asked: RotationForm, services: Services
) -> Changed[tuple[NewKey, tuple[str, ...]]]:
    key = _seen(session, place, key_id)
    require_change(place, key)
    require_scopes(place, key.scopes)  # the new secret can do all that the key may
    made = rotate_key(
        session,
        key.id,
        asked.overlap_s,
        within=place.id,
        actor=place.visitor.actor,
        peppers=services.peppers,
        clock=services.clock,
        ids=services.ids,
    )
    return (made, key.scopes), made.publish


def _revoke(session: Session, place: Place, key_id: str, services: Services) -> Changed[None]:
    key = _seen(session, place, key_id)
    require_change(place, key)
    done = revoke_key(session, key.id, within=place.id, actor=place.visitor.actor, clock=services.clock)
    return None, done.publish
