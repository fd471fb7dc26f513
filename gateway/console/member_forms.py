"""Roles and invitations as forms say them; what roles may do, in words."""

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import Field

from gateway.accounts.models import ID_LENGTH, NAME_LENGTH_MAX
from gateway.accounts.people import EMAIL_LENGTH_MAX
from gateway.accounts.roles import GRANTED, IN_WORKSPACE, Permission, Role
from gateway.console.entrance import Fields
from gateway.console.table import Column, Row
from gateway.console.visitor import Place

ROLES: Mapping[Role, str] = MappingProxyType(
    {
        Role.OWNER: "everything, also owners and payments",
        Role.ADMIN: "everything but owners and payments",
        Role.BILLING: "pays, and sees what is used",
        Role.DEVELOPER: "makes keys of their own, chats",
        Role.VIEWER: "looks",
    }
)
WORKSPACE_ROLES = (Role.ADMIN, Role.DEVELOPER, Role.VIEWER)  # the others are about the organisation as a whole
ABILITIES: Mapping[Permission, str] = MappingProxyType(
    {
        Permission.ORGANISATION_READ: "See the organisation",
        Permission.ORGANISATION_MANAGE: "Change the organisation",
        Permission.OWNERS_MANAGE: "Make and unmake owners",
        Permission.MEMBERS_READ: "See members",
        Permission.MEMBERS_MANAGE: "Invite, change and remove members",
        Permission.WORKSPACES_READ: "See workspaces",
        Permission.WORKSPACES_CREATE: "Create workspaces",
        Permission.WORKSPACES_MANAGE: "Change and archive workspaces",
        Permission.KEYS_READ: "See API keys",
        Permission.KEYS_CREATE: "Make, rotate and revoke keys of their own",
        Permission.KEYS_MANAGE: "Change and revoke everybody's keys",
        Permission.USAGE_READ: "See usage and requests",
        Permission.LIMITS_READ: "See limits",
        Permission.LIMITS_MANAGE: "Set limits and spending caps",
        Permission.BILLING_READ: "See credit, bookings and prices",
        Permission.BILLING_PAY: "Pay, and change who is billed",
        Permission.AUDIT_READ: "Read the audit log",
        Permission.INFERENCE_CHAT: "Chat in the console",
    }
)
ROLE_COLUMNS = (
    Column("ability", "May", "cell", lambda row: row["ability"]),
    *(Column(role.value, role.value.capitalize(), "cell") for role in Role),
)


class InviteForm(Fields):
    """`workspace` empty: to the organisation as a whole."""

    email: str = Field(max_length=EMAIL_LENGTH_MAX)
    role: Role
    workspace: str = Field(default="", max_length=ID_LENGTH)


class ServiceForm(Fields):
    name: str = Field(max_length=NAME_LENGTH_MAX)
    role: Role


class RoleForm(Fields):
    role: Role


class WorkspaceRoleForm(Fields):
    workspace: str = Field(max_length=ID_LENGTH)
    role: Role


class RemovalForm(Fields):
    """`keys`: "revoke" where the keys end with the role, empty where they go on."""

    keys: str = Field(default="", pattern="^(revoke)?$")


def roles_to_give(place: Place, *, service: bool = False) -> list[tuple[str, str]]:
    """Pairs of value and label."""
    owners = place.may(Permission.OWNERS_MANAGE) and not service
    given = [role for role in Role if role is not Role.OWNER or owners]
    return [(role.value, f"{role.value}: {ROLES[role]}") for role in reversed(given)]


def workspace_roles_to_give() -> list[tuple[str, str]]:
    return [(role.value, f"{role.value}: {ROLES[role]}") for role in reversed(WORKSPACE_ROLES)]


def ability_rows() -> list[Row]:
    """For each permission: "yes", "no", for each role."""
    return [
        {
            "ability": ABILITIES[permission],
            "in_workspace": permission in IN_WORKSPACE,
            **{role.value: "yes" if permission in GRANTED[role] else "no" for role in Role},
        }
        for permission in Permission
    ]
