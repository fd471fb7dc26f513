"""What workspaces and keys are called, for reports that know their ids."""

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.accounts.models import ApiKey, Workspace

IDS_AT_ONCE = 500


def workspace_names(session: Session, organisation: str) -> dict[str, str]:
    """By id, in the order of their names; archived ones too, since their usage stays."""
    query = select(Workspace.id, Workspace.name).where(Workspace.organisation_id == organisation)
    return {row.id: row.name for row in session.execute(query.order_by(Workspace.name))}


def key_names(session: Session, organisation: str, ids: Collection[str]) -> dict[str, str]:
    """By id, of the keys of this organisation; the others are left out."""
    wanted, found = sorted(ids), dict[str, str]()
    for at in range(0, len(wanted), IDS_AT_ONCE):
        found |= _names(session, organisation, wanted[at : at + IDS_AT_ONCE])
    return found


def first_keys(session: Session, organisation: str, workspaces: Collection[str] | None, count: int) -> dict[str, str]:
    """Names by id of at most `count` keys in these workspaces (None: all), by name."""
    query = select(ApiKey.id, ApiKey.name).join(Workspace, Workspace.id == ApiKey.workspace_id)
    query = query.where(Workspace.organisation_id == organisation)
    if workspaces is not None:
        query = query.where(Workspace.id.in_(sorted(workspaces)))
    return {row.id: row.name for row in session.execute(query.order_by(ApiKey.name, ApiKey.id).limit(count))}


def _names(session: Session, organisation: str, ids: Collection[str]) -> dict[str, str]:
    query = select(ApiKey.id, ApiKey.name).join(Workspace, Workspace.id == ApiKey.workspace_id)
    query = query.where(Workspace.organisation_id == organisation, ApiKey.id.in_(ids))
    return {row.id: row.name for row in session.execute(query)}
