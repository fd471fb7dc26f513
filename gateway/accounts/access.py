"""What a user may do, and where."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import NOT_ALLOWED, NOT_FOUND, PlatformError
from gateway.accounts.models import Workspace
from gateway.accounts.people import Member, User, WorkspaceMember
from gateway.accounts.roles import GRANTED, IN_WORKSPACE, Permission, Role


@dataclass(frozen=True, slots=True)
class WorkspaceRole:
    organisation: str
    role: Role


@dataclass(frozen=True, slots=True)
class Access:
    """`roles` by organisation, `workspace_roles` by workspace, all of them ids.

    A role in an organisation counts in all its workspaces. Whether a workspace is the organisation's is not asked
    here: every function of accounts takes `within`, and finds nothing outside.
    """

    user: str
    operator: bool = False
    roles: Mapping[str, Role] = field(default_factory=dict)
    workspace_roles: Mapping[str, WorkspaceRole] = field(default_factory=dict)

    def may(self, permission: Permission, organisation: str, workspace: str | None = None) -> bool:
        """In the organisation as a whole, or in one workspace of it."""
        if self.operator:
            return True
        role = self.roles.get(organisation)
        if role is not None and permission in GRANTED[role]:
            return True
        if permission is Permission.ORGANISATION_READ:
            return self.belongs_to(organisation)
        found = None if workspace is None else self.workspace_roles.get(workspace)
        if found is None or found.organisation != organisation:
            return False
        return permission in IN_WORKSPACE and permission in GRANTED[found.role]

    def workspaces(self, permission: Permission, organisation: str) -> frozenset[str] | None:
        """Of this organisation, those in which he may do it, for lists; None: all."""
        if self.may(permission, organisation):
            return None
        return frozenset(name for name in self.workspace_roles if self.may(permission, organisation, name))

    def belongs_to(self, organisation: str) -> bool:
        return (
            self.operator
            or organisation in self.roles
            or any(found.organisation == organisation for found in self.workspace_roles.values())
        )

    def require(self, permission: Permission, organisation: str, workspace: str | None = None) -> None:
        """Raises PlatformError: NOT_FOUND for an organisation that does not exist for him, else NOT_ALLOWED."""
        if not self.belongs_to(organisation):
            raise PlatformError(NOT_FOUND, f"There is no organisation {organisation!r}.")
        if not self.may(permission, organisation, workspace):
            raise PlatformError(NOT_ALLOWED, f"This needs the permission {permission.value}.")

    def require_operator(self) -> None:
        """Raises PlatformError (NOT_ALLOWED)."""
        if not self.operator:
            raise PlatformError(NOT_ALLOWED, "This is for operators.")


OPERATOR = Access(user="", operator=True)  # the command line's


def access_of(session: Session, user_id: str) -> Access:
    """Nothing at all for a user who does not exist or is disabled."""
    user = session.get(User, user_id)
    if user is None or user.disabled_ms is not None:
        return Access(user_id)
    members = session.execute(select(Member.organisation_id, Member.role).where(Member.user_id == user_id))
    in_workspaces = session.execute(
        select(WorkspaceMember.workspace_id, Workspace.organisation_id, WorkspaceMember.role)
        .join(Workspace, Workspace.id == WorkspaceMember.workspace_id)
        .where(WorkspaceMember.user_id == user_id)
    )
    return Access(
        user=user_id,
        operator=user.is_operator,
        roles={organisation: Role(role) for organisation, role in members},
        workspace_roles={
            workspace: WorkspaceRole(organisation, Role(role)) for workspace, organisation, role in in_workspaces
        },
    )
