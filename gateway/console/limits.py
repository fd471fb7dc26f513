"""Limits: every rule that holds, how far it is used, where it comes from; set and removed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from core.db import DatabaseUnavailableError
from core.errors import NOT_FOUND, PlatformError
from core.meter.refusals import KEPT_MS, READ_MAX, RefusalEvent
from core.queue.rules import Rule, RuleState
from gateway.accounts.api_keys import KeyRow, find_key, list_keys
from gateway.accounts.limits import SubjectKind, limits_of, remove_limit
from gateway.accounts.models import Limit, Workspace
from gateway.accounts.roles import Permission
from gateway.accounts.rules import RuleIds
from gateway.console.desk import Changed, Console
from gateway.console.entrance import own_page
from gateway.console.key_rows import workspaces_of
from gateway.console.limit_forms import TITLES, LimitEnding, LimitForm, limited_subject, may_limit, put_limit
from gateway.console.limit_rows import (
    COLUMNS,
    FILE_COLUMNS,
    SOURCES,
    Applied,
    applied_rules,
    limit_row,
    refused_by,
    seen_events,
    subjects_of,
)
from gateway.console.listing import answer_table
from gateway.console.table import Asked, make_table
from gateway.console.visitor import Place
from gateway.desk import QUEUE_AWAY
from gateway.limit_states import rule_states
from gateway.services import Services

KEYS_SHOWN_MAX = 500
POLL_ID = "limits-poll"  # the element that asks for the table again every few seconds

Named = Annotated[str, Query(max_length=64)]


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Whose limits are shown. None: of the organisation as a whole."""

    workspace: Workspace | None
    key: KeyRow | None
    workspaces: list[Workspace]
    keys: list[KeyRow]
    applied: list[Applied]


def limits_router(console: Console) -> APIRouter:
    router, services = console.router(), console.services
    _add_changes(router, console)

    @router.get("/o/{organisation}/limits")
    async def show(
        request: Request, organisation: str, asked: Asked, workspace: Named = "", key: Named = ""
    ) -> Response:
        place = await console.enter(request, organisation, Permission.LIMITS_READ)
        now_ms = services.clock.now_ms()
        chosen = await console.read(lambda session: _chosen(session, place, workspace, key, now_ms))
        rules = [each.rule for each in chosen.applied]
        states = await _states(services, place, rules, now_ms, again=request.headers.get("hx-trigger") == POLL_ID)
        refused, cut = await _refused(services, place, rules, now_ms)
        home = None if chosen.workspace is None else chosen.workspace.id

        def may_remove(limit: Limit) -> bool:
            return may_limit(place, SubjectKind(limit.subject_kind), home)

        known: Sequence[RuleState | None] = [None] * len(rules) if states is None else states
        rows = [
            limit_row(applied, state, refused[applied.rule], may_remove, now_ms)
            for applied, state in zip(chosen.applied, known, strict=True)
        ]
        kept = {name: value for name, value in (("workspace", workspace), ("key", key)) if value}
        columns = FILE_COLUMNS if asked.format == "csv" else COLUMNS
        table = make_table("limits", f"{place.path}/limits", columns, rows, asked, kept)
        context = {
            "chosen": chosen,
            "away": states is None,
            "refused_cut": cut,
            "subjects": _subjects(place, chosen),
            "titles": {kind.value: title for kind, title in TITLES.items()},
            "tiers": [(tier.name, tier.name, "") for tier in services.catalog.tiers],
            "sources": SOURCES,
            "poll": POLL_ID,
        }
        return await answer_table(console, request, "pages/limits.html", table, place, context=context)

    return router


def _add_changes(router: APIRouter, console: Console) -> None:
    services = console.services

    @router.post("/o/{organisation}/limits")
    async def put(request: Request, organisation: str) -> Response:
        place = await console.enter(request, organisation, Permission.LIMITS_MANAGE)
        asked = await console.form(request, place.visitor, LimitForm)

        def run(session: Session) -> Changed[str]:
            subject = limited_subject(session, place, asked.subject_kind, asked.subject_id)
            return put_limit(session, place, subject, asked.terms(), services)

        await console.change(run)
        return console.done(request, _back(place, asked.back), "The limit is set. It holds within a second.")

    @router.post("/o/{organisation}/limits/{limit_id}/remove")
    async def remove(request: Request, organisation: str, limit_id: str) -> Response:
        place = await console.enter(request, organisation, Permission.LIMITS_MANAGE)
        asked = await console.form(request, place.visitor, LimitEnding)
        await console.change(lambda session: _remove(session, place, limit_id, services))
        return console.done(request, _back(place, asked.back), "The limit is removed.")


def _back(place: Place, path: str) -> str:
    return own_page(path) if path else f"{place.path}/limits"


def _remove(session: Session, place: Place, limit_id: str, services: Services) -> Changed[None]:
    limit = session.get(Limit, limit_id)
    kind = None if limit is None else SubjectKind(limit.subject_kind)
    of_organisation = kind in {SubjectKind.ORGANISATION, SubjectKind.CUSTOMER}
    if limit is None or kind in {None, SubjectKind.PLAN} or (of_organisation and limit.subject_id != place.id):
        raise PlatformError(NOT_FOUND, "There is no such limit here.")
    kind = SubjectKind(limit.subject_kind)
    limited_subject(session, place, kind, limit.subject_id)
    within = None if kind is SubjectKind.ORGANISATION else place.id
    done = remove_limit(session, limit_id, within=within, actor=place.visitor.actor, clock=services.clock)
    return None, done.publish


def _chosen(session: Session, place: Place, workspace_id: str, key_id: str, now_ms: int) -> _Chosen:
    """A key brings its workspace. Who may see limits only in workspaces begins with the first of them."""
    seen = place.workspaces(Permission.LIMITS_READ)
    shown = [
        each for each in workspaces_of(session, place) if each.archived_ms is None and (seen is None or each.id in seen)
    ]
    if key_id:
        workspace_id = find_key(session, key_id, within=place.id).workspace_id
    elif not workspace_id and seen is not None and shown:
        workspace_id = shown[0].id
    workspace = next((each for each in shown if each.id == workspace_id), None)
    if workspace is None and (workspace_id or seen is not None):
        raise PlatformError(NOT_FOUND, "There is no such workspace, or it is not for you.")
    keys = []
    if workspace is not None and place.may(Permission.KEYS_READ, workspace.id):
        home = {workspace.id}
        keys = list_keys(session, within=place.id, workspaces=home, revoked=False, count=KEYS_SHOWN_MAX)
    key = next((each for each in keys if each.id == key_id), None)
    if key is None and key_id:
        raise PlatformError(NOT_FOUND, "There is no such key, or it is not for you.")
    ids = RuleIds(place.id, "" if workspace is None else workspace.id, "" if key is None else key.id)
    limits = limits_of(session, subjects_of(place.id, place.plan, ids.workspace, ids.key))
    return _Chosen(workspace, key, shown, keys, applied_rules(limits, ids, place.zone, now_ms))


async def _states(
    services: Services, place: Place, rules: Sequence[Rule], now_ms: int, *, again: bool
) -> Sequence[RuleState] | None:
    """None: Redis is away. `again`: the page was opened before, and what SQL knows is counted since then."""
    try:
        if again:
            return await services.counters.states(rules)
        return await rule_states(services.counters, services.database, place.id, rules, now_ms)
    except (DatabaseUnavailableError, *QUEUE_AWAY) as error:
        services.log.warning("limits without their states", error=type(error).__name__)
        return None


async def _refused(
    services: Services, place: Place, rules: Sequence[Rule], now_ms: int
) -> tuple[dict[Rule, int], bool]:
    """Of the last day, and whether there were more than could be read."""
    events: Sequence[RefusalEvent] = ()
    try:
        events = await services.refusals.read(place.id, now_ms - KEPT_MS, READ_MAX)
    except QUEUE_AWAY as error:
        services.log.warning("limits without refusals", error=type(error).__name__)
    seen = seen_events(events, place.workspaces(Permission.LIMITS_READ))
    return refused_by(rules, seen), len(events) >= READ_MAX


def _subjects(place: Place, chosen: _Chosen) -> list[tuple[str, str]]:
    """Whose limits this visitor may set here, as "subject id" pairs of a choice."""
    workspace, key = chosen.workspace, chosen.key
    home = None if workspace is None else workspace.id
    found = []
    if key is not None and may_limit(place, SubjectKind.KEY, home):
        found.append((f"key {key.id}", f"the key {key.name}"))
    if workspace is not None and may_limit(place, SubjectKind.WORKSPACE, home):
        found.append((f"workspace {workspace.id}", f"the workspace {workspace.name}"))
    if may_limit(place, SubjectKind.CUSTOMER, None):
        found.append(("customer", "the organisation: a cap of its own, which only tightens"))
    if may_limit(place, SubjectKind.ORGANISATION, None):
        found.append(("organisation", "the organisation: in place of its plan (operators)"))
    return found
