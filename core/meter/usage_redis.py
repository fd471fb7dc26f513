"""Usage events out of the cell's stream, by a consumer group: read, written to SQL, then acknowledged and deleted."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import msgpack
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from core.meter.keys import cell_key
from core.meter.usage import UsageEvent
from core.redis import BLOCK_S_MAX

GROUP = "collector"
CLAIM_IDLE_MS = 30_000
FIELDS = len(fields(UsageEvent))


class RedisUsageSource:
    """One consumer of the group. First it gets again what it never acknowledged, and what a silent one left."""

    def __init__(self, client: Redis, cell: str, consumer: str) -> None:
        self._client = client
        self._key = f"{cell_key(cell)}:usage"
        self._consumer = consumer
        self._own_cursor: str | None = "0-0"

    async def read(self, count: int, wait_s: float) -> list[tuple[str, UsageEvent]]:
        try:
            return await self._read(count, wait_s)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await self._client.xgroup_create(self._key, GROUP, id="0-0", mkstream=True)
            return await self._read(count, wait_s)

    async def acknowledge(self, event_ids: Sequence[str]) -> None:
        if not event_ids:
            return
        pipeline = self._client.pipeline(transaction=True)
        pipeline.xack(self._key, GROUP, *event_ids)
        pipeline.xdel(self._key, *event_ids)
        await pipeline.execute()

    async def backlog(self) -> int:
        return int(await self._client.xlen(self._key))

    async def newest(self) -> str | None:
        """The id of the youngest event that is still here; None if all were taken in."""
        found = await self._client.xrevrange(self._key, count=1)
        if not found:
            return None
        event_id = found[0][0]
        assert isinstance(event_id, bytes), "core.redis clients do not decode"
        return event_id.decode()

    async def taken_in(self, event_id: str) -> bool:
        """Whether this event and all before it have been acknowledged."""
        return not await self._client.xrange(self._key, max=event_id, count=1)

    async def _read(self, count: int, wait_s: float) -> list[tuple[str, UsageEvent]]:
        if self._own_cursor is not None:
            entries = await self._entries(self._own_cursor, count, None)
            self._own_cursor = entries[-1][0].decode() if entries else None
            if entries:
                return [_event(entry_id, raw) for entry_id, raw in entries if raw]
        claimed = await self._client.xautoclaim(self._key, GROUP, self._consumer, CLAIM_IDLE_MS, count=count)
        if claimed[1]:
            return [_event(entry_id, raw) for entry_id, raw in claimed[1] if raw]
        block_ms = max(1, round(min(wait_s, BLOCK_S_MAX) * 1000))
        return [_event(entry_id, raw) for entry_id, raw in await self._entries(">", count, block_ms)]

    async def _entries(self, start: str, count: int, block_ms: int | None) -> list[tuple[bytes, dict[bytes, bytes]]]:
        found: Any = await self._client.xreadgroup(
            GROUP, self._consumer, {self._key: start}, count=count, block=block_ms
        )
        if not found:
            return []
        entries: list[tuple[bytes, dict[bytes, bytes]]] = (
            next(iter(found.values()))[0] if isinstance(found, dict) else found[0][1]
        )
        return entries


def usage_event(raw: dict[bytes, bytes]) -> UsageEvent:
    """One msgpack array in the order of UsageEvent: see scripts/settle.lua. A later release may append fields."""
    return UsageEvent(*msgpack.unpackb(raw[b"u"])[:FIELDS])


def _event(entry_id: bytes, raw: dict[bytes, bytes]) -> tuple[str, UsageEvent]:
    return entry_id.decode(), usage_event(raw)
