"""Where somebody belongs: his organisations and workspaces by name, with his roles; and who owns keys."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from gateway.accounts.models import Organisation, Workspace
from gateway.accounts.people import SERVICE, Member, User, WorkspaceMember
from gateway.accounts.roles import Role
from gateway.accounts.users import belonging_to


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


@dataclass(frozen=True, slots=True)
class KeyOwner:
    id: str
    name: str
    is_service: bool


def key_owners(session: Session, organisation: str, ids: Collection[str]) -> dict[str, KeyOwner]:
    """The users with these ids, and every service account of the organisation that is not disabled."""
    services = and_(User.kind == SERVICE, User.disabled_ms.is_(None), User.id.in_(belonging_to(organisation)))
    query = select(User.id, User.name, User.kind).where(or_(User.id.in_(ids), services)).order_by(User.name)
    return {row.id: KeyOwner(row.id, row.name, row.kind == SERVICE) for row in session.execute(query)}
