"""API keys as /v1/admin shows and takes them: Mistral's names where it has them, ours beside."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from gateway.accounts.api_keys import OVERLAP_S_MAX, KeyRow, NewKey
from gateway.accounts.keys import PREFIX
from gateway.accounts.terms import NETWORKS_MAX
from gateway.schemas.admin.fields import YEARS, Id, Moment, Name, iso, iso_or_none, to_ms
from gateway.schemas.parsing import Strict

SCOPES_MAX = 16
TIERS_MAX = 1_000


def _day_bounded(day: date) -> date:
    if day.year not in YEARS:
        raise ValueError(f"a year from {YEARS[0]} to {YEARS[-1]}")
    return day


Day = Annotated[date, AfterValidator(_day_bounded)]
Expiration = Annotated[
    Moment | Day | None,
    Field(description="With its zone, or a date: valid to the end of that day, UTC. null: for ever."),
]
Scopes = Annotated[
    tuple[Annotated[str, Field(max_length=32)], ...],
    Field(
        min_length=1,
        max_length=SCOPES_MAX,
        description="inference, usage:read, admin:read, admin:write, operator. A key that administers cannot infer.",
    ),
]
Tiers = Annotated[
    tuple[Annotated[str, Field(max_length=64)], ...] | None,
    Field(max_length=TIERS_MAX, description="Only these, by their own names. null: all."),
]
Networks = Annotated[
    tuple[Annotated[str, Field(max_length=64)], ...],
    Field(max_length=NETWORKS_MAX, description="Only from these, such as 10.0.0.0/8. Empty: from anywhere."),
]


class KeyCreation(Strict):
    name: Name | None = Field(
        default=None, description="Another valid key of the workspace must not have it. Absent: unnamed."
    )
    workspace_uuid: Id | None = Field(default=None, description="Absent: the organisation's default workspace.")
    user_id: Id | None = Field(default=None, description="Who owns it: a member or service account. Absent: nobody.")
    expiration: Expiration = None
    scopes: Scopes | None = Field(default=None, description="Absent: inference and usage:read.")
    tiers: Tiers = None
    networks: Networks = ()


class KeyUpdate(Strict):
    """What is absent stays as it is."""

    name: Name | None = None
    expiration: Expiration = None
    scopes: Scopes | None = None
    tiers: Tiers = None
    networks: Networks | None = None


class KeyRotation(Strict):
    overlap_s: int = Field(
        default=86_400, ge=0, le=OVERLAP_S_MAX, description="How long the secret before stays valid."
    )


class KeyShown(BaseModel):
    key_id: str
    name: str
    hidden_key: str = Field(description="The public part and the last characters.")
    created_at: str
    expiration_date: str | None
    workspace_id: str
    workspace_name: str
    organisation_id: str
    created_by: str
    user_id: str | None
    product: Literal["API"] = "API"
    last_used: str | None
    can_delete: bool = Field(description="false: it is revoked.")
    revoked_at: str | None
    overlap_until: str | None = Field(description="Until then the secret before the last rotation is valid.")
    scopes: list[str]
    tiers: list[str] | None
    networks: list[str]


class KeyCreated(KeyShown):
    key: str = Field(description="Shown only now.")


class KeyList(BaseModel):
    keys: list[KeyShown]


def shown(row: KeyRow) -> KeyShown:
    return KeyShown(**_fields(row))


def created(row: KeyRow, made: NewKey) -> KeyCreated:
    return KeyCreated(key=made.key.get_secret_value(), **_fields(row))


def expires_ms(expiration: datetime | date | None) -> int | None:
    if expiration is None:
        return None
    if isinstance(expiration, datetime):
        return to_ms(expiration)
    return to_ms(datetime.combine(expiration, time(), UTC) + timedelta(days=1))


def _fields(row: KeyRow) -> dict[str, object]:
    return {
        "key_id": row.id,
        "name": row.name,
        "hidden_key": f"{PREFIX}_{row.id}_****{row.hint}",
        "created_at": iso(row.created_ms),
        "expiration_date": iso_or_none(row.expires_ms),
        "workspace_id": row.workspace_id,
        "workspace_name": row.workspace,
        "organisation_id": row.organisation_id,
        "created_by": row.created_by,
        "user_id": row.owner,
        "last_used": iso_or_none(row.last_used_ms),
        "can_delete": row.revoked_ms is None,
        "revoked_at": iso_or_none(row.revoked_ms),
        "overlap_until": iso_or_none(row.overlap_ms),
        "scopes": list(row.scopes),
        "tiers": None if row.tiers is None else list(row.tiers),
        "networks": list(row.networks),
    }
