"""Where somebody belongs: his organisations and workspaces by name, with his roles."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.accounts.models import Organisation, Workspace
from gateway.accounts.people import Member, WorkspaceMember
from gateway.accounts.roles import Role


@dataclass(frozen=True, slots=True)
class Membership:
    """`role` None: only in the workspaces named, each with its role there."""

    organisation: str
    name: str
    role: Role | None
    workspaces: tuple[tuple[str, Role], ...]


def memberships_of(session: Session, user_id: str) -> list[Membership]:
    """By the organisations' names; two queries."""
    names: dict[str, str] = {}
    roles: dict[str, Role] = {}
    workspaces: dict[str, list[tuple[str, Role]]] = {}
    direct = (
        select(Organisation.id, Organisation.name, Member.role)
        .join(Member, Member.organisation_id == Organisation.id)
        .where(Member.user_id == user_id)
    )
    for organisation, name, role in session.execute(direct):
        names[organisation], roles[organisation] = name, Role(role)
    inside = (
        select(Organisation.id, Organisation.name, Workspace.name, WorkspaceMember.role)
        .join(Workspace, Workspace.organisation_id == Organisation.id)
        .join(WorkspaceMember, WorkspaceMember.workspace_id == Workspace.id)
        .where(WorkspaceMember.user_id == user_id)
        .order_by(Workspace.name)
    )
    for organisation, name, workspace, role in session.execute(inside):
        names[organisation] = name
        workspaces.setdefault(organisation, []).append((workspace, Role(role)))
    return [
        Membership(organisation, name, roles.get(organisation), tuple(workspaces.get(organisation, ())))
        for organisation, name in sorted(names.items(), key=lambda each: each[1].casefold())
    ]
