"""What can be done with keys: the same functions behind the command line and the admin API.

Each takes the session of a unit of work and never commits. Errors are PlatformErrors with a sentence for the caller.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretStr
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from billing.models import UsageRecord
from core.clock import Clock
from core.errors import NOT_FOUND, VALIDATION, PlatformError
from core.ids import IdSource
from gateway.accounts.keys import Pepper, generate_key
from gateway.accounts.models import NAME_LENGTH_MAX, ApiKey, Organisation, Workspace

INFERENCE = "inference"


@dataclass(frozen=True, slots=True)
class NewKey:
    """`key` is shown once and kept nowhere."""

    id: str
    key: SecretStr
    name: str
    workspace: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as lists show it. `last_used_ms` is the admission of its youngest usage record."""

    id: str
    name: str
    hint: str
    workspace: str
    organisation: str
    scopes: tuple[str, ...]
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None
    last_used_ms: int | None


@dataclass(frozen=True, slots=True)
class Revoked:
    """Once the unit of work is over, `generation` is to be published: `QueueKeeper.set_generation`."""

    key_id: str
    organisation: str
    generation: int
    revoked_ms: int


def find_workspace(session: Session, name_or_id: str) -> Workspace:
    found = session.scalars(
        select(Workspace).where((Workspace.id == name_or_id) | (Workspace.name == name_or_id)).limit(2)
    ).all()
    if not found:
        raise PlatformError(NOT_FOUND, f"There is no workspace {name_or_id!r}.")
    if len(found) > 1:
        raise PlatformError(VALIDATION, f"Several organisations have a workspace {name_or_id!r}; give its id.")
    return found[0]


def create_key(
    session: Session,
    workspace: str,
    name: str,
    *,
    pepper: Pepper,
    clock: Clock,
    ids: IdSource,
    scopes: Sequence[str] = (INFERENCE,),
    expires_ms: int | None = None,
) -> NewKey:
    """Make a key in the workspace with this name or id."""
    if not name.strip() or len(name) > NAME_LENGTH_MAX or not name.isprintable():
        raise PlatformError(VALIDATION, f"A key's name has 1 to {NAME_LENGTH_MAX} printable characters.", param="name")
    created_ms = clock.now_ms()
    if expires_ms is not None and expires_ms <= created_ms:
        raise PlatformError(VALIDATION, "A new key expires in the future.", param="expires_ms")
    home = find_workspace(session, workspace)
    generated = generate_key(ids)
    session.add(
        ApiKey(
            id=generated.id,
            workspace_id=home.id,
            name=name,
            digest=pepper.digest(generated.key.get_secret_value()),
            hint=generated.hint,
            scopes=sorted(set(scopes)),
            created_ms=created_ms,
            expires_ms=expires_ms,
            revoked_ms=None,
        )
    )
    session.flush()
    return NewKey(generated.id, generated.key, name, home.name, created_ms)


def list_keys(session: Session, workspace: str | None = None) -> list[KeyRow]:
    """Keys of one workspace or of all, oldest first, revoked ones too."""
    last_used = (
        select(func.max(UsageRecord.admitted_ms)).where(UsageRecord.key_id == ApiKey.id).correlate(ApiKey)
    ).scalar_subquery()
    query = (
        select(ApiKey, Workspace.name, Organisation.name, last_used)
        .join(Workspace, Workspace.id == ApiKey.workspace_id)
        .join(Organisation, Organisation.id == Workspace.organisation_id)
        .order_by(ApiKey.created_ms, ApiKey.id)
    )
    if workspace is not None:
        query = query.where(ApiKey.workspace_id == find_workspace(session, workspace).id)
    return [
        KeyRow(
            id=key.id,
            name=key.name,
            hint=key.hint,
            workspace=workspace_name,
            organisation=organisation_name,
            scopes=tuple(key.scopes),
            created_ms=key.created_ms,
            expires_ms=key.expires_ms,
            revoked_ms=key.revoked_ms,
            last_used_ms=last_used_ms,
        )
        for key, workspace_name, organisation_name, last_used_ms in session.execute(query)
    ]


def revoke_key(session: Session, key_id: str, *, clock: Clock) -> Revoked:
    """End a key for good; a second call changes nothing but still answers the generation to publish."""
    key = session.get(ApiKey, key_id)
    if key is None:
        raise PlatformError(NOT_FOUND, f"There is no key {key_id!r}.")
    organisation_id = session.scalars(select(Workspace.organisation_id).where(Workspace.id == key.workspace_id)).one()
    if key.revoked_ms is None:
        key.revoked_ms = clock.now_ms()
        raise_generation(session, organisation_id)
    generation = session.scalars(select(Organisation.generation).where(Organisation.id == organisation_id)).one()
    return Revoked(key.id, organisation_id, generation, key.revoked_ms)


def raise_generation(session: Session, organisation_id: str) -> None:
    """Counted by the database, so that two changes at once raise it twice."""
    session.execute(
        update(Organisation)
        .where(Organisation.id == organisation_id)
        .values(generation=Organisation.generation + 1)
        .execution_options(synchronize_session=False)
    )
