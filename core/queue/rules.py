"""Limits as admission evaluates them: what is counted, for whom, over which time."""

from dataclasses import dataclass
from enum import StrEnum


class RuleKind(StrEnum):
    REQUESTS_PER_SECOND = "requests_per_second"  # sliding window of 1 s
    REQUESTS_PER_MINUTE = "requests_per_minute"  # sliding window of 60 s
    TOKENS_PER_MINUTE = "tokens_per_minute"  # bucket that refills evenly and may go below zero
    TOKENS_PER_MONTH = "tokens_per_month"  # calendar month of the organisation
    CONCURRENCY = "concurrency"  # open records
    SPEND_PER_DAY = "spend_per_day"  # nano-units in a calendar day of the organisation
    SPEND_PER_MONTH = "spend_per_month"  # nano-units in a calendar month of the organisation


CALENDAR = frozenset({RuleKind.TOKENS_PER_MONTH, RuleKind.SPEND_PER_DAY, RuleKind.SPEND_PER_MONTH})


@dataclass(frozen=True, slots=True)
class Window:
    """A calendar window in the organisation's time zone: `id` is 2026-11 or 2026-11-22; from start_ms up to end_ms."""

    id: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit to check and reserve. `scope` is organisation, workspace or key; `tier` narrows it to one tier.

    Calendar kinds carry the current window and the next: scripts know no time zones and pick by their own clock.
    A soft rule (`hard` False) refuses nothing; its state tells how far it is.
    """

    kind: RuleKind
    scope: str
    scope_id: str
    limit: int
    tier: str = ""
    hard: bool = True
    windows: tuple[Window, ...] = ()

    @property
    def counter(self) -> str:
        """What is counted for: rules of one kind with the same counter share what was used."""
        return f"{self.scope}:{self.scope_id}:{self.tier}" if self.tier else f"{self.scope}:{self.scope_id}"


@dataclass(frozen=True, slots=True)
class RuleState:
    """A rule at some moment. `remaining` of a soft rule or a token bucket may be below zero; `reset_ms`: until it is
    full again, for a calendar rule until its window ends.
    """

    rule: Rule
    remaining: int
    reset_ms: int
