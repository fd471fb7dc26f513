"""Waiting for the collector: everything settled before now is in SQL."""

import asyncio

from core.clock import Clock
from core.meter.usage_redis import RedisUsageSource

CONSUMER = "command-line"  # names nobody: it only looks
LOOK_S = 0.05


async def caught_up(source: RedisUsageSource, clock: Clock, s_max: float) -> bool:
    """Whether it was within s_max. Raises RedisError."""
    until_s = clock.monotonic_s() + s_max
    newest = await source.newest()
    while newest is not None and not await source.taken_in(newest):
        if clock.monotonic_s() > until_s:
            return False
        await asyncio.sleep(LOOK_S)
    return True
