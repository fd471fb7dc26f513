"""/v1/admin/workspaces."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from sqlalchemy.orm import Session

from core.clock import Clock
from gateway.accounts.generations import Generation
from gateway.accounts.workspaces import (
    archive_workspace,
    create_workspace,
    list_workspaces,
    rename_workspace,
    set_workspace_lenient,
)
from gateway.admin.desk import ERRORS, Acting, AdminDesk, Changed
from gateway.admin.places import workspace_by_id
from gateway.schemas.admin.fields import PAGE_DEFAULT, IdInPath, Limit, Offset, Page
from gateway.schemas.admin.workspaces import WorkspaceCreation, WorkspaceShown, WorkspaceUpdate, shown
from gateway.schemas.openapi import body_of
from gateway.services import Services

WORKSPACE_BODIES = (WorkspaceCreation, WorkspaceUpdate)


def workspaces_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/admin/workspaces", tags=["admin: workspaces"], responses=ERRORS)
    desk, clock, ids = AdminDesk(services), services.clock, services.ids

    @router.get("", operation_id="admin_list_workspaces")
    async def list_all(
        acting: Annotated[Acting, Depends(desk.enter)], limit: Limit = PAGE_DEFAULT, offset: Offset = 0
    ) -> Page[WorkspaceShown]:
        """Oldest first, archived ones too."""

        def run(session: Session) -> Page[WorkspaceShown]:
            found = list_workspaces(session, within=acting.within(session), offset=offset, count=limit)
            return Page(data=[shown(workspace) for workspace in found])

        return await desk.read(run)

    @router.post("", operation_id="admin_create_workspace", status_code=201, openapi_extra=body_of(WorkspaceCreation))
    async def create(request: Request, acting: Annotated[Acting, Depends(desk.enter)]) -> WorkspaceShown:
        """Names are unique in an organisation, those of archived workspaces too."""
        asked = await desk.body(request, WorkspaceCreation)

        def run(session: Session) -> Changed[WorkspaceShown]:
            home = acting.organisation(session)
            made = create_workspace(
                session, home, asked.name, actor=acting.actor, clock=clock, ids=ids, lenient=asked.lenient
            )
            return shown(made), ()

        return await desk.change(run)

    @router.get("/{workspace_id}", operation_id="admin_get_workspace")
    async def get(acting: Annotated[Acting, Depends(desk.enter)], workspace_id: IdInPath) -> WorkspaceShown:
        return await desk.read(lambda session: shown(workspace_by_id(session, workspace_id, acting.within(session))))

    @router.patch("/{workspace_id}", operation_id="admin_change_workspace", openapi_extra=body_of(WorkspaceUpdate))
    async def change(
        request: Request, acting: Annotated[Acting, Depends(desk.enter)], workspace_id: IdInPath
    ) -> WorkspaceShown:
        asked = await desk.body(request, WorkspaceUpdate)

        return await desk.change(lambda session: _change(session, acting, workspace_id, asked, clock))

    @router.delete("/{workspace_id}", operation_id="admin_archive_workspace", status_code=204)
    async def archive(acting: Annotated[Acting, Depends(desk.enter)], workspace_id: IdInPath) -> None:
        """For good: none of its keys is valid any more; its name stays taken, its usage stays. Not the default one."""

        def run(session: Session) -> Changed[None]:
            found = workspace_by_id(session, workspace_id, acting.within(session))
            home = found.organisation_id
            done = archive_workspace(session, found.id, within=home, actor=acting.actor, clock=clock)
            return None, done.publish

        await desk.change(run)

    return router


def _change(
    session: Session, acting: Acting, workspace_id: str, asked: WorkspaceUpdate, clock: Clock
) -> Changed[WorkspaceShown]:
    found = workspace_by_id(session, workspace_id, acting.within(session))
    home = found.organisation_id
    publish: tuple[Generation, ...] = ()
    if asked.name is not None:
        done = rename_workspace(session, found.id, asked.name, within=home, actor=acting.actor, clock=clock)
        publish = done.publish
    if "lenient" in asked.model_fields_set:
        done = set_workspace_lenient(session, found.id, asked.lenient, within=home, actor=acting.actor, clock=clock)
        publish = done.publish
    return shown(found), publish
