"""Usage events: what settling a request leaves behind for billing, exactly one for each request."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """Billed tokens and money of one settled request. `decoded_tokens` is what was computed, billed or not; times are
    Redis TIME in ms; `taken_ms` and `first_token_ms` (from the take) are 0 if it never came so far. `epoch` is the one
    whose credit was reserved.
    """

    request_id: str
    organisation: str
    workspace: str
    key_id: str
    tier: str
    kind: str
    outcome: str
    attempt: int
    streamed: bool
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    decoded_tokens: int
    cost_nano: int
    price_version: str
    admitted_ms: int
    taken_ms: int
    first_token_ms: int
    settled_ms: int
    epoch: int = 0


class UsageSource(Protocol):
    """At least once, in order: what is not acknowledged comes again after a restart of the reader."""

    async def read(self, count: int, wait_s: float) -> list[tuple[str, UsageEvent]]: ...

    async def acknowledge(self, event_ids: Sequence[str]) -> None: ...

    async def backlog(self) -> int:
        """Events not yet acknowledged."""
