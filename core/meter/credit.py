"""Credit in Redis: what billing gives to a cell, so that no admission asks SQL, and takes back when it lies idle.

SQL is the only truth. A gift is held in SQL first and then given here; what is taken back leaves here first. Both carry
an id that both sides remember, so that either may be repeated. An epoch is one unbroken life of Redis: after a restart,
a fail-over or a wipe nothing is admitted until billing has opened the next one, which begins without credit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from core.queue.rules import Rule, RuleState, Window


@dataclass(frozen=True, slots=True)
class Epoch:
    """`number` 0: none was ever opened. Not open: this Redis is not the one that the number was opened on."""

    number: int
    is_open: bool


@dataclass(frozen=True, slots=True)
class Level:
    """An organisation's credit in the current epoch, nano-units: free to admit from, and in open reservations."""

    epoch: int
    available_nano: int
    reserved_nano: int


@dataclass(frozen=True, slots=True)
class Hunger:
    """A running request wanted this much more and was refused; billing may give, the worker asks again."""

    organisation: str
    needed_nano: int


class CreditStore(Protocol):
    async def epoch(self) -> Epoch: ...

    async def open_epoch(self, number: int) -> bool:
        """Begin it if its number is above the one known here; all credit and calendar counters start empty. True if
        this number is now the open one, also when somebody else was quicker with the same number.
        """

    async def give(self, transfer_id: str, organisation: str, epoch: int, amount_nano: int) -> bool:
        """Once for each transfer_id. False: that epoch is not the open one, and nothing was given."""

    async def take_back(self, transfer_id: str, organisation: str, epoch: int, amount_nano_max: int) -> int:
        """Take up to so much of what is free; answers how much, for a repeated transfer_id the same again. 0 if the
        epoch is not the open one.
        """

    async def level(self, organisation: str) -> Level: ...

    async def hungry(self, wait_s: float) -> list[Hunger]:
        """Who ran dry in mid-stream since the last call; waits up to wait_s for the first. Each is told once."""


class CounterStore(Protocol):
    """The counters behind rules."""

    async def seed(self, rule: Rule, window: Window, used: int) -> None:
        """What SQL knows to be used in this window (tokens or nano-units), unless it is counted here already."""

    async def states(self, rules: Sequence[Rule]) -> list[RuleState]:
        """How every rule stands, without a request. A calendar rule not counted yet stands as unused."""
