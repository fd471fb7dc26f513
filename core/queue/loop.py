"""Take, renew, finish: what every worker does, whatever its executor computes; the embedding service shares it.

Five tasks: take jobs while there is room, pump the executor's steps into the outbox, deliver it, keep the lease, and
ask for the next slices of output.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

from redis.exceptions import RedisError
from structlog.stdlib import BoundLogger

from core.clock import Clock
from core.queue.base import Outcome, WorkerQueue, WorkerSlot
from core.queue.executor import Ended, Executor
from core.queue.held import Held
from core.queue.observer import NoObserver, Observer
from core.queue.outbox import Batch, Outbox
from core.queue.patience import Patience, passes
from core.queue.slices import Slices, choice_count
from core.queue.solo import SoloGate
from core.wire import End, Job, Piece

FINISHES_PER_CALL = 128
LEAVE_S = 2.0


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """`renew_full_s` applies while there is no room: then no take listens for cancels. `late_s`: a lease that was not
    renewed for so long is renewed before anything is taken. A full outbox holds the executor back. `extend_pause_s`:
    before a slice that was refused is asked for again.
    """

    renew_s: float = 1.0
    renew_full_s: float = 0.25
    late_s: float = 3.0
    take_wait_s: float = 1.0
    engine_stall_s: float = 30.0
    drain_s: float = 120.0
    outbox_tokens_max: int = 200_000
    extend_pause_s: float = 0.25


class ExecutorStalledError(Exception):
    """A busy executor made no step for `engine_stall_s`. It may hang for ever: end the process, do not wait for it."""


class ExecutorEndedError(Exception):
    """The executor's steps ended before the loop did."""


class WorkLoop:
    """One tier's work in this process. The executor is started before run() and closed after it by the caller."""

    def __init__(
        self,
        queue: WorkerQueue,
        executor: Executor,
        slot: WorkerSlot,
        settings: LoopSettings,
        clock: Clock,
        log: BoundLogger,
        observer: Observer | None = None,
        gate: SoloGate | None = None,
    ) -> None:
        """`gate` is shared by the loops of a process."""
        self._queue = queue
        self._executor = executor
        self._settings = settings
        self._clock = clock
        self._log = log
        self._observer = observer or NoObserver()
        self._gate = gate or SoloGate()
        self._patience = Patience(log)
        self._outbox = Outbox()
        self._slices = Slices(queue, executor, self._patience, clock, self._abort, settings.extend_pause_s)
        self._first_slot = slot
        self._slot = slot  # the one that takes; older ones in _leases only finish what they hold
        self._slots_made = 1
        self._leases: dict[str, WorkerSlot] = {}
        self._held: dict[str, Held] = {}
        # Aborted with a lost lease; the executor has not ended them yet. With the job to begin then, if it came back.
        self._dropping: dict[str, Job | None] = {}
        self._draining = asyncio.Event()
        self._room = asyncio.Event()
        self._mail = asyncio.Event()
        self._posted = asyncio.Event()
        self._renew_now = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._kept_s = clock.monotonic_s()
        self._stall_from_s = clock.monotonic_s()

    @property
    def registered(self) -> bool:
        return bool(self._leases)

    @property
    def away(self) -> bool:
        """Whether Redis does not answer at the moment."""
        return self._patience.away

    @property
    def running(self) -> int:
        return len(self._held)

    def drain(self) -> None:
        """Take nothing more; run() returns when everything is finished, or after `drain_s`."""
        self._draining.set()
        self._room.set()

    async def run(self) -> None:
        """Until drained. What breaks it comes in an ExceptionGroup: ExecutorStalledError, ExecutorEndedError, or the
        executor's own error; the lease then runs out, for the jobs may be to blame.
        """
        async with asyncio.TaskGroup() as group:
            take = group.create_task(self._take())
            others = [group.create_task(part()) for part in (self._pump, self._deliver, self._keep, self._slices.run)]
            await self._draining.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.drain_s):
                    await asyncio.wait([take])
                    await self._idle.wait()
            for task in (take, *others):
                task.cancel()
        if self._held:
            self._log.warning("drained too slowly; the rest goes back", requests=len(self._held))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                for slot in list(self._leases.values()):
                    await self._patience.attempt("leave", partial(self._queue.leave, slot))

    # Take

    async def _take(self) -> None:
        while not self._draining.is_set():
            room = self._slot.slots - len(self._held) - len(self._dropping)
            if room <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            if self._held and self._clock.monotonic_s() - self._kept_s > self._settings.late_s:
                await self._renew()  # we were stopped or blocked: what we hold may be others' by now
            slot = self._slot
            wait_s = self._settings.take_wait_s if slot.worker_id in self._leases else 0.0
            try:
                jobs = await self._queue.take(slot, 0 if self._gate.closed else room, wait_s)
            except (OSError, RedisError) as error:
                if not passes(error):
                    raise
                await self._after_lost_answer(slot)
                continue
            self._leases[slot.worker_id] = slot
            for job in jobs:
                self._begin(job, slot)
            if not jobs and self._held:
                self._renew_now.set()  # woken early, perhaps by a cancel

    async def _after_lost_answer(self, slot: WorkerSlot) -> None:
        """Redis may have given us jobs that we never heard of, and a renewed lease would keep them from everybody. So
        this worker id takes nothing more: it ends as soon as what we know of is finished, and the rest goes back.
        """
        if self._held_by(slot):
            self._slot = self._fresh_slot()
        else:
            self._leases.pop(slot.worker_id, None)
            await self._patience.insist("leave", partial(self._left, slot))

    async def _left(self, slot: WorkerSlot) -> bool:
        await self._queue.leave(slot)
        return True

    def _begin(self, job: Job, slot: WorkerSlot) -> None:
        stale = self._held.get(job.request_id)
        if stale is not None:
            self._drop(stale)
        held = self._held[job.request_id] = Held(job, slot.worker_id, self._clock.monotonic_s())
        self._idle.clear()
        if job.request_id in self._dropping:
            self._dropping[job.request_id] = job
        else:
            self._gate.enter(job, partial(self._submit, held))

    def _submit(self, held: Held) -> None:
        self._executor.submit(held.job)
        self._slices.begin(held)

    # Pump

    async def _pump(self) -> None:
        async for step in self._executor.steps():
            tokens = 0
            now_s = self._clock.monotonic_s()
            for event in step:
                request_id = event.request_id if isinstance(event, Piece) else event.end.request_id
                if self._dropping and request_id in self._dropping:
                    if isinstance(event, Ended):
                        self._dropped(request_id)
                    continue
                held = self._held.get(request_id)
                if held is None:
                    continue
                if isinstance(event, Ended):
                    self._gate.leave(request_id)
                    self._outbox.finish(held.job.submitter, held.last_word(event))
                    continue
                tokens += len(event.token_ids)
                held.put_out(event, now_s)
                self._slices.look(held)
                if not held.unread:
                    self._outbox.add(held.job.submitter, event)
            self._observer.stepped(tokens)
            self._mail.set()
            await self._while_full()
        raise ExecutorEndedError

    async def _while_full(self) -> None:
        while self._outbox.tokens > self._settings.outbox_tokens_max:
            self._posted.clear()
            await self._posted.wait()
            self._stall_from_s = self._clock.monotonic_s()

    def _dropped(self, request_id: str) -> None:
        self._gate.leave(request_id)
        job = self._dropping.pop(request_id)
        self._room.set()
        if job is None:
            return
        held = self._held[request_id]
        if held.outcome is None:
            self._gate.enter(job, partial(self._submit, held))
        else:
            self._end_unbegun(held)

    def _end_unbegun(self, held: Held) -> None:
        """It was stopped before the executor heard of it: nothing was computed."""
        end = End(held.job.request_id, held.job.attempt, ("error",) * choice_count(held.job))
        self._outbox.finish(held.job.submitter, held.last_word(Ended(end)))
        self._mail.set()

    # Deliver

    async def _deliver(self) -> None:
        while True:
            await self._mail.wait()
            self._mail.clear()
            batch = self._outbox.empty()
            self._posted.set()
            await self._settle(batch)
            if batch.replies:
                gone = await self._patience.insist("send", partial(self._queue.send, batch.replies))
                for held in [held for held in self._held.values() if held.job.submitter in gone]:
                    if held.job.keep_answer:
                        held.unread = True
                    else:
                        self._abort(held, Outcome.GATEWAY_LOST)
            self._release(finish.end for _, finish in batch.finishes)

    async def _settle(self, batch: Batch) -> None:
        """Pieces of a request whose finish is not accepted still go: after a lost answer the first try may have settled
        it, and then its submitter waits for them; to anybody else they are of an old attempt.
        """
        for start in range(0, len(batch.finishes), FINISHES_PER_CALL):
            chunk = batch.finishes[start : start + FINISHES_PER_CALL]
            finishes = [finish for _, finish in chunk]
            settlements = await self._patience.insist("finish", partial(self._queue.finish, finishes))
            for (submitter, finish), settlement in zip(chunk, settlements, strict=True):
                if settlement.accepted:
                    self._observer.settled(finish.outcome)
                    batch.replies.setdefault(submitter, []).append(settlement.end)

    def _release(self, ends: Iterable[End]) -> None:
        for end in ends:
            held = self._held.get(end.request_id)
            if held is not None and held.job.attempt == end.attempt:
                del self._held[end.request_id]
        self._freed()

    def _freed(self) -> None:
        self._room.set()
        if not self._held:
            self._idle.set()

    # Keep

    async def _keep(self) -> None:
        settings = self._settings
        while True:
            full = len(self._held) + len(self._dropping) >= self._slot.slots
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.renew_full_s if full else settings.renew_s):
                    await self._renew_now.wait()
            self._renew_now.clear()
            self._observer.holding(len(self._held))
            self._check_stall()
            now_ms = self._clock.now_ms()
            for held in [held for held in self._held.values() if held.job.deadline_ms <= now_ms]:
                self._abort(held, Outcome.TIMEOUT)
            await self._renew()

    def _check_stall(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._kept_s > self._settings.late_s:  # the process itself was stopped: a fresh term for the engine
            self._stall_from_s = now_s
        self._kept_s = now_s
        stats = self._executor.stats()
        full = self._outbox.tokens > self._settings.outbox_tokens_max
        still_s = now_s - max(stats.last_step_s, self._stall_from_s)
        if stats.running and not full and still_s > self._settings.engine_stall_s:
            self._log.error("engine stalled", running=stats.running, still_s=round(still_s, 1))
            raise ExecutorStalledError(f"{stats.running} requests and no step for {still_s:.0f} s")

    async def _renew(self) -> None:
        for slot in list(self._leases.values()):
            if slot is not self._slot and not self._held_by(slot):
                if await self._patience.attempt("leave", partial(self._left, slot)):
                    self._leases.pop(slot.worker_id, None)
                continue
            renewal = await self._patience.attempt("renew", partial(self._queue.renew, slot))
            if renewal is None:
                continue
            if not renewal.held:
                self._lose(slot)
            for request_id in renewal.cancelled:
                held = self._held.get(request_id)
                if held is not None:
                    self._abort(held, Outcome.CANCELLED)

    # What happens to a job before its end

    def _abort(self, held: Held, outcome: Outcome) -> None:
        """Once; the executor's Ended then finishes it with this outcome."""
        if not held.over:
            held.outcome = outcome
            if self._gate.withdraw(held.job.request_id):
                self._end_unbegun(held)
            else:
                self._executor.abort(held.job.request_id)

    def _lose(self, slot: WorkerSlot) -> None:
        lost = self._held_by(slot)
        self._log.warning("lease lost", worker=slot.worker_id, requests=len(lost))
        self._leases.pop(slot.worker_id, None)
        for held in lost:
            self._drop(held)
        if slot is self._slot:
            self._slot = self._fresh_slot()
        self._freed()

    def _drop(self, held: Held) -> None:
        """It belongs to others now: say nothing about it, and let the executor forget it."""
        request_id = held.job.request_id
        del self._held[request_id]
        self._outbox.forget(request_id)
        if not held.ended:
            held.ended = True
            if not self._gate.withdraw(request_id):
                self._dropping[request_id] = None
                self._executor.abort(request_id)

    def _held_by(self, slot: WorkerSlot) -> list[Held]:
        return [held for held in self._held.values() if held.worker_id == slot.worker_id]

    def _fresh_slot(self) -> WorkerSlot:
        self._slots_made += 1
        return replace(self._first_slot, worker_id=f"{self._first_slot.worker_id}.{self._slots_made}")
