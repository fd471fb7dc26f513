"""The audit log: who did what, to what, from where; of one organisation, and for operators of all."""

import json
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session
from starlette.responses import Response

from gateway.accounts.models import AuditEntry
from gateway.accounts.organisations import find_organisation
from gateway.accounts.people import EMAIL_LENGTH_MAX
from gateway.accounts.roles import Permission
from gateway.accounts.titles import target_names
from gateway.accounts.trail import PAGE_MAX, AuditFilter, Target, audit_actions, list_audit
from gateway.accounts.users import user_by_email
from gateway.console.changes import differences
from gateway.console.desk import HOME, Console
from gateway.console.feed import CSV_ROWS_MAX, FEED_ROWS, Feed, day_start_ms
from gateway.console.listing import csv_file
from gateway.console.table import Column, Row, csv_of

UTC = "UTC"
ID_SHOWN = 8
INSIDE = ("workspace", "user", "organisation")  # of which an entry tells the id
ORGANISATION = Column("organisation", "Organisation", "cell")
COLUMNS = (
    Column("at_ms", "When", "cell"),
    Column("actor", "Who, from where", "cell"),
    Column("action", "What", "cell"),
    Column("target", "On", "cell"),
    Column("changes", "Changes", "cell"),
)
EXPORTED = tuple(
    Column(name, name)
    for name in (
        "id",
        "at_ms",
        "actor_kind",
        "actor_id",
        "actor_name",
        "organisation",
        "action",
        "target_kind",
        "target_id",
        "before",
        "after",
        "address",
        "request_id",
    )
)


class AuditAsked(BaseModel):
    """The filters. `actor` and `target`: an id or an e-mail address; days are those of the page's time zone."""

    actor: str = Field(default="", max_length=EMAIL_LENGTH_MAX)
    action: str = Field(default="", max_length=64)
    target: str = Field(default="", max_length=EMAIL_LENGTH_MAX)
    since: str = Field(default="", max_length=10)
    until: str = Field(default="", max_length=10)
    organisation: str = Field(default="", max_length=128)
    before: int | None = Field(default=None, ge=1, le=2**53)
    format: str = Field(default="html", pattern="^(html|csv)$")

    def kept(self) -> dict[str, str]:
        parts = self.model_dump(exclude={"before", "format"})
        return {name: value for name, value in parts.items() if value}


Asked = Annotated[AuditAsked, Query()]


def audit_router(console: Console) -> APIRouter:
    router = console.router()

    @router.get("/o/{organisation}/audit")
    async def of_organisation(request: Request, organisation: str, asked: Asked) -> Response:
        place = await console.enter(request, organisation)
        place.visitor.access.require(Permission.AUDIT_READ, place.id)
        mine = asked.model_copy(update={"organisation": ""})
        if asked.format == "csv":
            text = await console.read(lambda session: _csv(session, mine, place.id, place.zone))
            return csv_file(text, "audit")
        path = f"{place.path}/audit"
        context = await console.read(lambda session: _page(session, mine, place.id, place.zone, path))
        return await console.page(request, "pages/audit.html", context, place=place)

    @router.get("/operator/audit")
    async def of_all(request: Request, asked: Asked) -> Response:
        visitor = await console.operator(request)

        def within(session: Session) -> str | None:
            return find_organisation(session, asked.organisation).id if asked.organisation else None

        if asked.format == "csv":
            text = await console.read(lambda session: _csv(session, asked, within(session), UTC))
            return csv_file(text, "audit")
        path = f"{HOME}/operator/audit"
        context = await console.read(lambda session: _page(session, asked, within(session), UTC, path, everywhere=True))
        return await console.page(request, "pages/audit.html", context, visitor=visitor)

    return router


def _page(
    session: Session, asked: AuditAsked, within: str | None, zone: str, path: str, *, everywhere: bool = False
) -> dict[str, Any]:
    wanted = _filter(session, asked, zone)
    entries = list_audit(session, within=within, before_id=asked.before, count=FEED_ROWS + 1, wanted=wanted)
    shown = entries[:FEED_ROWS]
    columns = (*COLUMNS[:1], ORGANISATION, *COLUMNS[1:]) if everywhere else COLUMNS
    feed = Feed(
        id="audit",
        path=path,
        columns=columns,
        rows=_rows(session, shown, zone),
        older=str(shown[-1].id) if len(entries) > FEED_ROWS else "",
        newest=asked.before is None,
        kept=asked.kept(),
    )
    return {
        "feed": feed,
        "asked": asked,
        "actions": audit_actions(session, within=within),
        "everywhere": everywhere,
        "csv_rows_max": CSV_ROWS_MAX,
    }


def _csv(session: Session, asked: AuditAsked, within: str | None, zone: str) -> str:
    wanted = _filter(session, asked, zone)
    rows: list[Row] = []
    last: int | None = None
    while len(rows) < CSV_ROWS_MAX:
        entries = list_audit(session, within=within, before_id=last, count=PAGE_MAX, wanted=wanted)
        rows += [_exported(entry) for entry in entries]
        session.expunge_all()
        if len(entries) < PAGE_MAX:
            break
        last = entries[-1].id
    return csv_of(EXPORTED, rows)


def _filter(session: Session, asked: AuditAsked, zone: str) -> AuditFilter:
    return AuditFilter(
        actors=_ids(session, asked.actor),
        action=asked.action.strip() or None,
        targets=_ids(session, asked.target),
        from_ms=day_start_ms(asked.since, zone, "since"),
        until_ms=day_start_ms(asked.until, zone, "until", days_later=1),
    )


def _ids(session: Session, text: str) -> tuple[str, ...] | None:
    """What was typed, and the user's id if it is an e-mail address."""
    said = text.strip()
    if not said:
        return None
    user = user_by_email(session, said) if "@" in said else None
    return (said,) if user is None else (said, user.id)


def _rows(session: Session, entries: Iterable[AuditEntry], zone: str) -> list[Row]:
    found = list(entries)
    targets = {Target(entry.target_kind, entry.target_id) for entry in found}
    homes = {Target("organisation", entry.organisation) for entry in found if entry.organisation}
    inside = {
        Target(kind, side[kind])
        for entry in found
        for side in (entry.before or {}, entry.after or {})
        for kind in INSIDE
        if isinstance(side.get(kind), str)
    }
    names = target_names(session, targets | homes | inside)
    by_id = {target.id: name for target, name in names.items()}
    return [
        {
            "id": entry.id,
            "at_ms": entry.at_ms,
            "actor_kind": entry.actor_kind,
            "actor_id": entry.actor_id,
            "actor": entry.actor_name or entry.actor_id,
            "action": entry.action,
            "target_kind": entry.target_kind.replace("_", " "),
            "target_id": entry.target_id,
            "target": names.get(Target(entry.target_kind, entry.target_id)) or _short(entry.target_id),
            "organisation": entry.organisation,
            "organisation_name": names.get(Target("organisation", entry.organisation), entry.organisation),
            "changes": differences(entry.before, entry.after, zone, by_id),
            "address": entry.address,
            "request_id": entry.request_id,
        }
        for entry in found
    ]


def _short(target_id: str) -> str:
    """An id that has no name is told from others by its beginning."""
    return f"{target_id[:ID_SHOWN]}…" if len(target_id) > 2 * ID_SHOWN else target_id


def _exported(entry: AuditEntry) -> Row:
    out = {column.name: getattr(entry, column.name) for column in EXPORTED}
    for side in ("before", "after"):
        out[side] = "" if out[side] is None else json.dumps(out[side], sort_keys=True, ensure_ascii=False)
    return out
