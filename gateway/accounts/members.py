"""Roles in organisations and workspaces: given, changed, taken away. `access` is what the one who acts may do.

Functions take a unit of work's session and never commit. Each change raises the organisation's generation.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import delete, false, func, select
from sqlalchemy.orm import Session

from core.clock import Clock
from core.errors import CONFLICT, NOT_FOUND, PlatformError
from core.ids import IdSource
from gateway.accounts.access import Access
from gateway.accounts.api_keys import revoke_key
from gateway.accounts.generations import Change, Generation, generation_of, raise_generation
from gateway.accounts.models import Organisation, Workspace
from gateway.accounts.names import checked_name
from gateway.accounts.organisations import ID_BYTES
from gateway.accounts.people import PERSON, SERVICE, Member, User, WorkspaceMember
from gateway.accounts.roles import Permission, Role
from gateway.accounts.trail import Actor, Target, record
from gateway.accounts.users import add_user, find_user, keys_of
from gateway.accounts.workspaces import find_workspace


@dataclass(frozen=True, slots=True)
class MemberRow:
    """`role` None: only in workspaces. `workspace_roles` by the workspace's id."""

    user: str
    kind: str
    email: str | None
    name: str
    role: Role | None
    workspace_roles: dict[str, Role]
    disabled_ms: int | None
    last_login_ms: int | None


@dataclass(frozen=True, slots=True)
class Departure:
    """Who left, and what became of the keys that he owned in the organisation."""

    id: str
    publish: tuple[Generation, ...]
    keys_revoked: tuple[str, ...]
    keys_kept: tuple[str, ...]


def set_role(
    session: Session, user_id: str, organisation: str, role: Role, *, access: Access, actor: Actor, clock: Clock
) -> Change:
    """Only an operator makes somebody a member this way: others invite. Owners are made and unmade by owners, and
    there is always one left who can log in.
    """
    access.require(Permission.MEMBERS_MANAGE, organisation)
    _lock(session, organisation)
    user = find_user(session, user_id, within=None if access.operator else organisation)
    member = session.get(Member, (user.id, organisation), populate_existing=True)
    before = None if member is None else Role(member.role)
    if before is role:
        return Change(user.id, (generation_of(session, organisation),))
    if Role.OWNER in {before, role}:
        access.require(Permission.OWNERS_MANAGE, organisation)
    if role is Role.OWNER and user.kind != PERSON:
        raise PlatformError(CONFLICT, "A service account cannot be an owner.")
    if before is Role.OWNER:
        _keep_an_owner(session, user.id, organisation)
    publish = put_member(session, user.id, organisation, None, role, actor=actor, clock=clock)
    return Change(user.id, publish)


def set_workspace_role(
    session: Session,
    user_id: str,
    workspace: str,
    role: Role,
    *,
    within: str,
    access: Access,
    actor: Actor,
    clock: Clock,
) -> Change:
    """In one workspace of the organisation `within`, of somebody who belongs to the organisation; an operator may name
    anybody.
    """
    home = _workspace(session, workspace, within, access)
    user = find_user(session, user_id, within=None if access.operator else within)
    member = session.get(WorkspaceMember, (user.id, home), populate_existing=True)
    if member is not None and member.role == role.value:
        return Change(user.id, (generation_of(session, within),))
    return Change(user.id, put_member(session, user.id, within, home, role, actor=actor, clock=clock))


def remove_workspace_member(
    session: Session,
    user_id: str,
    workspace: str,
    *,
    within: str,
    access: Access,
    actor: Actor,
    clock: Clock,
    revoke_keys: bool = True,
) -> Departure:
    """The keys that he owns in this workspace end with his role, unless he has one in the organisation or they shall
    go on.
    """
    home = _workspace(session, workspace, within, access)
    user = find_user(session, user_id, within=within)
    member = session.get(WorkspaceMember, (user.id, home), populate_existing=True)
    if member is None:
        raise PlatformError(NOT_FOUND, f"{user_id!r} has no role in this workspace.")
    before = _facts(home, member.role)
    session.delete(member)
    session.flush()
    ends = revoke_keys and session.get(Member, (user.id, within), populate_existing=True) is None
    return _departed(session, user.id, within, home, before, actor, clock, revoke_keys=ends)


def remove_member(
    session: Session,
    user_id: str,
    organisation: str,
    *,
    access: Access,
    actor: Actor,
    clock: Clock,
    revoke_keys: bool = True,
) -> Departure:
    """With all his roles in its workspaces. Anybody may leave; the last owner cannot. The keys that he owned there end
    with him, unless they shall go on: they are their workspaces'.
    """
    access.require(Permission.ORGANISATION_READ, organisation)
    _lock(session, organisation)
    user = find_user(session, user_id, within=organisation)
    if user.id != access.user:
        access.require(Permission.MEMBERS_MANAGE, organisation)
    member = session.get(Member, (user.id, organisation), populate_existing=True)
    role = None if member is None else Role(member.role)
    if role is Role.OWNER:
        if user.id != access.user:
            access.require(Permission.OWNERS_MANAGE, organisation)
        _keep_an_owner(session, user.id, organisation)
    here = select(Workspace.id).where(Workspace.organisation_id == organisation)
    in_workspaces = delete(WorkspaceMember).where(WorkspaceMember.user_id == user.id)
    session.execute(in_workspaces.where(WorkspaceMember.workspace_id.in_(here)))
    session.execute(delete(Member).where(Member.user_id == user.id, Member.organisation_id == organisation))
    before = {"role": None if role is None else role.value}
    return _departed(session, user.id, organisation, None, before, actor, clock, revoke_keys=revoke_keys)


def create_service_account(
    session: Session,
    organisation: str,
    name: str,
    role: Role,
    *,
    access: Access,
    actor: Actor,
    clock: Clock,
    ids: IdSource,
) -> Change:
    """A member that no person is: it owns keys and cannot log in. Its keys outlive whoever made it."""
    access.require(Permission.MEMBERS_MANAGE, organisation)
    if role is Role.OWNER:
        raise PlatformError(CONFLICT, "A service account cannot be an owner.")
    _lock(session, organisation)
    made = User(
        id=ids.token(ID_BYTES),
        kind=SERVICE,
        email=None,
        name=checked_name(name),
        password_hash=None,
        is_operator=False,
        disabled_ms=None,
        created_ms=clock.now_ms(),
        last_login_ms=None,
    )
    add_user(session, made, actor=actor, organisation=organisation)
    return Change(made.id, put_member(session, made.id, organisation, None, role, actor=actor, clock=clock))


def find_member(session: Session, user_id: str, organisation: str, *, access: Access) -> MemberRow:
    """By the id. Raises PlatformError (NOT_FOUND), also for one whom he may not see."""
    found = list_members(session, organisation, access=access, only=user_id)
    if not found:
        raise PlatformError(NOT_FOUND, f"There is no member {user_id!r}.")
    return found[0]


def list_members(
    session: Session,
    organisation: str,
    *,
    access: Access,
    offset: int = 0,
    count: int | None = None,
    only: str | None = None,
) -> list[MemberRow]:
    """Of the organisation, or of the workspaces whose members he may see; longest known first. `only`: this user."""
    access.require(Permission.ORGANISATION_READ, organisation)
    shown = access.workspaces(Permission.MEMBERS_READ, organisation)
    in_workspaces = (
        select(WorkspaceMember.user_id, WorkspaceMember.workspace_id, WorkspaceMember.role)
        .join(Workspace, Workspace.id == WorkspaceMember.workspace_id)
        .where(Workspace.organisation_id == organisation)
    )
    who = select(Member.user_id).where(Member.organisation_id == organisation)
    if shown is not None:
        in_workspaces = in_workspaces.where(WorkspaceMember.workspace_id.in_(shown))
        who = who.where(false())
    if only is not None:
        who, in_workspaces = who.where(Member.user_id == only), in_workspaces.where(WorkspaceMember.user_id == only)
    people = session.execute(
        select(User, Member.role)
        .outerjoin(Member, (Member.user_id == User.id) & (Member.organisation_id == organisation))
        .where(User.id.in_(who.union(in_workspaces.with_only_columns(WorkspaceMember.user_id))))
        .order_by(User.created_ms, User.id)
        .offset(offset)
        .limit(count)
    ).all()
    roles: dict[str, dict[str, Role]] = {}
    wanted = [user.id for user, _ in people]
    for user_id, workspace, role in session.execute(in_workspaces.where(WorkspaceMember.user_id.in_(wanted))):
        roles.setdefault(user_id, {})[workspace] = Role(role)
    return [_row(user, role, roles.get(user.id, {})) for user, role in people]


def put_member(
    session: Session,
    user_id: str,
    organisation: str,
    workspace: str | None,
    role: Role,
    *,
    actor: Actor,
    clock: Clock,
) -> tuple[Generation, ...]:
    """Without any question: for what was decided elsewhere, such as by an invitation. Answers what to publish."""
    found: Member | WorkspaceMember | None
    if workspace is None:
        kind, found = "member", session.get(Member, (user_id, organisation))
    else:
        kind, found = "workspace_member", session.get(WorkspaceMember, (user_id, workspace))
    before = None if found is None else _facts(workspace, found.role)
    created_ms = clock.now_ms()
    if found is not None:
        found.role = role.value
    elif workspace is None:
        session.add(Member(user_id=user_id, organisation_id=organisation, role=role.value, created_ms=created_ms))
    else:
        session.add(WorkspaceMember(user_id=user_id, workspace_id=workspace, role=role.value, created_ms=created_ms))
    session.flush()
    action = f"{kind}.{'add' if before is None else 'set_role'}"
    _record(session, actor, action, user_id, organisation, clock, before=before, after=_facts(workspace, role.value))
    return (raise_generation(session, organisation),)


def _facts(workspace: str | None, role: str) -> dict[str, object]:
    return {"role": role} if workspace is None else {"role": role, "workspace": workspace}


def _departed(
    session: Session,
    user_id: str,
    organisation: str,
    workspace: str | None,
    before: Mapping[str, object],
    actor: Actor,
    clock: Clock,
    *,
    revoke_keys: bool,
) -> Departure:
    keys = keys_of(session, user_id, organisation, workspace)
    revoked, kept = (keys, ()) if revoke_keys else ((), keys)
    for key_id in revoked:
        revoke_key(session, key_id, within=organisation, actor=actor, clock=clock)
    action = "member.remove" if workspace is None else "workspace_member.remove"
    after = {"keys_revoked": list(revoked), "keys_kept": list(kept)}
    _record(session, actor, action, user_id, organisation, clock, before=before, after=after)
    return Departure(user_id, (raise_generation(session, organisation),), revoked, kept)


def _workspace(session: Session, workspace: str, within: str, access: Access) -> str:
    """Its id; the organisation's members are locked."""
    access.require(Permission.ORGANISATION_READ, within)
    home = find_workspace(session, workspace, within=within).id
    access.require(Permission.MEMBERS_MANAGE, within, home)
    _lock(session, within)
    return home


def _keep_an_owner(session: Session, user_id: str, organisation: str) -> None:
    others = (
        select(func.count())
        .select_from(Member)
        .join(User, User.id == Member.user_id)
        .where(
            Member.organisation_id == organisation,
            Member.role == Role.OWNER.value,
            Member.user_id != user_id,
            User.disabled_ms.is_(None),
        )
    )
    if session.scalars(others).one() == 0:
        raise PlatformError(CONFLICT, "An organisation has an owner: make somebody else one first.")


def _lock(session: Session, organisation: str) -> None:
    """Changes of an organisation's members come one after the other (SQLite has one writer anyway)."""
    query = select(Organisation.id).where(Organisation.id == organisation).with_for_update()
    if session.scalars(query).one_or_none() is None:
        raise PlatformError(NOT_FOUND, f"There is no organisation {organisation!r}.")


def _row(user: User, role: str | None, workspace_roles: dict[str, Role]) -> MemberRow:
    return MemberRow(
        user=user.id,
        kind=user.kind,
        email=user.email,
        name=user.name,
        role=None if role is None else Role(role),
        workspace_roles=workspace_roles,
        disabled_ms=user.disabled_ms,
        last_login_ms=user.last_login_ms,
    )


def _record(
    session: Session,
    actor: Actor,
    action: str,
    user_id: str,
    organisation: str,
    clock: Clock,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    target = Target("user", user_id)
    now_ms = clock.now_ms()
    record(session, actor, action, target, organisation=organisation, now_ms=now_ms, before=before, after=after)
