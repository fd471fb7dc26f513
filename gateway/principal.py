"""Who is calling: what a key stands for, as every later step needs it."""

from dataclasses import dataclass
from typing import Protocol

from core.queue.base import Rule


@dataclass(frozen=True, slots=True)
class Principal:
    """`generation` is the organisation's number read before the rest was loaded; `weight` its share in the fair
    queue; `rules` are all limits that apply, in the order in which they are checked.
    """

    key_id: str
    workspace: str
    organisation: str
    scopes: frozenset[str]
    generation: int
    weight: int
    rules: tuple[Rule, ...]


class PrincipalSource(Protocol):
    async def by_key(self, secret: str) -> Principal:
        """Raises PlatformError: UNAUTHORIZED for a key that is not valid, UNAVAILABLE when nobody can tell now."""

    def forget(self, secret: str) -> None:
        """Admission called it stale: load it anew at the next call."""
