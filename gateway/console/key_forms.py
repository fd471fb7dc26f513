"""What the forms of keys say, and who may make which key."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field

from core.errors import NOT_ALLOWED, PlatformError
from core.queue.rules import RuleKind
from gateway.accounts.api_keys import OVERLAP_S_MAX, KeyRow
from gateway.accounts.limits import LimitTerms
from gateway.accounts.models import NAME_LENGTH_MAX
from gateway.accounts.roles import Permission
from gateway.accounts.scopes import ADMIN_READ, ADMIN_WRITE, ADMINISTRATION, INFERENCE, OPERATOR, USAGE_READ
from gateway.accounts.terms import NETWORKS_MAX, KeyTerms
from gateway.console.entrance import Fields
from gateway.console.limit_forms import VALUE_CHARS_MAX, limit_value
from gateway.console.visitor import Place
from gateway.schemas.admin.keys import SCOPES_MAX, TIERS_MAX, Day

MS_PER_S = 1_000
NETWORK_CHARS_MAX = 64
MINE, NOBODY = "me", "nobody"
OWN_LIMITS = (
    ("requests_per_minute", RuleKind.REQUESTS_PER_MINUTE),
    ("tokens_per_minute", RuleKind.TOKENS_PER_MINUTE),
    ("spend_per_day", RuleKind.SPEND_PER_DAY),
    ("spend_per_month", RuleKind.SPEND_PER_MONTH),
)
SCOPE_HINTS = {
    INFERENCE: "Chat, fill-in-the-middle, embeddings. Each request is paid for by the organisation.",
    USAGE_READ: "What the key's workspace used, and what it cost.",
    ADMIN_READ: "See the organisation over the admin API: members, keys, limits, bills, audit log.",
    ADMIN_WRITE: "Change all of that as an administrator, keys included.",
    OPERATOR: "Everything, in every organisation of this installation.",
}


def _many(value: object) -> object:
    """A field that came once."""
    return (value,) if isinstance(value, str) else value


Many = Annotated[tuple[Annotated[str, Field(max_length=64)], ...], BeforeValidator(_many)]
LimitText = Annotated[str, Field(default="", max_length=VALUE_CHARS_MAX)]


class KeyForm(Fields):
    """`tiers` empty: all. `networks`: one in each line. `expires_on`: the last day, in the organisation's time zone."""

    name: str = Field(max_length=NAME_LENGTH_MAX)
    scopes: Many = Field(default=(), max_length=SCOPES_MAX)
    tiers: Many = Field(default=(), max_length=TIERS_MAX)
    networks: str = Field(default="", max_length=NETWORKS_MAX * NETWORK_CHARS_MAX)
    expires_on: Day | None = None

    def terms(self, zone: str, kept_ms: int | None = None) -> KeyTerms:
        """`kept_ms`: when the key expires so far; the same day again does not move it."""
        expires_ms = None if self.expires_on is None else _ends_ms(self.expires_on, zone)
        if kept_ms is not None and self.expires_on == last_day(kept_ms, zone):
            expires_ms = kept_ms
        networks = tuple(self.networks.replace(",", " ").split())
        return KeyTerms(self.name, self.scopes, self.tiers or None, networks, expires_ms)


class KeyCreation(KeyForm):
    """`owner`: me, nobody, or the id of a service account. Its own limits are written as in `limit_forms`."""

    workspace: str = Field(max_length=128)
    owner: str = Field(default=MINE, max_length=64)
    requests_per_minute: LimitText = ""
    tokens_per_minute: LimitText = ""
    spend_per_day: LimitText = ""
    spend_per_month: LimitText = ""

    def limits(self) -> list[LimitTerms]:
        said = [(name, kind, getattr(self, name)) for name, kind in OWN_LIMITS]
        return [LimitTerms(kind, limit_value(kind, text, name)) for name, kind, text in said if text]


class RotationForm(Fields):
    overlap_s: int = Field(ge=0, le=OVERLAP_S_MAX)


def last_day(expires_ms: int | None, zone: str) -> date | None:
    """On which a key is still valid."""
    if expires_ms is None:
        return None
    return datetime.fromtimestamp((expires_ms - 1) / MS_PER_S, UTC).astimezone(ZoneInfo(zone)).date()


def _ends_ms(day: date, zone: str) -> int:
    following = datetime.combine(day + timedelta(days=1), time(), ZoneInfo(zone))
    return round(following.timestamp()) * MS_PER_S


def is_member(place: Place) -> bool:
    """Not only an operator who looks in."""
    access = place.visitor.access
    return place.id in access.roles or any(each.organisation == place.id for each in access.workspace_roles.values())


def may_change_key(place: Place, key: KeyRow) -> bool:
    """One's own, or everybody's."""
    if place.may(Permission.KEYS_MANAGE, key.workspace_id):
        return True
    return key.owner == place.visitor.signed_in.user and place.may(Permission.KEYS_CREATE, key.workspace_id)


def require_change(place: Place, key: KeyRow) -> None:
    """Raises PlatformError (NOT_ALLOWED)."""
    if not may_change_key(place, key):
        raise PlatformError(NOT_ALLOWED, "This key is somebody else's: its owner or an administrator can change it.")


def scopes_to_give(place: Place) -> list[str]:
    """A key that administers may as much as an administrator of the organisation: nobody else makes one."""
    offered = [INFERENCE, USAGE_READ]
    if place.may(Permission.ORGANISATION_MANAGE):
        offered += [ADMIN_READ, ADMIN_WRITE]
    if place.visitor.access.operator:
        offered.append(OPERATOR)
    return offered


def require_scopes(place: Place, scopes: tuple[str, ...]) -> None:
    """For whoever is shown a secret with them, or adds them. Raises PlatformError (NOT_ALLOWED)."""
    offered = scopes_to_give(place)
    for scope in scopes:
        if scope not in offered and scope in ADMINISTRATION:
            message = f"Only {'operators' if scope == OPERATOR else 'administrators'} give keys the scope {scope}."
            raise PlatformError(NOT_ALLOWED, message, param="scopes")
