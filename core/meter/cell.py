"""One cell in Redis: its key, its scripts in batches, and the time that they are told."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from core.clock import Clock
from core.meter.keys import cell_key
from core.redis import Calls, Script

GUARD = Script("guard", "shared")


class Cell:
    """`clock` None: scripts use the time of Redis, as always in production."""

    def __init__(self, client: Redis, cell: str, clock: Clock | None = None) -> None:
        self.client = client
        self.key = cell_key(cell)
        self.calls = Calls(client, guard=(GUARD, self.key))
        self._clock = clock

    async def run(self, script: Script, *arguments: Any) -> Any:
        (answer,) = await self.run_many(script, [arguments])
        return answer

    async def run_many(self, script: Script, many: Sequence[tuple[Any, ...]]) -> list[Any]:
        now = "" if self._clock is None else str(self._clock.now_ms())
        return await self.calls.scripts(script, self.key, [(now, *arguments) for arguments in many])
