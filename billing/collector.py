"""Usage events out of the cell's stream into SQL, exactly once.

An event comes at least once and is taken in unless its request id is there already; it is acknowledged only after the
commit. So whatever fails in between, and however often, each settled request is one record and is charged once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from redis.exceptions import RedisError
from structlog.stdlib import BoundLogger

from billing.records import store
from core.clock import Clock
from core.db import Database, DatabaseUnavailableError
from core.heartbeat import BEAT_S, Beat, Heartbeat
from core.meter.usage import UsageSource

TROUBLE = (DatabaseUnavailableError, RedisError, OSError)  # what passes by itself

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class CollectorBounds:
    """`batch`: events in one transaction; the pause after a failure doubles from `pause_s` to `pause_s_max`. After a
    transaction that was not full, `linger_s` lets the next one fill: a commit costs more than many rows.
    """

    batch: int = 2_000
    wait_s: float = BEAT_S
    linger_s: float = 0.5
    pause_s: float = 0.1
    pause_s_max: float = 5.0


class Collector:
    def __init__(
        self,
        source: UsageSource,
        database: Database,
        clock: Clock,
        heartbeat: Heartbeat,
        log: BoundLogger,
        bounds: CollectorBounds | None = None,
    ) -> None:
        self._source = source
        self._database = database
        self._clock = clock
        self._heartbeat = heartbeat
        self._log = log
        self._bounds = bounds or CollectorBounds()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; the batch at hand is finished first, unless SQL or Redis is away: then it comes again.
        What is not trouble that passes, is raised.
        """
        while not stop.is_set():
            await self._collect(stop)

    async def _collect(self, stop: asyncio.Event) -> None:
        bounds = self._bounds
        events = await self._persist("read", lambda: self._source.read(bounds.batch, bounds.wait_s), stop)
        if events is None:
            return
        self._heartbeat.beat(Beat(ready=True))
        if not events:
            return
        records = [event for _, event in events]
        stored = await self._persist(
            "store", lambda: asyncio.to_thread(store, self._database, records, self._clock.now_ms()), stop
        )
        if stored is None:
            return
        event_ids = [event_id for event_id, _ in events]
        await self._persist("acknowledge", lambda: self._acknowledge(event_ids), stop)
        if len(events) < bounds.batch:
            await _set_within(stop, bounds.linger_s)

    async def _acknowledge(self, event_ids: Sequence[str]) -> int:
        await self._source.acknowledge(event_ids)
        return len(event_ids)

    async def _persist(self, step: str, work: Callable[[], Awaitable[Answer]], stop: asyncio.Event) -> Answer | None:
        """Try until it works; None if it does not and the process is to stop."""
        pause_s = self._bounds.pause_s
        while True:
            try:
                answer = await work()
            except TROUBLE as error:
                self._log.warning("collector waits", step=step, error=f"{type(error).__name__}: {error}")
                self._heartbeat.beat(Beat(ready=False, note=f"cannot {step} usage: {type(error).__name__}"))
                if stop.is_set() or await _set_within(stop, pause_s):
                    return None
                pause_s = min(2 * pause_s, self._bounds.pause_s_max)
            else:
                return answer


async def _set_within(stop: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return False
    return True
