"""All open requests of a process: one reader loop over its reply stream, fanned out in memory."""

import asyncio
from collections.abc import Coroutine, Iterable

from structlog.stdlib import BoundLogger

from core.clock import Clock
from core.errors import UNAVAILABLE, PlatformError
from core.queue.base import Admission, Admitted, Outcome, QueueKeeper, Refused, Repeated, SubmitterQueue
from gateway.conversation import Conversation
from gateway.desk import QUEUE_AWAY, Desk, ExchangeSettings
from gateway.repeats import Repeats, Replayed

__all__ = ["Exchange", "ExchangeSettings"]

LAST_WORDS_S = 1.0
MS_PER_S = 1_000


class Exchange:
    """`queue` must be open. Nothing arrives unless `run` runs."""

    def __init__(
        self, queue: SubmitterQueue, keeper: QueueKeeper, settings: ExchangeSettings, clock: Clock, log: BoundLogger
    ) -> None:
        self._queue = queue
        self._keeper = keeper
        self._settings = settings
        self._clock = clock
        self._log = log
        self._open: dict[str, Conversation] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._draining = False
        self._connected = True
        self._desk = Desk(queue, settings, clock, log, self._spawn, self._closed)
        self._repeats = Repeats(queue, settings, clock)

    @property
    def open_count(self) -> int:
        return len(self._open)

    @property
    def connected(self) -> bool:
        """Whether the reply stream could be read the last time."""
        return self._connected

    async def run(self) -> None:
        """Until cancelled: read replies, look after silent requests, reap expired leases."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read())
            group.create_task(self._look_after())
            group.create_task(self._reap())

    def conversations(self) -> Iterable[Conversation]:
        """Those open now."""
        return tuple(self._open.values())

    async def ask(self, admission: Admission) -> Conversation | Refused | Repeated:
        """The one admission call. Raises PlatformError(UNAVAILABLE) when it cannot be made."""
        if self._draining:
            raise PlatformError(UNAVAILABLE, "This server is shutting down; try again.", retry_after_s=1)
        if len(self._open) >= self._settings.open_max:
            raise PlatformError(UNAVAILABLE, "This server has too many open requests; try again.", retry_after_s=1)
        job = admission.job
        conversation = Conversation(admission, self._desk)
        self._open[job.request_id] = conversation  # before it is admitted: its worker may be quicker than the answer
        self._empty.clear()
        answer: Admitted | Refused | Repeated | None = None
        try:
            answer = await self._queue.admit(admission)
        except QUEUE_AWAY as error:
            self._log.warning("queue away, not admitted", request_id=job.request_id, error=type(error).__name__)
            raise PlatformError(UNAVAILABLE, "The queue cannot be reached; try again.", retry_after_s=1) from error
        finally:
            if not isinstance(answer, Admitted):
                self._closed(job.request_id)
            if answer is None:  # it may have been admitted all the same: nobody would read the answer
                self._spawn(self._withdraw(job.request_id, job.deadline_ms))
        if not isinstance(answer, Admitted):
            return answer
        conversation.begin(answer)
        return conversation

    async def recall(self, repeated: Repeated, left: asyncio.Event) -> Replayed | None:
        """The answer to an earlier request with the same Idempotency-Key, waited for if need be; see Repeats.recall."""
        return await self._repeats.recall(repeated, left)

    async def drain(self, drain_s: float) -> None:
        """Take nothing new, let what is open end, then end the rest without charge. Call it while `run` runs."""
        self._draining = True
        await self._wait_empty(drain_s)
        self._repeats.stop()
        cut = list(self._open.values())
        for conversation in cut:
            await conversation.interrupt("This server is shutting down; nothing was charged.")
        if cut:
            self._log.warning("requests cut by the drain", count=len(cut))
            await self._wait_empty(LAST_WORDS_S)

    async def close(self) -> None:
        """After `run` has ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._queue.close()

    def tick(self) -> None:
        """Wake the requests that must be looked after. `run` calls it; tests with a clock of their own too."""
        now_s = self._clock.monotonic_s()
        for conversation in self._open.values():
            if conversation.due_s <= now_s:
                conversation.ring()

    async def _read(self) -> None:
        pause_ms = self._settings.away_retry_ms
        while True:
            try:
                events = await self._queue.receive(self._settings.receive_wait_ms / MS_PER_S)
            except QUEUE_AWAY as error:
                if self._connected:
                    self._log.warning("queue away", error=type(error).__name__)
                self._connected = False
                await asyncio.sleep(pause_ms / MS_PER_S)
                pause_ms = min(2 * pause_ms, self._settings.away_retry_ms_max)
                continue
            if not self._connected:
                self._log.info("queue back")
                self._connected, pause_ms = True, self._settings.away_retry_ms
            for event in events:
                conversation = self._open.get(event.request_id)
                if conversation is not None and not conversation.accept(event):
                    self._spawn(conversation.give_up())

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(self._settings.tick_ms / MS_PER_S)
            self.tick()

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(self._settings.reap_every_ms / MS_PER_S)
            try:
                await self._keeper.reap()
            except QUEUE_AWAY as error:
                self._log.info("nothing reaped", error=type(error).__name__)

    async def _withdraw(self, request_id: str, deadline_ms: int) -> None:
        await self._desk.stop(request_id, deadline_ms, Outcome.CANCELLED)

    async def _wait_empty(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._empty.wait()
        except TimeoutError:
            return

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _closed(self, request_id: str) -> None:
        self._open.pop(request_id, None)
        if not self._open:
            self._empty.set()
