"""A process that works for one or more tiers: loads them, runs their loops, beats, drains on SIGTERM."""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from structlog.stdlib import BoundLogger

from core.heartbeat import BEAT_S, Beat, Heartbeat
from core.queue.executor import Executor
from core.queue.loop import ExecutorStalledError, WorkLoop

STALLED_CODE = 75


@dataclass(frozen=True, slots=True)
class Pool:
    """One tier in this process."""

    tier: str
    executor: Executor
    loop: WorkLoop


class Host:
    """`die` ends the process at once: a hung executor would also hang an orderly end."""

    def __init__(
        self,
        pools: Sequence[Pool],
        heartbeat: Heartbeat,
        log: BoundLogger,
        die: Callable[[int], object] = os._exit,
    ) -> None:
        self._pools = pools
        self._heartbeat = heartbeat
        self._log = log
        self._die = die
        self._stop = asyncio.Event()
        self._loading: str | None = None

    def stop(self) -> None:
        """Drain, then run() returns; while weights are loading, it returns at once."""
        self._stop.set()

    async def run(self) -> None:
        """Until stopped by SIGTERM, SIGINT or stop(). Raises SetupError from loading, and an ExceptionGroup with what
        broke a loop.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)
        beating = asyncio.create_task(self._beat())
        try:
            if await self._load():
                await self._work()
        except* ExecutorStalledError:
            self._die(STALLED_CODE)
        finally:
            beating.cancel()
            for pool in self._pools:
                await pool.executor.close()

    async def _load(self) -> bool:
        stopping = asyncio.create_task(self._stop.wait())
        try:
            for pool in self._pools:
                self._loading = pool.tier
                self._log.info("loading", tier=pool.tier)
                starting = asyncio.create_task(pool.executor.start())
                await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not starting.done():
                    starting.cancel()
                    return False
                starting.result()
        finally:
            stopping.cancel()
        self._loading = None
        return True

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            for pool in self._pools:
                group.create_task(pool.loop.run())
            self._log.info("working", tiers=[pool.tier for pool in self._pools])
            await self._stop.wait()
            self._log.info("draining", running=sum(pool.loop.running for pool in self._pools))
            for pool in self._pools:
                pool.loop.drain()

    async def _beat(self) -> None:
        while True:
            note = self._note()
            self._heartbeat.beat(Beat(ready=not note, note=note))
            await asyncio.sleep(BEAT_S)

    def _note(self) -> str:
        """What keeps it from working, or nothing."""
        if self._stop.is_set():
            return "draining"
        if self._loading is not None:
            return f"loading {self._loading}"
        if any(pool.loop.away or not pool.loop.registered for pool in self._pools):
            return "waiting for Redis"
        return ""
