"""The process around work loops: load, beat, work, drain. Workers and the embedding service differ in what they load.

A thread that hangs cannot be ended, only left behind: where one may hang the process ends itself at once.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import uvloop
from structlog.stdlib import BoundLogger

from core.catalog import Catalog, Tier
from core.clock import Clock, SystemClock
from core.errors import SetupError
from core.heartbeat import BEAT_S, Beat, Heartbeat
from core.ids import IdSource, SystemIds
from core.memory import settle_memory
from core.queue.base import WorkerQueue, WorkerSlot
from core.queue.executor import Executor
from core.queue.loop import LoopSettings, WorkLoop
from core.queue.observer import NoObserver, Observer
from core.queue.redis import RedisWorkerQueue
from core.queue.settings import queue_settings
from core.queue.solo import SoloGate
from core.redis import connect
from core.settings import PlatformSettings

CLOSE_S = 5.0
WORKER_ID_BYTES = 6


@dataclass(frozen=True, slots=True)
class Work:
    """Which tiers a process serves, what computes for each, and who counts for each. `make` is called in a thread of
    its own, for it may import and read a lot.
    """

    tiers: Sequence[Tier]
    make: Callable[[Tier, Clock, BoundLogger], Executor]
    observe: Callable[[str], Observer] = lambda _tier: NoObserver()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the loops of a process share."""

    queue: WorkerQueue
    settings: LoopSettings
    heartbeat: Heartbeat
    clock: Clock
    ids: IdSource
    log: BoundLogger


class WorkProcess:
    """One loop for each tier."""

    def __init__(self, work: Work, around: Surroundings) -> None:
        self._work = work
        self._around = around
        self._executors: list[Executor] = []
        self._loops: list[WorkLoop] = []
        self._gate = SoloGate()
        self._note = "starting"
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Drain: take nothing more, finish what is held. While it loads: end."""
        self._stopping.set()
        for loop in self._loops:
            loop.drain()

    def standing(self) -> Beat:
        if self._stopping.is_set():
            return Beat(ready=False, note="draining")
        if self._note:
            return Beat(ready=False, note=self._note)
        if any(loop.away or not loop.registered for loop in self._loops):
            return Beat(ready=False, note="waiting for Redis")
        return Beat(ready=True)

    async def run(self) -> bool:
        """Until stopped; False if something is left behind that may hang. Raises SetupError, or an ExceptionGroup with
        what broke a loop; then nothing is closed, for that may hang as well.
        """
        beating = asyncio.create_task(self._beat())
        try:
            if not await self._load():
                return False
            async with asyncio.TaskGroup() as group:
                for loop in self._loops:
                    group.create_task(loop.run())
            return await self._close()
        except SetupError:
            await self._close()
            raise
        finally:
            beating.cancel()
            await asyncio.wait([beating])

    async def _load(self) -> bool:
        """False if it was stopped meanwhile; loading may then go on in its thread."""
        loading = asyncio.create_task(self._load_all())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([loading, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not loading.done():
            loading.cancel()
            return False
        loading.result()
        return not self._stopping.is_set()

    async def _load_all(self) -> None:
        around = self._around
        for tier in self._work.tiers:
            self._note = f"loading {tier.name}"
            slot = WorkerSlot(f"{tier.name}-{around.ids.token(WORKER_ID_BYTES)}", tier.name, tier.slots)
            log = around.log.bind(tier=tier.name, worker=slot.worker_id)
            executor = await asyncio.to_thread(self._work.make, tier, around.clock, log)
            self._executors.append(executor)
            await executor.start()
            observer = self._work.observe(tier.name)
            loop = WorkLoop(around.queue, executor, slot, around.settings, around.clock, log, observer, self._gate)
            self._loops.append(loop)
            log.info("loaded", slots=tier.slots)
        settle_memory()
        self._note = ""

    async def _beat(self) -> None:
        while True:
            try:
                self._around.heartbeat.beat(self.standing())
            except OSError as error:  # a full disk: who watches the file sees it grow old
                self._around.log.warning("no heartbeat", reason=repr(error))
            await asyncio.sleep(BEAT_S)

    async def _close(self) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                for executor in self._executors:
                    await executor.close()
                return True
        return False


def serve(work: Work, settings: PlatformSettings, loop: LoopSettings, catalog: Catalog, log: BoundLogger) -> int:
    """The life of a process, until SIGTERM or SIGINT has drained it: the exit code. Raises SetupError. Where something
    may hang it does not return but ends the process.
    """
    try:
        closed = uvloop.run(_serve(work, settings, loop, catalog, log))
    except SetupError:
        raise
    except Exception:
        log.exception("failed")
        _exit_now(1)
    if not closed:
        _exit_now(0)
    return 0


async def _serve(
    work: Work, settings: PlatformSettings, loop: LoopSettings, catalog: Catalog, log: BoundLogger
) -> bool:
    clock = SystemClock()
    client = connect(settings.redis(), settings.redis_timeout_s)
    queue = RedisWorkerQueue(client, queue_settings(catalog, settings.cell, settings.lease_ms))
    around = Surroundings(queue, loop, Heartbeat(settings.heartbeat_file), clock, SystemIds(clock), log)
    process = WorkProcess(work, around)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, process.stop)
    try:
        return await process.run()
    finally:
        await client.aclose()


def _exit_now(code: int) -> None:
    """Without waiting for threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
