"""Credit and counters over Redis: each promise of `credit.py` is one Lua script of `core/meter/scripts`."""

from collections.abc import Sequence
from typing import Any

import msgpack
from redis.asyncio import Redis

from core.clock import Clock
from core.meter.cell import Cell
from core.meter.credit import Epoch, Hunger, Level
from core.queue.rules import Rule, RuleKind, RuleState, Window
from core.redis import BLOCK_S_MAX, CALL_S, Calls, Script, run_id

OPEN_EPOCH = Script("open_epoch", "shared")
TRANSFER = Script("transfer", "shared")
LEVEL = Script("level", "shared")
HUNGRY = Script("hungry", "shared")
SEED = Script("seed", "shared", "rules")
STATES = Script("states", "shared", "rules", "windows")

# Lua counts exactly up to 2**53: an organisation's credit in one cell cannot be more.
AMOUNT_NANO_MAX = 2**52


class RedisCreditStore:
    def __init__(self, client: Redis, cell: str, clock: Clock | None = None) -> None:
        self._cell = Cell(client, cell, clock)
        self._waiting = Calls(client, BLOCK_S_MAX + CALL_S)

    async def epoch(self) -> Epoch:
        number, is_open = await self._cell.calls.command("HMGET", f"{self._cell.key}:epoch", "number", "open")
        return Epoch(int(number or 0), is_open == b"1")

    async def open_epoch(self, number: int) -> bool:
        return bool(await self._cell.run(OPEN_EPOCH, number, run_id(await self._cell.calls.command("INFO", "server"))))

    async def give(self, transfer_id: str, organisation: str, epoch: int, amount_nano: int) -> bool:
        """Raises ValueError for an amount that is not above 0 and within AMOUNT_NANO_MAX; ResponseError if it adds
        up to more than 2**53.
        """
        accepted, _ = await self._transfer(transfer_id, organisation, epoch, _amount(amount_nano))
        return bool(accepted)

    async def take_back(self, transfer_id: str, organisation: str, epoch: int, amount_nano_max: int) -> int:
        """Raises ValueError for an amount that is not above 0 and within AMOUNT_NANO_MAX."""
        _, moved = await self._transfer(transfer_id, organisation, epoch, -_amount(amount_nano_max))
        return moved

    async def level(self, organisation: str) -> Level:
        return Level(*await self._cell.run(LEVEL, organisation))

    async def hungry(self, wait_s: float) -> list[Hunger]:
        """One caller per process. Waits BLOCK_S_MAX at most."""
        if wait_s > 0:
            await self._waiting.command("BLPOP", f"{self._cell.key}:hbell", min(wait_s, BLOCK_S_MAX))
        flat = await self._cell.run(HUNGRY)
        return [Hunger(name.decode(), int(needed)) for name, needed in zip(flat[::2], flat[1::2], strict=True)]

    async def close(self) -> None:
        await self._cell.calls.close()
        await self._waiting.close()

    async def _transfer(self, transfer_id: str, organisation: str, epoch: int, amount_nano: int) -> tuple[int, int]:
        accepted, moved = await self._cell.run(TRANSFER, transfer_id, organisation, epoch, amount_nano)
        return accepted, moved


class RedisCounterStore:
    def __init__(self, client: Redis, cell: str, clock: Clock | None = None) -> None:
        self._cell = Cell(client, cell, clock)

    async def seed(self, rule: Rule, window: Window, used: int) -> None:
        await self._cell.run(SEED, _name(rule), window.id, window.end_ms, used)

    async def states(self, rules: Sequence[Rule]) -> list[RuleState]:
        flat = await self._cell.run(STATES, msgpack.packb([packed_rule(rule) for rule in rules]))
        return [_state(*state) for state in zip(rules, flat[::2], flat[1::2], strict=True)]

    async def close(self) -> None:
        await self._cell.calls.close()


def _state(rule: Rule, remaining: int, reset_ms: int) -> RuleState:
    """A hard limit that was lowered has nothing left, and no less; only a bucket may be in debt."""
    in_debt = not rule.hard or rule.kind is RuleKind.TOKENS_PER_MINUTE
    return RuleState(rule, remaining if in_debt else max(0, remaining), reset_ms)


def packed_rule(rule: Rule) -> tuple[Any, ...]:
    """As scripts/rules.lua reads it."""
    plain = (rule.kind.value, _name(rule), rule.limit, rule.hard)
    if not rule.windows:
        return plain
    return plain + tuple([part for window in rule.windows for part in (window.id, window.start_ms, window.end_ms)])


def _name(rule: Rule) -> str:
    return f"{rule.kind.value}:{rule.counter}"


def _amount(nano: int) -> int:
    if not 0 < nano <= AMOUNT_NANO_MAX:
        raise ValueError(f"an amount of credit is above 0 and at most 2**52 nano-units: {nano}")
    return nano
