"""What a role allows: one closed table, which docs/accounts.md shows and a test holds entry by entry."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from core.errors import VALIDATION, PlatformError


class Role(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    BILLING = "billing"
    DEVELOPER = "developer"
    VIEWER = "viewer"


class Permission(StrEnum):
    ORGANISATION_READ = "organisation.read"
    ORGANISATION_MANAGE = "organisation.manage"
    OWNERS_MANAGE = "owners.manage"
    MEMBERS_READ = "members.read"
    MEMBERS_MANAGE = "members.manage"
    WORKSPACES_READ = "workspaces.read"
    WORKSPACES_CREATE = "workspaces.create"
    WORKSPACES_MANAGE = "workspaces.manage"
    KEYS_READ = "keys.read"
    KEYS_CREATE = "keys.create"  # and rotate, change, revoke: one's own
    KEYS_MANAGE = "keys.manage"  # of everybody
    USAGE_READ = "usage.read"
    LIMITS_READ = "limits.read"
    LIMITS_MANAGE = "limits.manage"
    BILLING_READ = "billing.read"
    BILLING_PAY = "billing.pay"
    AUDIT_READ = "audit.read"
    INFERENCE_CHAT = "inference.chat"


_SEES = frozenset(
    {
        Permission.ORGANISATION_READ,
        Permission.MEMBERS_READ,
        Permission.WORKSPACES_READ,
        Permission.USAGE_READ,
        Permission.LIMITS_READ,
    }
)
GRANTED: Mapping[Role, frozenset[Permission]] = MappingProxyType(
    {
        Role.OWNER: frozenset(Permission),
        Role.ADMIN: frozenset(Permission) - {Permission.OWNERS_MANAGE, Permission.BILLING_PAY},
        Role.BILLING: _SEES | {Permission.BILLING_READ, Permission.BILLING_PAY},
        Role.DEVELOPER: _SEES | {Permission.KEYS_READ, Permission.KEYS_CREATE, Permission.INFERENCE_CHAT},
        Role.VIEWER: _SEES | {Permission.KEYS_READ},
    }
)
# What a role in a workspace can give; the rest is about the organisation as a whole.
IN_WORKSPACE = frozenset(
    {
        Permission.MEMBERS_READ,
        Permission.MEMBERS_MANAGE,
        Permission.WORKSPACES_READ,
        Permission.WORKSPACES_MANAGE,
        Permission.KEYS_READ,
        Permission.KEYS_CREATE,
        Permission.KEYS_MANAGE,
        Permission.USAGE_READ,
        Permission.LIMITS_READ,
        Permission.LIMITS_MANAGE,
        Permission.INFERENCE_CHAT,
    }
)


def checked_role(role: str) -> Role:
    """Raises PlatformError (VALIDATION)."""
    try:
        return Role(role)
    except ValueError as error:
        known = ", ".join(Role)
        raise PlatformError(VALIDATION, f"There is no role {role!r}; there are {known}.", param="role") from error
