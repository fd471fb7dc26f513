"""Users: made, found, disabled. They belong to the installation, their roles to organisations (members.py).

Functions take a unit of work's session and never commit; what is here is for operators, unless it says otherwise.
"""

import string
from collections.abc import Mapping

from sqlalchemy import CompoundSelect, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.clock import Clock
from core.errors import CONFLICT, NOT_FOUND, VALIDATION, PlatformError
from core.ids import IdSource
from gateway.accounts.api_keys import revoke_key
from gateway.accounts.generations import Change
from gateway.accounts.models import ApiKey, Workspace
from gateway.accounts.names import checked_name
from gateway.accounts.organisations import ID_BYTES
from gateway.accounts.people import (
    EMAIL_LENGTH_MAX,
    PERSON,
    ConsoleSession,
    Member,
    OneTimeLink,
    User,
    WorkspaceMember,
)
from gateway.accounts.trail import Actor, Target, record

_EMAIL_CHARACTERS = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-/=?^_`{|}~.@")


def create_user(
    session: Session,
    email: str,
    name: str,
    *,
    actor: Actor,
    clock: Clock,
    ids: IdSource,
    is_operator: bool = False,
    password_hash: str | None = None,
) -> User:
    """A person, without any role. Raises PlatformError: VALIDATION, CONFLICT for an address that is known."""
    return add_user(
        session,
        User(
            id=ids.token(ID_BYTES),
            kind=PERSON,
            email=checked_email(email),
            name=checked_name(name),
            password_hash=password_hash,
            is_operator=is_operator,
            disabled_ms=None,
            created_ms=clock.now_ms(),
            last_login_ms=None,
        ),
        actor=actor,
    )


def add_user(session: Session, user: User, *, actor: Actor, organisation: str = "") -> User:
    """With its entry in the audit log, which is the organisation's if the user belongs to one alone."""
    session.add(user)
    try:
        session.flush()
    except IntegrityError as error:
        raise PlatformError(CONFLICT, f"There is a user with the address {user.email}.", param="email") from error
    after = {"kind": user.kind, "email": user.email, "name": user.name, "is_operator": user.is_operator}
    target = Target("user", user.id)
    record(session, actor, "user.create", target, organisation=organisation, now_ms=user.created_ms, after=after)
    return user


def find_user(session: Session, email_or_id: str, *, within: str | None) -> User:
    """`within`: of those who belong to the organisation with this id. Raises PlatformError (NOT_FOUND)."""
    query = select(User).where((User.id == email_or_id) | (User.email == folded(email_or_id)))
    if within is not None:
        query = query.where(User.id.in_(belonging_to(within)))
    found = session.scalars(query).one_or_none()
    if found is None:
        raise PlatformError(NOT_FOUND, f"There is no user {email_or_id!r}.")
    return found


def user_by_email(session: Session, email: str, *, lock: bool = False) -> User | None:
    query = select(User).where(User.email == folded(email))
    return session.scalars(query.with_for_update() if lock else query).one_or_none()


def list_users(session: Session, *, within: str | None, offset: int = 0, count: int | None = None) -> list[User]:
    """Oldest first, disabled ones and service accounts too."""
    query = select(User).order_by(User.created_ms, User.id).offset(offset).limit(count)
    if within is not None:
        query = query.where(User.id.in_(belonging_to(within)))
    return list(session.scalars(query))


def set_operator(session: Session, user_id: str, is_operator: bool, *, actor: Actor, clock: Clock) -> None:
    user = find_user(session, user_id, within=None)
    if user.kind != PERSON:
        raise PlatformError(CONFLICT, "A service account cannot be an operator.")
    if user.is_operator != is_operator:
        before, user.is_operator = {"is_operator": user.is_operator}, is_operator
        _record(session, actor, "set_operator", user.id, clock, before=before, after={"is_operator": is_operator})


def rename_user(session: Session, user_id: str, name: str, *, actor: Actor, clock: Clock) -> None:
    """For operators, and for the user himself."""
    user = find_user(session, user_id, within=None)
    if user.name != name:
        before, user.name = {"name": user.name}, checked_name(name)
        _record(session, actor, "rename", user.id, clock, before=before, after={"name": name})


def disable_user(
    session: Session,
    user_id: str,
    *,
    actor: Actor,
    clock: Clock,
    revoke_keys: bool = True,
    organisation: str = "",
) -> Change:
    """His sessions and links end at once; nobody logs in as him. His keys are revoked everywhere, for good, unless
    they shall go on: they are their workspaces'. Roles stay, but give nothing. `organisation`: in whose audit log it
    stands, of those that he belongs to; empty: in none.
    """
    user = find_user(session, user_id, within=None)
    end_sessions_and_links(session, user.id)
    if user.disabled_ms is None:
        user.disabled_ms = clock.now_ms()
        after = {"keys_revoked": revoke_keys}
        _record(session, actor, "disable", user.id, clock, after=after, organisation=organisation)
    keys = keys_of(session, user.id, None) if revoke_keys else ()
    changes = [revoke_key(session, key_id, within=None, actor=actor, clock=clock) for key_id in keys]
    highest = {each.organisation: each for change in changes for each in change.publish}
    return Change(user.id, tuple(highest.values()))


def enable_user(session: Session, user_id: str, *, actor: Actor, clock: Clock, organisation: str = "") -> None:
    """With the roles and the password that he had; revoked keys stay revoked."""
    user = find_user(session, user_id, within=None)
    if user.disabled_ms is not None:
        user.disabled_ms = None
        _record(session, actor, "enable", user.id, clock, organisation=organisation)


def end_sessions_and_links(session: Session, user_id: str, *, keep: str | None = None) -> None:
    """Of a user who loses his access or has another password; the session with the id `keep` goes on."""
    sessions = delete(ConsoleSession).where(ConsoleSession.user_id == user_id)
    session.execute(sessions if keep is None else sessions.where(ConsoleSession.digest != keep))
    session.execute(delete(OneTimeLink).where(OneTimeLink.user_id == user_id, OneTimeLink.used_ms.is_(None)))


def keys_of(session: Session, user_id: str, organisation: str | None, workspace: str | None = None) -> tuple[str, ...]:
    """Ids of the keys that the user owns there and that are not revoked; None: anywhere."""
    query = select(ApiKey.id).where(ApiKey.owner == user_id, ApiKey.revoked_ms.is_(None)).order_by(ApiKey.id)
    if workspace is not None:
        query = query.where(ApiKey.workspace_id == workspace)
    if organisation is not None:
        query = query.join(Workspace, Workspace.id == ApiKey.workspace_id)
        query = query.where(Workspace.organisation_id == organisation)
    return tuple(session.scalars(query))


def owned_keys(session: Session, user_id: str, organisation: str) -> list[ApiKey]:
    """Those that `keys_of` names, by name."""
    query = select(ApiKey).where(ApiKey.id.in_(keys_of(session, user_id, organisation)))
    return list(session.scalars(query.order_by(ApiKey.name, ApiKey.id)))


def belonging_to(organisation: str) -> CompoundSelect[str]:
    """The ids of those with a role in the organisation or in one of its workspaces."""
    in_workspaces = (
        select(WorkspaceMember.user_id)
        .join(Workspace, Workspace.id == WorkspaceMember.workspace_id)
        .where(Workspace.organisation_id == organisation)
    )
    return select(Member.user_id).where(Member.organisation_id == organisation).union(in_workspaces)


def folded(email: str) -> str:
    return email.strip().casefold()


def checked_email(email: str) -> str:
    """Folded. ASCII only: two addresses that look or fold alike may be two mailboxes. Raises PlatformError."""
    address = folded(email)
    local, _, domain = address.rpartition("@")
    if not (0 < len(local) <= 64 and domain and "@" not in local and len(address) <= EMAIL_LENGTH_MAX):
        raise PlatformError(VALIDATION, "This is no e-mail address.", param="email")
    if not _EMAIL_CHARACTERS.issuperset(email.strip()) or domain.startswith(".") or ".." in address:
        raise PlatformError(VALIDATION, "An e-mail address has plain ASCII letters, digits and signs.", param="email")
    return address


def _record(
    session: Session,
    actor: Actor,
    verb: str,
    user_id: str,
    clock: Clock,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
    organisation: str = "",
) -> None:
    target = Target("user", user_id)
    now_ms = clock.now_ms()
    record(session, actor, f"user.{verb}", target, organisation=organisation, now_ms=now_ms, before=before, after=after)
