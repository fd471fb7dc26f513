"""Refused requests of the last day: by which rule, with which figures, and when to come back."""

from collections.abc import Sequence

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from core.errors import UNAVAILABLE, PlatformError
from core.meter.refusals import READ_MAX, RefusalEvent
from gateway.accounts.labels import key_names, workspace_names
from gateway.accounts.roles import Permission
from gateway.console.desk import Console
from gateway.console.figures import newest_refusals, seen_by
from gateway.console.listing import answer_table
from gateway.console.table import Asked, Column, Row, make_table
from gateway.console.visitor import Place
from gateway.desk import QUEUE_AWAY

COLUMNS = (
    Column("at_ms", "Time", "cell"),
    Column("tier", "Tier"),
    Column("rule", "Rule", "cell"),
    Column("scope", "Scope"),
    Column("limit", "Limit", "amount"),
    Column("remaining", "Remaining", "amount"),
    Column("retry_after_s", "Retry after", "number", unit="s"),
    Column("status", "Status", "number"),
    Column("code", "Code"),
    Column("workspace", "Workspace"),
    Column("key", "Key"),
    Column("request_id", "Request", "cell"),
)


def refused_router(console: Console) -> APIRouter:
    router = console.router()

    @router.get("/o/{organisation}/requests/refused")
    async def show(request: Request, organisation: str, asked: Asked) -> Response:
        place = await console.enter(request, organisation, Permission.USAGE_READ)
        try:
            events = await newest_refusals(console.services.refusals, seen_by(place), READ_MAX)
        except QUEUE_AWAY as error:
            raise PlatformError(UNAVAILABLE, "Redis does not answer at the moment.", retry_after_s=2) from error
        rows = await console.read(lambda session: _rows(session, place, events))
        table = make_table("refused", f"{place.path}/requests/refused", COLUMNS, rows, asked)
        context = {"left_out": sum(event.left_out for event in events), "most": READ_MAX}
        return await answer_table(console, request, "pages/refused.html", table, place, context=context)

    return router


def _rows(session: Session, place: Place, events: Sequence[RefusalEvent]) -> list[Row]:
    """Two queries."""
    workspaces = workspace_names(session, place.id)
    keys = {event.key_id for event in events if place.may(Permission.KEYS_READ, event.workspace)}
    names = key_names(session, place.id, keys) if keys else {}
    return [
        {
            "event": event,
            "at_ms": event.at_ms,
            "request_id": event.request_id,
            "tier": event.tier,
            "rule": event.rule,
            "scope": event.scope,
            "limit": event.limit if event.rule else None,
            "remaining": event.remaining if event.rule else None,
            "retry_after_s": event.retry_after_s,
            "status": event.status,
            "code": event.code,
            "workspace": workspaces.get(event.workspace, event.workspace),
            "key": names.get(event.key_id, event.key_id),
        }
        for event in events
    ]
