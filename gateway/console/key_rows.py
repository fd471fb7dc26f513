"""Keys as pages show them: how each stands, whose it is, what bounds it."""

from collections.abc import Collection, Mapping
from enum import StrEnum

from sqlalchemy.orm import Session

from gateway.accounts.api_keys import KeyRow
from gateway.accounts.keys import PREFIX
from gateway.accounts.memberships import KeyOwner, key_owners
from gateway.accounts.models import Workspace
from gateway.accounts.workspaces import list_workspaces
from gateway.console.key_forms import may_change_key
from gateway.console.table import Column, Row
from gateway.console.visitor import Place

DAY_MS = 86_400_000
EXPIRING_MS = 7 * DAY_MS
WORKSPACES_MAX = 1_000


class KeyState(StrEnum):
    ACTIVE = "active"
    ROTATING = "rotating"
    EXPIRING = "expiring"
    EXPIRED = "expired"
    ARCHIVED = "workspace archived"
    REVOKED = "revoked"


NOT_VALID = frozenset({KeyState.EXPIRED, KeyState.ARCHIVED, KeyState.REVOKED})
COLUMNS = (
    Column("name", "Name", "cell", lambda row: f"{row['name']} {row['hidden']}"),
    Column("state", "State", "cell", lambda row: row["state"].value),
    Column("workspace", "Workspace"),
    Column("owner", "Owner", "cell", lambda row: row["owner"]),
    Column("scopes", "May", "cell", lambda row: f"{' '.join(row['scopes'])} {row['bounds']}"),
    Column("expires_ms", "Expires", "cell"),
    Column("last_used_ms", "Last used", "cell"),
    Column("created_ms", "Created", "cell"),
)
FILE_COLUMNS = (
    Column("id", "Id"),
    Column("name", "Name"),
    Column("state", "State", value=lambda row: row["state"].value),
    Column("hidden", "Key"),
    Column("workspace", "Workspace"),
    Column("owner", "Owner"),
    Column("scopes", "Scopes"),
    Column("tiers", "Tiers"),
    Column("networks", "Networks"),
    Column("expires_ms", "Expires"),
    Column("last_used_ms", "Last used"),
    Column("created_ms", "Created"),
    Column("created_by", "Created by"),
    Column("revoked_ms", "Revoked"),
)


def key_state(key: KeyRow, archived: Collection[str], now_ms: int) -> KeyState:
    """`archived`: the ids of workspaces whose keys are not valid any more."""
    if key.revoked_ms is not None:
        return KeyState.REVOKED
    if key.expires_ms is not None and key.expires_ms <= now_ms:
        return KeyState.EXPIRED
    if key.workspace_id in archived:
        return KeyState.ARCHIVED
    if key.overlap_ms is not None and key.overlap_ms > now_ms:
        return KeyState.ROTATING
    if key.expires_ms is not None and key.expires_ms - now_ms < EXPIRING_MS:
        return KeyState.EXPIRING
    return KeyState.ACTIVE


def workspaces_of(session: Session, place: Place) -> list[Workspace]:
    return list_workspaces(session, within=place.id, count=WORKSPACES_MAX)


def owners_of(session: Session, place: Place, keys: Collection[KeyRow]) -> dict[str, KeyOwner]:
    return key_owners(session, place.id, {key.owner for key in keys if key.owner is not None})


def key_row(key: KeyRow, place: Place, owners: Mapping[str, KeyOwner], archived: Collection[str], now_ms: int) -> Row:
    owner = None if key.owner is None else owners.get(key.owner)
    bounds = [*(key.tiers or ()), *key.networks]
    return {
        "id": key.id,
        "name": key.name,
        "hidden": f"{PREFIX}_{key.id}_…{key.hint}" if key.hint else "",
        "state": key_state(key, archived, now_ms),
        "workspace": key.workspace,
        "workspace_id": key.workspace_id,
        "owner": "" if owner is None else owner.name,
        "service": owner is not None and owner.is_service,
        "mine": key.owner == place.visitor.signed_in.user,
        "scopes": key.scopes,
        "tiers": key.tiers,
        "networks": key.networks,
        "bounds": " ".join(bounds),
        "expires_ms": key.expires_ms,
        "last_used_ms": key.last_used_ms,
        "created_ms": key.created_ms,
        "created_by": key.created_by,
        "revoked_ms": key.revoked_ms,
        "overlap_ms": key.overlap_ms,
        "changes": may_change_key(place, key),
    }
