"""Where a thing is, by its id, for those to whom it exists."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import CONFLICT, NOT_FOUND, PlatformError
from gateway.accounts.api_keys import KeyRow, list_keys
from gateway.accounts.models import ApiKey, Organisation, Workspace


def organisation_by_id(session: Session, organisation_id: str) -> Organisation:
    """Raises PlatformError (NOT_FOUND)."""
    found = session.get(Organisation, organisation_id)
    if found is None:
        raise PlatformError(NOT_FOUND, f"There is no organisation {organisation_id!r}.")
    return found


def workspace_by_id(session: Session, workspace_id: str, within: str | None, *, lock: bool = False) -> Workspace:
    """Raises PlatformError (NOT_FOUND), also for one that lies outside."""
    found = session.get(Workspace, workspace_id, with_for_update=lock)
    if found is None or within not in {None, found.organisation_id}:
        raise PlatformError(NOT_FOUND, f"There is no workspace {workspace_id!r}.")
    return found


def key_by_id(session: Session, key_id: str, within: str | None) -> KeyRow:
    """Raises PlatformError (NOT_FOUND), also for one that lies outside."""
    found = list_keys(session, within=within, key_id=key_id, count=1)
    if not found:
        raise PlatformError(NOT_FOUND, f"There is no key {key_id!r}.")
    return found[0]


def refuse_second_name(session: Session, workspace_id: str, name: str, now_ms: int) -> None:
    """A creation whose answer was lost and that is sent again must not leave a second key behind. The caller has locked
    the workspace. Raises PlatformError (CONFLICT).
    """
    valid = (ApiKey.revoked_ms.is_(None), ApiKey.expires_ms.is_(None) | (ApiKey.expires_ms > now_ms))
    query = select(ApiKey.id).where(ApiKey.workspace_id == workspace_id, ApiKey.name == name, *valid).limit(1)
    found = session.scalars(query).first()
    if found is not None:
        message = f"The key {found} of this workspace has this name: rotate it to see a new secret, or revoke it."
        raise PlatformError(CONFLICT, message, param="name")
