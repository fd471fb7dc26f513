"""Who is calling: what a key stands for, as every later step needs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol

from core.queue.base import Price
from core.queue.rules import Rule


@dataclass(frozen=True, slots=True)
class Principal:
    """`generation` is the organisation's number read before the rest was loaded; `weight` its share in the fair
    queue; `rules` are all limits that apply to any tier, in the order in which they are checked; `prices` by tier, the
    version in force and the next; `tiers` None: all; `networks` empty: any address. `lenient` accepts what OpenAI
    clients send. `user_id` is who owns the key, empty for one that the command line made. `expires_ms`: when the key
    ends by itself.
    """

    key_id: str
    workspace: str
    organisation: str
    scopes: frozenset[str]
    generation: int
    weight: int
    rules: tuple[Rule, ...]
    prices: Mapping[str, tuple[Price, ...]]
    tiers: frozenset[str] | None = None
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    lenient: bool = False
    user_id: str = ""
    key_name: str = ""
    expires_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Of a key that may run inference: its organisation's current generation, and when the key ends by itself."""

    generation: int
    expires_ms: int | None = None


class PrincipalSource(Protocol):
    async def by_key(self, secret: str) -> Principal:
        """Raises PlatformError: UNAUTHORIZED for a key that is not valid, UNAVAILABLE when nobody can tell now."""

    def forget(self, secret: str) -> None:
        """Admission called it stale: load it anew at the next call."""

    async def by_id(self, key_id: str) -> Principal:
        """For who was let in without the key's secret, by a session of the console. Raises as `by_key` does."""

    def forget_id(self, key_id: str) -> None:
        """As `forget`, for what `by_id` answered."""

    async def valid(self, key_id: str) -> Standing | None:
        """How this key stands if it may still run inference; None if it is revoked or expired, or its organisation or
        workspace is suspended. Raises PlatformError(UNAVAILABLE) when nobody can tell now.
        """
