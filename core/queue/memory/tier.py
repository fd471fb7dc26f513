"""The queue and the workers of one tier: who gets the next job."""

from collections import deque
from dataclasses import dataclass, field

from core.queue.base import SOLO_STRIKES, RequestState, TierBounds
from core.queue.memory.bell import Bell
from core.queue.memory.fair import FairQueue, Organisation, Waiting
from core.queue.memory.record import Record
from core.wire import Usage

RESERVE_SLOTS_MIN = 4
SPEED_KEPT, SPEED_LEARNT = 0.9, 0.1  # a new sample counts for a tenth


@dataclass(slots=True)
class Worker:
    """`held`: its running records. `told`: settled without it, so that it must abort them. `nudged`: something was
    cancelled since it last asked. `drained`: it takes nothing.
    """

    worker_id: str
    slots: int
    lease_until_ms: int
    held: dict[str, Record] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    nudged: bool = False
    drained: bool = False

    def cancelled(self) -> tuple[str, ...]:
        bounded = {name for name, record in self.held.items() if record.completion_tokens_max is not None}
        return tuple(sorted(bounded | self.told))


class TierQueue:
    def __init__(self, bounds: TierBounds) -> None:
        self.bounds = bounds
        self.bell = Bell()
        self.workers: dict[str, Worker] = {}
        self.drained = False
        self._queued: dict[str, Record] = {}
        self._fair = FairQueue()
        self._solo: deque[Record] = deque()
        self._set_aside = ""  # the worker that gets no other job until it has run one from _solo
        self._running = 0
        self._speed: float | None = None  # units of cost a millisecond, in one slot

    @property
    def queued(self) -> int:
        return len(self._queued)

    @property
    def running(self) -> int:
        return self._running

    @property
    def slots(self) -> int:
        return sum(worker.slots for worker in self.workers.values())

    def oldest_wait_ms(self, now_ms: int) -> int:
        return max((now_ms - record.admitted_ms for record in self._queued.values()), default=0)

    def wait_ms(self) -> int:
        """How long a job that comes now waits, by the measured rate; 0 while nothing is known."""
        rate = (self._speed or 0) * self.slots
        return int(sum(record.job.cost_expected for record in self._queued.values()) / rate) if rate > 0 else 0

    def position(self, record: Record) -> int:
        return 0 if record in self._solo else self._fair.position(record.job)

    def set_weight(self, organisation: str, weight: int) -> None:
        self._fair.organisation(organisation).weight = weight

    def push(self, record: Record) -> None:
        record.state = RequestState.QUEUED
        self._queued[record.request_id] = record
        if record.strikes >= SOLO_STRIKES:
            self._solo.append(record)
        else:
            self._fair.push(Waiting(record.order, record.job, record.admitted_ms))
        self.bell.ring()

    def remove(self, record: Record) -> None:
        del self._queued[record.request_id]
        if record in self._solo:
            self._solo.remove(record)
        else:
            self._fair.remove(record.job)

    def next(self, worker: Worker, now_ms: int) -> Record | None:
        """The record whose turn it is on this worker; it stays queued."""
        if self.drained or worker.drained:
            if self._set_aside == worker.worker_id:
                self._set_aside = ""
            return None
        if self._solo and not self._set_aside:
            self._set_aside = worker.worker_id
        if self._set_aside == worker.worker_id:
            if worker.held:
                return None
            if self._solo:
                return self._solo[0]
            self._set_aside = ""
        job = self._fair.next(now_ms, self._has_share)
        return None if job is None else self._queued[job.request_id]

    def start(self, record: Record, worker: Worker, now_ms: int) -> None:
        self.remove(record)
        self._fair.charge(record.job)
        record.state, record.worker_id, record.taken_ms = RequestState.RUNNING, worker.worker_id, now_ms
        worker.held[record.request_id] = record
        self._running += 1
        self._fair.organisation(record.job.organisation).running += 1

    def stop(self, record: Record) -> None:
        """The record runs no more: finished, lost, or taken from its worker."""
        self.workers[record.worker_id].held.pop(record.request_id)
        if record.strikes >= SOLO_STRIKES:
            self._set_aside = ""
        self._running -= 1
        self._fair.organisation(record.job.organisation).running -= 1
        self.bell.ring()

    def sign_off(self, worker: Worker) -> None:
        del self.workers[worker.worker_id]
        if self._set_aside == worker.worker_id:
            self._set_aside = ""
        self.bell.ring()

    def measure(self, record: Record, counted: Usage, now_ms: int) -> None:
        """A running record is about to be settled and cost so much: the fair order and the speed learn from it."""
        cost = counted.prompt_tokens - counted.cached_tokens + counted.completion_tokens
        self._fair.correct(record.job, cost)
        speed = cost / max(1, now_ms - record.taken_ms)
        self._speed = speed if self._speed is None else self._speed * SPEED_KEPT + speed * SPEED_LEARNT

    def _has_share(self, organisation: Organisation) -> bool:
        """The last part of the slots is only for those below their share, one newcomer counted in."""
        if self.slots < RESERVE_SLOTS_MIN or self._running < (1 - self.bounds.pool_reserve) * self.slots:
            return True
        weights = 1 + sum(each.weight for each in self._fair.active())
        return organisation.running * weights < self.slots * organisation.weight
