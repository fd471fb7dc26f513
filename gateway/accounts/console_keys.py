"""The key by which a person chats in the console: an ordinary key of the workspace, with limits and usage of its own,
but without a secret, so that nobody can use it over HTTP.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import ForeignKey, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from core.clock import Clock
from core.db import Base
from core.errors import CONFLICT, NOT_FOUND, PlatformError
from core.ids import IdSource
from gateway.accounts.access import Access
from gateway.accounts.keys import generate_key
from gateway.accounts.models import ID_LENGTH, NAME_LENGTH_MAX, ApiKey, AuditEntry, Workspace
from gateway.accounts.people import User
from gateway.accounts.roles import Permission
from gateway.accounts.scopes import INFERENCE
from gateway.accounts.terms import KeyTerms, columns
from gateway.accounts.trail import Actor, Target, record
from gateway.accounts.workspaces import find_workspace


class ConsoleKey(Base):
    """One for each person and workspace; gone when the chat is opened again after the key was revoked."""

    __tablename__ = "console_keys"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(ID_LENGTH), ForeignKey("api_keys.id"), unique=True)


@dataclass(frozen=True, slots=True)
class Revoked:
    """Whose chat it was, where, and who ended it. `by_owner`: the person did it."""

    key_id: str
    user: str
    person: str
    workspace: str
    workspace_name: str
    at_ms: int
    by: str
    by_owner: bool


def console_key(session: Session, user_id: str, workspace: str) -> ApiKey | None:
    """What this person chats with in this workspace, revoked or not; None before the first use."""
    query = select(ApiKey).join(ConsoleKey, ConsoleKey.key_id == ApiKey.id)
    return session.scalars(
        query.where(ConsoleKey.user_id == user_id, ConsoleKey.workspace_id == workspace)
    ).one_or_none()


def open_console_key(
    session: Session, user_id: str, workspace: str, *, within: str, actor: Actor, clock: Clock, ids: IdSource
) -> ApiKey:
    """The key, made at its first use. Of two that ask at once, one makes it. Raises PlatformError."""
    home = find_workspace(session, workspace, within=within)
    if home.archived_ms is not None:
        raise PlatformError(CONFLICT, f"The workspace {home.name!r} is archived.")
    user = session.get_one(User, user_id, with_for_update=True)
    found = console_key(session, user_id, home.id)
    if found is not None:
        return found
    now_ms = clock.now_ms()
    terms = KeyTerms(f"Chat of {user.name}"[:NAME_LENGTH_MAX].strip(), (INFERENCE,))
    values = columns(terms, known_tiers=(), now_ms=now_ms, within=within)
    made = ApiKey(
        id=generate_key(ids).id,  # its secret is thrown away
        workspace_id=home.id,
        owner=user.id,
        created_by=actor.label,
        created_ms=now_ms,
        revoked_ms=None,
        **values,
    )
    session.add(made)
    session.flush()
    session.add(ConsoleKey(user_id=user.id, workspace_id=home.id, key_id=made.id))
    session.flush()
    after = {**values, "workspace": home.id, "chat": True}
    _record(session, actor, "api_key.create", made.id, within, now_ms, after)
    return made


def revoked_console_key(session: Session, key_id: str, *, within: str) -> Revoked:
    """Raises PlatformError (NOT_FOUND) unless this is a chat's key of this organisation, and revoked."""
    query = (
        select(ApiKey, Workspace, User)
        .join(ConsoleKey, ConsoleKey.key_id == ApiKey.id)
        .join(Workspace, Workspace.id == ConsoleKey.workspace_id)
        .join(User, User.id == ConsoleKey.user_id)
        .where(ApiKey.id == key_id, ApiKey.revoked_ms.is_not(None), Workspace.organisation_id == within)
    )
    found = session.execute(query).one_or_none()
    if found is None:
        raise PlatformError(NOT_FOUND, f"No chat was ended with the key {key_id!r}.")
    key, home, user = found
    told = (
        select(AuditEntry)
        .where(
            AuditEntry.organisation == within,
            AuditEntry.action == "api_key.revoke",
            AuditEntry.target_id == key.id,
        )
        .order_by(AuditEntry.id.desc())
        .limit(1)
    )
    entry = session.scalars(told).one_or_none()
    by = "" if entry is None else entry.actor_name or entry.actor_id
    by_owner = entry is not None and (entry.actor_kind, entry.actor_id) == ("user", user.id)
    return Revoked(key.id, user.id, user.name, home.id, home.name, key.revoked_ms or 0, by, by_owner)


def may_reopen(revoked: Revoked, access: Access, *, within: str) -> bool:
    """Who ended their own chat opens it again; what somebody else ended takes a manager of the workspace's keys."""
    own = revoked.by_owner and revoked.user == access.user
    return own or access.may(Permission.KEYS_MANAGE, within, revoked.workspace)


def reopen_console_key(
    session: Session, key_id: str, *, within: str, access: Access, actor: Actor, clock: Clock
) -> Revoked:
    """The revoked key stays so; the next turn makes another. Raises PlatformError: NOT_FOUND, NOT_ALLOWED."""
    revoked = revoked_console_key(session, key_id, within=within)
    if not may_reopen(revoked, access, within=within):
        access.require(Permission.KEYS_MANAGE, within, revoked.workspace)
    session.delete(session.get_one(ConsoleKey, (revoked.user, revoked.workspace)))
    session.flush()
    after = {"workspace": revoked.workspace, "user": revoked.user}
    _record(session, actor, "chat.reopen", key_id, within, clock.now_ms(), after)
    return revoked


def _record(
    session: Session,
    actor: Actor,
    action: str,
    key_id: str,
    organisation: str,
    now_ms: int,
    after: Mapping[str, object],
) -> None:
    target = Target("api_key", key_id)
    record(session, actor, action, target, organisation=organisation, now_ms=now_ms, after=after)
