"""The broker's credit and counters as billing sees them."""

from collections.abc import Sequence

from core.clock import Clock
from core.meter.credit import Epoch, Hunger, Level
from core.queue.memory.broker import MemoryBroker
from core.queue.rules import Rule, RuleState, Window


class MemoryCreditStore:
    def __init__(self, broker: MemoryBroker) -> None:
        self._reservations = broker.reservations
        self._credit = broker.reservations.credit

    async def epoch(self) -> Epoch:
        return self._credit.epoch()

    async def open_epoch(self, number: int) -> bool:
        return self._reservations.open_epoch(number)

    async def give(self, transfer_id: str, organisation: str, epoch: int, amount_nano: int) -> bool:
        return self._credit.give(transfer_id, organisation, epoch, amount_nano)

    async def take_back(self, transfer_id: str, organisation: str, epoch: int, amount_nano_max: int) -> int:
        return self._credit.take_back(transfer_id, organisation, epoch, amount_nano_max)

    async def level(self, organisation: str) -> Level:
        return self._credit.level(organisation)

    async def hungry(self, wait_s: float) -> list[Hunger]:
        told = self._credit.hungry()
        if not told:
            await self._credit.hungry_bell.wait(wait_s)
            told = self._credit.hungry()
        return told


class MemoryCounterStore:
    def __init__(self, broker: MemoryBroker, clock: Clock) -> None:
        self._limits = broker.reservations.limits
        self._credit = broker.reservations.credit
        self._clock = clock

    async def seed(self, rule: Rule, window: Window, used: int) -> None:
        if self._credit.number:
            self._limits.seed(rule, window, used)

    async def states(self, rules: Sequence[Rule]) -> list[RuleState]:
        return list(self._limits.states(rules, self._clock.now_ms()))
