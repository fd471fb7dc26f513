"""Members and invitations as /v1/admin shows and takes them."""

from pydantic import BaseModel, Field

from gateway.accounts.invitations import InvitationRow
from gateway.accounts.links import Link
from gateway.accounts.members import MemberRow
from gateway.accounts.people import EMAIL_LENGTH_MAX
from gateway.accounts.roles import Role
from gateway.schemas.admin.fields import ID_PATTERN, Id, Name, iso, iso_or_none
from gateway.schemas.parsing import Strict

ROLES = "owner, admin, billing, developer or viewer. Only an operator's key makes and unmakes owners."


class InviteCreation(Strict):
    email: str = Field(min_length=3, max_length=EMAIL_LENGTH_MAX, pattern=ID_PATTERN)
    role: Role = Field(strict=False, description=ROLES)
    workspace_uuid: Id | None = Field(default=None, description="Only to this workspace. Absent: the organisation.")


class ServiceAccountCreation(Strict):
    """A member that no person is: it owns keys and cannot log in."""

    name: Name
    role: Role = Field(default=Role.DEVELOPER, strict=False, description=ROLES)


class MemberUpdate(Strict):
    role: Role = Field(strict=False, description=ROLES)


class WorkspaceRole(Strict):
    role: Role = Field(strict=False, description="Gives there what docs/accounts.md says a role gives in a workspace.")


class MemberShown(BaseModel):
    id: str
    kind: str = Field(description="person or service.")
    email: str | None
    name: str
    role: Role | None = Field(description="In the organisation; null: only in workspaces.")
    workspace_roles: dict[str, Role] = Field(description="By the id of the workspace.")
    disabled_at: str | None
    last_login_at: str | None


class RoleShown(BaseModel):
    id: str
    role: Role


class WorkspaceRoleShown(RoleShown):
    workspace_id: str


class ServiceAccountShown(RoleShown):
    name: str


class DepartureShown(BaseModel):
    id: str
    keys_revoked: list[str]
    keys_kept: list[str]


class InviteShown(BaseModel):
    id: str
    email: str
    role: Role
    workspace_id: str | None
    created_by: str
    created_at: str
    expires_at: str


class InviteCreated(BaseModel):
    """`url` is shown only now, and only where no mail is sent."""

    id: str
    email: str
    role: Role
    expires_at: str
    mailed: bool
    url: str | None


def shown_member(row: MemberRow) -> MemberShown:
    return MemberShown(
        id=row.user,
        kind=row.kind,
        email=row.email,
        name=row.name,
        role=row.role,
        workspace_roles=row.workspace_roles,
        disabled_at=iso_or_none(row.disabled_ms),
        last_login_at=iso_or_none(row.last_login_ms),
    )


def shown_invite(row: InvitationRow) -> InviteShown:
    return InviteShown(
        id=row.id,
        email=row.email,
        role=row.role,
        workspace_id=row.workspace,
        created_by=row.created_by,
        created_at=iso(row.created_ms),
        expires_at=iso(row.expires_ms),
    )


def created_invite(link: Link, role: Role, url: str | None) -> InviteCreated:
    return InviteCreated(
        id=link.id,
        email=link.email or "",
        role=role,
        expires_at=iso(link.expires_ms),
        mailed=url is None,
        url=url,
    )
