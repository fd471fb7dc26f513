"""What a key is made with, and may be changed to later: its name, what it may do, from where, until when."""

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from core.errors import VALIDATION, PlatformError
from gateway.accounts.models import ApiKey
from gateway.accounts.names import checked_name
from gateway.accounts.scopes import DEFAULT_SCOPES, checked_scopes

NETWORKS_MAX = 64


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """`tiers` None: all. `networks` in CIDR notation, empty: any address. `expires_ms` None: never."""

    name: str
    scopes: tuple[str, ...] = DEFAULT_SCOPES
    tiers: tuple[str, ...] | None = None
    networks: tuple[str, ...] = ()
    expires_ms: int | None = None


def terms_of(key: ApiKey) -> KeyTerms:
    tiers = None if key.tiers is None else tuple(key.tiers)
    return KeyTerms(key.name, tuple(key.scopes), tiers, tuple(key.networks), key.expires_ms)


def columns(terms: KeyTerms, *, known_tiers: Collection[str], now_ms: int, within: str | None) -> dict[str, Any]:
    """Checked, as the row holds them. Raises PlatformError."""
    if terms.expires_ms is not None and terms.expires_ms <= now_ms:
        raise PlatformError(VALIDATION, "A key expires in the future.", param="expires_ms")
    return {
        "name": checked_name(terms.name),
        "scopes": checked_scopes(terms.scopes, within=within),
        "tiers": None if terms.tiers is None else _tiers(terms.tiers, known_tiers),
        "networks": _networks(terms.networks),
        "expires_ms": terms.expires_ms,
    }


def checked_tier(tier: str, known_tiers: Collection[str]) -> str:
    """A tier's own name, no alias; a name that nobody knows would bound nothing."""
    if tier not in known_tiers:
        known = ", ".join(sorted(known_tiers))
        raise PlatformError(VALIDATION, f"There is no tier {tier!r}; there are {known or 'none'}.", param="tier")
    return tier


def _tiers(tiers: tuple[str, ...], known_tiers: Collection[str]) -> list[str]:
    if not tiers:
        raise PlatformError(
            VALIDATION, "A key that may use no tier is of no use: name one, or allow all.", param="tiers"
        )
    return sorted({checked_tier(tier, known_tiers) for tier in tiers})


def _networks(networks: tuple[str, ...]) -> list[str]:
    if len(networks) > NETWORKS_MAX:
        raise PlatformError(VALIDATION, f"A key has at most {NETWORKS_MAX} networks.", param="networks")
    try:
        return sorted({str(ip_network(network.strip())) for network in networks})
    except ValueError as error:
        raise PlatformError(VALIDATION, f"Networks: {error}.", param="networks") from error
