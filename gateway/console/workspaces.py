"""Workspaces: what an organisation divides its keys, limits and usage by."""

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.responses import Response

from gateway.accounts.models import NAME_LENGTH_MAX, ApiKey, Workspace
from gateway.accounts.roles import Permission
from gateway.accounts.workspaces import (
    archive_workspace,
    create_workspace,
    list_workspaces,
    rename_workspace,
    set_workspace_lenient,
)
from gateway.console.desk import Changed, Console
from gateway.console.entrance import Fields, NoFields
from gateway.console.listing import answer_table
from gateway.console.table import Asked, Column, Row, make_table
from gateway.console.visitor import Place

SHOWN_MAX = 1_000
MODES = {None: "as the organisation", True: "lenient", False: "strict"}
COLUMNS = (
    Column("name", "Name", "cell", lambda row: row["name"]),
    Column("mode", "Requests are read", value=lambda row: MODES[row["lenient"]]),
    Column("keys", "Keys", "number"),
    Column("created_ms", "Created", "time"),
    Column("actions", "", "cell", lambda _: "", sortable=False),
)


class WorkspaceForm(Fields):
    name: str = Field(max_length=NAME_LENGTH_MAX)
    lenient: bool | None = None


def workspaces_router(console: Console) -> APIRouter:
    router, work = console.router(), _Workspaces(console)

    @router.get("/o/{organisation}/workspaces")
    async def show(request: Request, organisation: str, asked: Asked) -> Response:
        place = await console.enter(request, organisation, Permission.WORKSPACES_READ)
        rows = await console.read(lambda session: work.rows(session, place))
        table = make_table("workspaces", f"{place.path}/workspaces", COLUMNS, rows, asked)
        return await answer_table(console, request, "pages/workspaces.html", table, place)

    @router.post("/o/{organisation}/workspaces")
    async def create(request: Request, organisation: str) -> Response:
        place = await console.enter(request, organisation)
        place.visitor.access.require(Permission.WORKSPACES_CREATE, place.id)
        asked = await console.form(request, place.visitor, WorkspaceForm)
        await console.change(lambda session: work.create(session, place, asked))
        return console.done(request, f"{place.path}/workspaces", f"The workspace {asked.name} is there.")

    @router.post("/o/{organisation}/workspaces/{workspace}")
    async def change(request: Request, organisation: str, workspace: str) -> Response:
        place = await console.enter(request, organisation)
        place.visitor.access.require(Permission.WORKSPACES_MANAGE, place.id, workspace)
        asked = await console.form(request, place.visitor, WorkspaceForm)
        await console.change(lambda session: work.change(session, place, workspace, asked))
        return console.done(request, f"{place.path}/workspaces", "Saved.")

    @router.post("/o/{organisation}/workspaces/{workspace}/archive")
    async def archive(request: Request, organisation: str, workspace: str) -> Response:
        place = await console.enter(request, organisation)
        place.visitor.access.require(Permission.WORKSPACES_MANAGE, place.id, workspace)
        await console.form(request, place.visitor, NoFields)
        await console.change(lambda session: work.archive(session, place, workspace))
        return console.done(request, f"{place.path}/workspaces", "The workspace is archived; its keys are invalid.")

    return router


class _Workspaces:
    """What the routes do in SQL."""

    def __init__(self, console: Console) -> None:
        self._clock = console.services.clock
        self._ids = console.services.ids

    def rows(self, session: Session, place: Place) -> list[Row]:
        """Without the archived ones; those that the visitor sees."""
        shown = place.workspaces(Permission.WORKSPACES_READ)
        found = [
            each
            for each in list_workspaces(session, within=place.id, count=SHOWN_MAX)
            if each.archived_ms is None and (shown is None or each.id in shown)
        ]
        counts = _valid_keys(session, [each.id for each in found])
        return [
            {
                "id": each.id,
                "name": each.name,
                "is_default": each.is_default,
                "lenient": each.lenient,
                "keys": counts.get(each.id, 0),
                "created_ms": each.created_ms,
                "manages": place.may(Permission.WORKSPACES_MANAGE, each.id),
            }
            for each in found
        ]

    def create(self, session: Session, place: Place, asked: WorkspaceForm) -> Changed[Workspace]:
        made = create_workspace(
            session,
            place.id,
            asked.name,
            actor=place.visitor.actor,
            clock=self._clock,
            ids=self._ids,
            lenient=asked.lenient,
        )
        return made, ()

    def change(self, session: Session, place: Place, workspace: str, asked: WorkspaceForm) -> Changed[None]:
        who: dict[str, Any] = {"within": place.id, "actor": place.visitor.actor, "clock": self._clock}
        renamed = rename_workspace(session, workspace, asked.name, **who)
        read = set_workspace_lenient(session, workspace, asked.lenient, **who)
        return None, (*renamed.publish, *read.publish)

    def archive(self, session: Session, place: Place, workspace: str) -> Changed[None]:
        done = archive_workspace(session, workspace, within=place.id, actor=place.visitor.actor, clock=self._clock)
        return None, done.publish


def _valid_keys(session: Session, workspaces: Iterable[str]) -> dict[str, int]:
    query = (
        select(ApiKey.workspace_id, func.count())
        .where(ApiKey.workspace_id.in_(workspaces), ApiKey.revoked_ms.is_(None))
        .group_by(ApiKey.workspace_id)
    )
    return {row.workspace_id: row[1] for row in session.execute(query)}
