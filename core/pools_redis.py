"""The pools over Redis: an overview is one script, however many tiers and workers there are."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from core.clock import Clock, SystemClock
from core.meter.cell import Cell
from core.pools import LETTERS_READ_MAX, DeadLetter, PoolLine, PoolOverview, WorkerLine, rerun
from core.queue.base import QueueSettings
from core.queue.redis_answers import packed_admission
from core.redis import Script
from core.wire import pack_job, unpack_job

POOLS = Script("pools", "shared")
DRAIN = Script("drain", "shared")
REQUEUE = Script("requeue", "shared")
WORKER_FIELDS = 5


class RedisPools:
    """`clock` None: scripts use the time of Redis."""

    def __init__(self, client: Redis, settings: QueueSettings, clock: Clock | None = None) -> None:
        self._cell = Cell(client, settings.cell, clock)
        self._settings = settings
        self._clock = clock or SystemClock()
        self._dead = f"{self._cell.key}:dead"

    async def overview(self, tiers: Sequence[str]) -> PoolOverview:
        dead, *lines = await self._cell.run(POOLS, *tiers)
        return PoolOverview({tier: _line(tier, line) for tier, line in zip(tiers, lines, strict=True)}, dead)

    async def drain(self, tier: str, worker_id: str = "") -> bool:
        return bool(await self._cell.run(DRAIN, 1, tier, worker_id))

    async def resume(self, tier: str, worker_id: str = "") -> bool:
        return bool(await self._cell.run(DRAIN, 0, tier, worker_id))

    async def dead_letters(self, count: int) -> list[DeadLetter]:
        entries = await self._cell.calls.command(
            "XREVRANGE", self._dead, "+", "-", "COUNT", min(count, LETTERS_READ_MAX)
        )
        return [_letter(entry_id.decode(), _fields(flat)) for entry_id, flat in entries]

    async def requeue(self, letter_id: str, request_id: str) -> bool:
        entries = await self._cell.calls.command("XRANGE", self._dead, letter_id, letter_id)
        packed = _fields(entries[0][1]).get(b"j") if entries else None
        if not packed:
            return False
        admission = rerun(unpack_job(packed), request_id, self._clock.now_ms())
        meta = packed_admission(admission, self._settings.tiers[admission.job.tier])
        return bool(await self._cell.run(REQUEUE, letter_id, meta, pack_job(admission.job)))

    async def drop(self, letter_id: str) -> bool:
        return bool(await self._cell.calls.command("XDEL", self._dead, letter_id))

    async def close(self) -> None:
        await self._cell.calls.close()


def _line(tier: str, line: Sequence[Any]) -> PoolLine:
    drained, queued, running, oldest_wait_ms, expected_wait_ms, flat = line
    workers = [
        WorkerLine(worker_id.decode(), slots, held, left_ms, bool(is_drained))
        for worker_id, slots, held, left_ms, is_drained in zip(*[iter(flat)] * WORKER_FIELDS, strict=True)
    ]
    workers.sort(key=lambda worker: worker.worker_id)
    return PoolLine(tier, bool(drained), queued, running, oldest_wait_ms, expected_wait_ms, tuple(workers))


def _fields(flat: Any) -> dict[bytes, bytes]:
    """Of a stream's entry, in either protocol's shape."""
    return flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))


def _letter(letter_id: str, fields: dict[bytes, bytes]) -> DeadLetter:
    text = {name.decode(): value.decode() for name, value in fields.items() if name != b"j"}
    return DeadLetter(
        letter_id,
        text["request_id"],
        text["tier"],
        text["organisation"],
        text["workspace"],
        int(text["lost_ms"]),
        runnable=bool(fields.get(b"j")),  # a letter of an earlier release has none
    )
