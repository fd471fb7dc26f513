"""/v1/admin/users and /v1/admin/invites. An organisation's admin key may what its role admin may."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy.orm import Session

from core.errors import UNAVAILABLE, PlatformError
from gateway.accounts.access import Access
from gateway.accounts.invitations import invite, list_invitations, withdraw_invitation
from gateway.accounts.letters import deliver
from gateway.accounts.links import Link
from gateway.accounts.mail import MailError
from gateway.accounts.members import (
    Departure,
    create_service_account,
    list_members,
    remove_member,
    remove_workspace_member,
    set_role,
    set_workspace_role,
)
from gateway.accounts.roles import Role
from gateway.accounts.workspaces import find_workspace
from gateway.admin.desk import ERRORS, Acting, AdminDesk, Changed
from gateway.schemas.admin.fields import PAGE_DEFAULT, IdInPath, Limit, Offset, Page
from gateway.schemas.admin.users import (
    DepartureShown,
    InviteCreated,
    InviteCreation,
    InviteShown,
    MemberShown,
    MemberUpdate,
    RoleShown,
    ServiceAccountCreation,
    ServiceAccountShown,
    WorkspaceRole,
    WorkspaceRoleShown,
    created_invite,
    shown_invite,
    shown_member,
)
from gateway.schemas.openapi import body_of
from gateway.services import Services

USER_BODIES = (InviteCreation, MemberUpdate, ServiceAccountCreation, WorkspaceRole)
KEYS_END = "Revoke the keys that the member owns in the organisation; false: they go on."
WORKSPACE_KEYS_END = (
    "Revoke the keys that the member owns in the workspace, unless a role in the organisation stays; false: they go on."
)


def members_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/admin/users", tags=["admin: users"], responses=ERRORS)
    desk, clock = AdminDesk(services), services.clock

    @router.get("", operation_id="admin_list_users")
    async def list_all(
        acting: Annotated[Acting, Depends(desk.enter)], limit: Limit = PAGE_DEFAULT, offset: Offset = 0
    ) -> Page[MemberShown]:
        """Members of the organisation or of one of its workspaces, service accounts too."""

        def run(session: Session) -> Page[MemberShown]:
            home = acting.organisation(session)
            rows = list_members(session, home, access=_access(acting), offset=offset, count=limit)
            return Page(data=[shown_member(row) for row in rows])

        return await desk.read(run)

    @router.post(
        "", operation_id="admin_create_service_account", status_code=201, openapi_extra=body_of(ServiceAccountCreation)
    )
    async def create(request: Request, acting: Annotated[Acting, Depends(desk.enter)]) -> ServiceAccountShown:
        """A service account. People are invited."""
        asked = await desk.body(request, ServiceAccountCreation)

        def run(session: Session) -> Changed[ServiceAccountShown]:
            home, access, by = acting.organisation(session), _access(acting), acting.actor
            done = create_service_account(
                session, home, asked.name, asked.role, access=access, actor=by, clock=clock, ids=services.ids
            )
            return ServiceAccountShown(id=done.id, role=asked.role, name=asked.name), done.publish

        return await desk.change(run)

    @router.patch("/{user_id}", operation_id="admin_change_role", openapi_extra=body_of(MemberUpdate))
    async def change(request: Request, acting: Annotated[Acting, Depends(desk.enter)], user_id: IdInPath) -> RoleShown:
        """The role in the organisation. Its last owner stays one."""
        asked = await desk.body(request, MemberUpdate)

        def run(session: Session) -> Changed[RoleShown]:
            home, access = acting.organisation(session), _access(acting)
            done = set_role(session, user_id, home, asked.role, access=access, actor=acting.actor, clock=clock)
            return RoleShown(id=done.id, role=asked.role), done.publish

        return await desk.change(run)

    @router.delete("/{user_id}", operation_id="admin_remove_user")
    async def remove(
        acting: Annotated[Acting, Depends(desk.enter)],
        user_id: IdInPath,
        revoke_keys: Annotated[bool, Query(description=KEYS_END)] = True,
    ) -> DepartureShown:
        """From the organisation and all its workspaces; the user itself stays."""

        def run(session: Session) -> Changed[DepartureShown]:
            home, access, by = acting.organisation(session), _access(acting), acting.actor
            left = remove_member(session, user_id, home, access=access, actor=by, clock=clock, revoke_keys=revoke_keys)
            return _shown(left), left.publish

        return await desk.change(run)

    return router


def workspace_roles_router(services: Services) -> APIRouter:
    path = "/v1/admin/users/{user_id}/workspaces/{workspace_id}"
    router = APIRouter(tags=["admin: users"], responses=ERRORS)
    desk, clock = AdminDesk(services), services.clock

    @router.put(path, operation_id="admin_set_workspace_role", openapi_extra=body_of(WorkspaceRole))
    async def put(
        request: Request, acting: Annotated[Acting, Depends(desk.enter)], user_id: IdInPath, workspace_id: IdInPath
    ) -> WorkspaceRoleShown:
        """Gives or changes the role in one workspace; it adds to the one in the organisation. An organisation's key
        names somebody who belongs to the organisation already.
        """
        asked = await desk.body(request, WorkspaceRole)

        def run(session: Session) -> Changed[WorkspaceRoleShown]:
            home, access, by = acting.organisation(session), _access(acting), acting.actor
            done = set_workspace_role(
                session, user_id, workspace_id, asked.role, within=home, access=access, actor=by, clock=clock
            )
            workspace = find_workspace(session, workspace_id, within=home).id
            return WorkspaceRoleShown(id=done.id, workspace_id=workspace, role=asked.role), done.publish

        return await desk.change(run)

    @router.delete(path, operation_id="admin_remove_from_workspace")
    async def remove(
        acting: Annotated[Acting, Depends(desk.enter)],
        user_id: IdInPath,
        workspace_id: IdInPath,
        revoke_keys: Annotated[bool, Query(description=WORKSPACE_KEYS_END)] = True,
    ) -> DepartureShown:
        """From this workspace only; a role in the organisation stays, and what it allows here."""

        def run(session: Session) -> Changed[DepartureShown]:
            left = remove_workspace_member(
                session,
                user_id,
                workspace_id,
                within=acting.organisation(session),
                access=_access(acting),
                actor=acting.actor,
                clock=clock,
                revoke_keys=revoke_keys,
            )
            return _shown(left), left.publish

        return await desk.change(run)

    return router


def invites_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/admin/invites", tags=["admin: users"], responses=ERRORS)
    desk, clock = AdminDesk(services), services.clock

    @router.get("", operation_id="admin_list_invites")
    async def list_all(acting: Annotated[Acting, Depends(desk.enter)]) -> Page[InviteShown]:
        """Those that can still be used, at most 500."""

        def run(session: Session) -> Page[InviteShown]:
            home = acting.organisation(session)
            rows = list_invitations(session, home, access=_access(acting), clock=clock)
            return Page(data=[shown_invite(row) for row in rows])

        return await desk.read(run)

    @router.post("", operation_id="admin_invite", status_code=201, openapi_extra=body_of(InviteCreation))
    async def create(request: Request, acting: Annotated[Acting, Depends(desk.enter)]) -> InviteCreated:
        """The link is mailed, or shown here if the installation has no mail. Inviting the same address to the same
        place again replaces the invitation before.
        """
        asked = await desk.body(request, InviteCreation)

        def run(session: Session) -> Changed[Link]:
            link = invite(
                session,
                asked.email,
                acting.organisation(session),
                asked.role,
                access=_access(acting),
                actor=acting.actor,
                clock=clock,
                ids=services.ids,
                workspace=asked.workspace_uuid,
            )
            return link, ()

        link = await desk.change(run)
        return created_invite(link, asked.role, await _sent(services, link))

    @router.delete("/{invite_id}", operation_id="admin_withdraw_invite", status_code=204)
    async def withdraw(acting: Annotated[Acting, Depends(desk.enter)], invite_id: IdInPath) -> None:
        """Its link cannot be used any more."""

        def run(session: Session) -> Changed[None]:
            home, access = acting.organisation(session), _access(acting)
            withdraw_invitation(session, invite_id, home, access=access, actor=acting.actor, clock=clock)
            return None, ()

        await desk.change(run)

    return router


def _access(acting: Acting) -> Access:
    return Access("", operator=acting.is_operator, roles={acting.home: Role.ADMIN})


def _shown(left: Departure) -> DepartureShown:
    return DepartureShown(id=left.id, keys_revoked=list(left.keys_revoked), keys_kept=list(left.keys_kept))


async def _sent(services: Services, link: Link) -> str | None:
    """The link, if it was not mailed."""
    settings = services.settings
    public_url = settings.public_url or f"http://{settings.host}:{settings.port}"
    try:
        url = await asyncio.to_thread(deliver, link, services.mailer, public_url)
    except MailError as error:
        message = "The invitation stands, but its mail was not accepted: invite once more."
        raise PlatformError(UNAVAILABLE, message, retry_after_s=1) from error
    return None if url is None else url.get_secret_value()
