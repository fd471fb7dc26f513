"""What can be done with keys: the same functions behind the command line and the admin API.

Each takes the session of a unit of work and never commits. `within` is the organisation whose keys the caller may
touch; what lies outside does not exist for him. None: all, for the operator. Errors are PlatformErrors.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from billing.models import KeyLastUsed
from core.clock import Clock
from core.errors import CONFLICT, NOT_FOUND, VALIDATION, PlatformError
from core.ids import IdSource
from gateway.accounts.generations import Change, Generation, generation_of, raise_generation
from gateway.accounts.keys import GeneratedKey, Peppers, generate_key
from gateway.accounts.models import ApiKey, KeySecret, Organisation, Workspace
from gateway.accounts.terms import KeyTerms, columns, terms_of
from gateway.accounts.trail import Actor, Target, record
from gateway.accounts.workspaces import find_workspace

OVERLAP_S_MAX = 30 * 86_400
MS_PER_S = 1_000


@dataclass(frozen=True, slots=True)
class NewKey:
    """`key` is shown once and kept nowhere. `publish`: after the commit, as in `generations.Change`."""

    id: str
    key: SecretStr
    name: str
    workspace: str
    created_ms: int
    publish: tuple[Generation, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as lists show it. `hint` is empty for the key of a chat, which has no secret. `last_used_ms`: when its
    youngest collected request was admitted; `overlap_ms`: until when the secret before the last rotation is valid.
    """

    id: str
    name: str
    hint: str
    workspace_id: str
    workspace: str
    organisation_id: str
    organisation: str
    owner: str | None
    scopes: tuple[str, ...]
    tiers: tuple[str, ...] | None
    networks: tuple[str, ...]
    created_by: str
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None
    last_used_ms: int | None
    overlap_ms: int | None


def create_key(
    session: Session,
    workspace: str,
    terms: KeyTerms,
    *,
    within: str | None,
    actor: Actor,
    peppers: Peppers,
    clock: Clock,
    ids: IdSource,
    known_tiers: Collection[str] = (),
    owner: str | None = None,
) -> NewKey:
    """Make a key in the workspace with this name or id. `known_tiers` is needed if the terms name tiers."""
    now_ms = clock.now_ms()
    values = columns(terms, known_tiers=known_tiers, now_ms=now_ms, within=within)
    home = find_workspace(session, workspace, within=within)
    if home.archived_ms is not None:
        raise PlatformError(CONFLICT, f"The workspace {home.name!r} is archived.")
    made = generate_key(ids)
    session.add(
        ApiKey(
            id=made.id,
            workspace_id=home.id,
            owner=owner,
            created_by=actor.label,
            created_ms=now_ms,
            revoked_ms=None,
            **values,
        )
    )
    session.flush()
    _add_secret(session, made, peppers, now_ms)
    _record(session, actor, "create", made.id, home.organisation_id, now_ms, after={**values, "workspace": home.id})
    return NewKey(made.id, made.key, terms.name, home.name, now_ms)


def rotate_key(
    session: Session,
    key_id: str,
    overlap_s: int,
    *,
    within: str | None,
    actor: Actor,
    peppers: Peppers,
    clock: Clock,
    ids: IdSource,
) -> NewKey:
    """A new secret for the same id; the one before stays valid for so long. There are never more than two: while an
    overlap lasts, only a rotation with overlap 0 is done, which ends both.
    """
    if not 0 <= overlap_s <= OVERLAP_S_MAX:
        raise PlatformError(VALIDATION, f"An overlap lasts 0 to {OVERLAP_S_MAX} s.", param="overlap_s")
    key, home = _find(session, key_id, within, lock=True)
    now_ms = clock.now_ms()
    if key.revoked_ms is not None or (key.expires_ms is not None and key.expires_ms <= now_ms):
        raise PlatformError(CONFLICT, f"The key {key_id!r} is revoked or has expired: make a new one.")
    session.execute(delete(KeySecret).where(KeySecret.key_id == key.id, KeySecret.expires_ms <= now_ms))
    secrets = session.scalars(select(KeySecret).where(KeySecret.key_id == key.id)).all()
    if not secrets:
        raise PlatformError(CONFLICT, "This is the key of a chat in the console: it has no secret to rotate.")
    if len(secrets) > 1 and overlap_s > 0:
        message = "A rotation of this key is under way: wait until its overlap ends, or rotate with overlap 0."
        raise PlatformError(CONFLICT, message)
    for secret in secrets:
        secret.expires_ms = now_ms + overlap_s * MS_PER_S
    made = generate_key(ids, key.id)
    _add_secret(session, made, peppers, now_ms)
    _record(session, actor, "rotate", key.id, home.organisation_id, now_ms, after={"overlap_s": overlap_s})
    publish = (raise_generation(session, home.organisation_id),)
    return NewKey(key.id, made.key, key.name, home.name, now_ms, publish)


def change_key(
    session: Session,
    key_id: str,
    terms: KeyTerms,
    *,
    within: str | None,
    actor: Actor,
    clock: Clock,
    known_tiers: Collection[str] = (),
) -> Change:
    """All its terms at once: take `terms_of` what is and replace what shall change."""
    key, home = _find(session, key_id, within)
    if key.revoked_ms is not None:
        raise PlatformError(CONFLICT, f"The key {key_id!r} is revoked, and stays as it is.")
    before = _columns_of(terms_of(key))
    now_ms = clock.now_ms()
    after = columns(terms, known_tiers=known_tiers, now_ms=now_ms, within=within)
    changed = [name for name in after if after[name] != before[name]]
    for name in changed:
        setattr(key, name, after[name])
    if not changed:
        return Change(key.id, (generation_of(session, home.organisation_id),))
    session.flush()
    _record(
        session,
        actor,
        "change",
        key.id,
        home.organisation_id,
        now_ms,
        before={name: before[name] for name in changed},
        after={name: after[name] for name in changed},
    )
    return Change(key.id, (raise_generation(session, home.organisation_id),))


def revoke_key(session: Session, key_id: str, *, within: str | None, actor: Actor, clock: Clock) -> Change:
    """End a key for good; a second call changes nothing but still answers the generation to publish."""
    key, home = _find(session, key_id, within)
    if key.revoked_ms is not None:
        return Change(key.id, (generation_of(session, home.organisation_id),))
    key.revoked_ms = now_ms = clock.now_ms()
    session.flush()
    _record(session, actor, "revoke", key.id, home.organisation_id, now_ms)
    return Change(key.id, (raise_generation(session, home.organisation_id),))


def find_key(session: Session, key_id: str, *, within: str | None) -> ApiKey:
    """Raises PlatformError (NOT_FOUND)."""
    return _find(session, key_id, within)[0]


def list_keys(
    session: Session,
    *,
    within: str | None,
    workspace: str | None = None,
    name: str | None = None,
    key_id: str | None = None,
    workspaces: Collection[str] | None = None,
    revoked: bool = True,
    youngest_first: bool = False,
    offset: int = 0,
    count: int | None = None,
) -> list[KeyRow]:
    """Keys of one workspace (name or id), of those with the ids `workspaces`, or of all, oldest first, revoked ones
    too unless `revoked` is False; `name`: a part of it; or the one with this id.
    """
    last_used = select(KeyLastUsed.last_used_ms).where(KeyLastUsed.key_id == ApiKey.id)
    hint = select(KeySecret.hint).where(KeySecret.key_id == ApiKey.id, KeySecret.expires_ms.is_(None))
    overlap = select(func.max(KeySecret.expires_ms)).where(KeySecret.key_id == ApiKey.id)
    query = (
        select(
            ApiKey,
            Workspace.name,
            Organisation.id,
            Organisation.name,
            *(part.correlate(ApiKey).scalar_subquery() for part in (hint, last_used, overlap)),
        )
        .join(Workspace, Workspace.id == ApiKey.workspace_id)
        .join(Organisation, Organisation.id == Workspace.organisation_id)
        .order_by(*((ApiKey.created_ms.desc(), ApiKey.id.desc()) if youngest_first else (ApiKey.created_ms, ApiKey.id)))
        .offset(offset)
        .limit(count)
    )
    if within is not None:
        query = query.where(Organisation.id == within)
    if workspaces is not None:
        query = query.where(ApiKey.workspace_id.in_(workspaces))
    if not revoked:
        query = query.where(ApiKey.revoked_ms.is_(None))
    if workspace is not None:
        query = query.where(ApiKey.workspace_id == find_workspace(session, workspace, within=within).id)
    if key_id is not None:
        query = query.where(ApiKey.id == key_id)
    if name is not None:
        query = query.where(ApiKey.name.contains(name, autoescape=True))
    return [_row(*found) for found in session.execute(query)]


def _row(
    key: ApiKey,
    workspace: str,
    organisation_id: str,
    organisation: str,
    hint: str | None,
    last_used_ms: int | None,
    overlap_ms: int | None,
) -> KeyRow:
    return KeyRow(
        id=key.id,
        name=key.name,
        hint=hint or "",
        workspace_id=key.workspace_id,
        workspace=workspace,
        organisation_id=organisation_id,
        organisation=organisation,
        owner=key.owner,
        scopes=tuple(key.scopes),
        tiers=None if key.tiers is None else tuple(key.tiers),
        networks=tuple(key.networks),
        created_by=key.created_by,
        created_ms=key.created_ms,
        expires_ms=key.expires_ms,
        revoked_ms=key.revoked_ms,
        last_used_ms=last_used_ms,
        overlap_ms=overlap_ms,
    )


def _find(session: Session, key_id: str, within: str | None, *, lock: bool = False) -> tuple[ApiKey, Workspace]:
    """`lock`: whoever else locks this key waits until the unit of work is over (SQLite has one writer anyway)."""
    query = select(ApiKey, Workspace).join(Workspace, Workspace.id == ApiKey.workspace_id).where(ApiKey.id == key_id)
    if within is not None:
        query = query.where(Workspace.organisation_id == within)
    if lock:
        query = query.with_for_update(of=ApiKey)
    found = session.execute(query).one_or_none()
    if found is None:
        raise PlatformError(NOT_FOUND, f"There is no key {key_id!r}.")
    return found[0], found[1]


def _columns_of(terms: KeyTerms) -> dict[str, Any]:
    return {
        "name": terms.name,
        "scopes": list(terms.scopes),
        "tiers": None if terms.tiers is None else list(terms.tiers),
        "networks": list(terms.networks),
        "expires_ms": terms.expires_ms,
    }


def _add_secret(session: Session, made: GeneratedKey, peppers: Peppers, now_ms: int) -> None:
    digest = peppers.digest(made.key.get_secret_value())
    session.add(KeySecret(digest=digest, key_id=made.id, hint=made.hint, created_ms=now_ms, expires_ms=None))
    session.flush()


def _record(
    session: Session,
    actor: Actor,
    verb: str,
    key_id: str,
    organisation: str,
    now_ms: int,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    record(
        session,
        actor,
        f"api_key.{verb}",
        Target("api_key", key_id),
        organisation=organisation,
        now_ms=now_ms,
        before=before,
        after=after,
    )
