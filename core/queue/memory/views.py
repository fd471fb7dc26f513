"""The broker as each side sees it. Waiting is by events; logical time is the broker's clock."""

import asyncio
import itertools
from collections.abc import Mapping, Sequence

from core.meter.usage import UsageEvent
from core.queue.base import (
    Admission,
    Admitted,
    Extended,
    Extension,
    Finish,
    OpenRequest,
    Outcome,
    QueueStats,
    Refused,
    Renewal,
    Repeated,
    RequestState,
    Settlement,
    Standing,
    WorkerSlot,
)
from core.queue.memory.broker import MemoryBroker
from core.wire import Event, Job


class MemorySubmitterQueue:
    def __init__(self, broker: MemoryBroker, submitter_id: str) -> None:
        self._broker = broker
        self._submitter = submitter_id

    async def open(self) -> None:
        """Create the reply stream; before anything else."""
        self._broker.replies.keep(self._submitter)

    async def admit(self, admission: Admission) -> Admitted | Refused | Repeated:
        return self._broker.admit(admission)

    async def receive(self, wait_s: float) -> list[Event]:
        bell = self._broker.replies.keep(self._submitter)
        events = self._broker.replies.take(self._submitter)
        if not events:
            await bell.wait(wait_s)
            events = self._broker.replies.take(self._submitter)
        return events

    async def retry(self, request_id: str, attempt: int) -> Standing:
        return self._broker.retry(request_id, attempt)

    async def cancel(
        self, request_id: str, completion_tokens_max: int, outcome: Outcome = Outcome.CANCELLED
    ) -> Standing:
        return self._broker.cancel(request_id, completion_tokens_max, outcome)

    async def standing(self, request_id: str) -> Standing:
        return self._broker.standing(request_id)

    async def close(self) -> None:
        self._broker.replies.close(self._submitter)


class MemoryWorkerQueue:
    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def take(self, slot: WorkerSlot, room: int, wait_s: float) -> list[Job]:
        bell = self._broker.tier(slot.tier).bell
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        while True:
            jobs, nudged = self._broker.take(slot, room)
            left_s = until_s - loop.time()
            if jobs or nudged or left_s <= 0:
                return jobs
            await bell.wait(left_s)

    async def renew(self, slot: WorkerSlot) -> Renewal:
        return self._broker.renew(slot)

    async def send(self, replies: Mapping[str, Sequence[Event]]) -> frozenset[str]:
        return frozenset(name for name, events in replies.items() if not self._broker.replies.send(name, events))

    async def finish(self, finishes: Sequence[Finish]) -> list[Settlement]:
        return [self._broker.finish(finish) for finish in finishes]

    async def extend(self, extensions: Sequence[Extension]) -> list[Extended]:
        return [self._broker.extend(extension) for extension in extensions]

    async def leave(self, slot: WorkerSlot) -> None:
        self._broker.leave(slot)


class MemoryQueueKeeper:
    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def reap(self) -> int:
        return self._broker.reap()

    async def set_generation(self, organisation: str, generation: int) -> None:
        self._broker.set_generation(organisation, generation)

    async def generations(self, organisations: Sequence[str]) -> Mapping[str, int]:
        return self._broker.generations(organisations)

    async def stats(self, tiers: Sequence[str]) -> QueueStats:
        return self._broker.stats(tiers)

    async def open_request(self, request_id: str) -> OpenRequest | None:
        record = self._broker.open_record(request_id)
        if record is None:
            return None
        job = record.job
        return OpenRequest(
            request_id=request_id,
            organisation=job.organisation,
            workspace=job.workspace,
            key_id=record.key_id,
            tier=job.tier,
            state=record.state,
            attempt=record.attempt,
            streamed=job.streamed,
            prompt_tokens=job.prompt_tokens,
            admitted_ms=record.admitted_ms,
            taken_ms=record.taken_ms if record.state is RequestState.RUNNING else 0,
        )


class MemoryUsageSource:
    """Reads each event once; a new source begins again with what was not acknowledged."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._last_read = 0

    async def read(self, count: int, wait_s: float) -> list[tuple[str, UsageEvent]]:
        if not self._unread(count):
            await self._broker.usage_bell.wait(wait_s)
        events = self._unread(count)
        if events:
            self._last_read = int(events[-1][0])
        return events

    async def acknowledge(self, event_ids: Sequence[str]) -> None:
        for event_id in event_ids:
            self._broker.usage.pop(event_id, None)

    async def backlog(self) -> int:
        return len(self._broker.usage)

    def _unread(self, count: int) -> list[tuple[str, UsageEvent]]:
        unread = ((name, event) for name, event in self._broker.usage.items() if int(name) > self._last_read)
        return list(itertools.islice(unread, count))
