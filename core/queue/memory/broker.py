"""Everything of one cell in one process: what the Lua scripts do, step by step. One call is one step: nothing waits."""

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from core.clock import Clock
from core.errors import Refusal
from core.meter.cost import cost_nano
from core.meter.usage import UsageEvent
from core.queue.base import (
    DECIDE_MS,
    RECORD_KEPT_MS,
    STRIKES_MAX,
    USAGE_BACKLOG_MAX,
    Admission,
    Admitted,
    Finish,
    Outcome,
    Price,
    QueueSettings,
    QueueStats,
    Refused,
    RefusedBy,
    Renewal,
    RequestState,
    Settlement,
    Standing,
    TierStats,
    WorkerSlot,
)
from core.queue.memory.bell import Bell
from core.queue.memory.limits import Limits
from core.queue.memory.record import Record, new_record, who_pays
from core.queue.memory.replies import ReplyStreams
from core.queue.memory.tier import TierQueue, Worker
from core.wire import End, Job, Lost, Usage

DEADLINE_GRACE_MS = 5_000
RETRY_MS_MIN = 1_000
CANCELLED = "The request was cancelled."
TOO_LATE = "The request waited or ran past its deadline."
WORKER_LOST = "The worker was lost."
POISON = "Every worker that took the request was lost."


class MemoryBroker:
    def __init__(self, settings: QueueSettings, clock: Clock) -> None:
        self.replies = ReplyStreams(clock)
        self.usage: dict[str, UsageEvent] = {}  # by event id, until it is acknowledged
        self.usage_bell = Bell()
        self._clock = clock
        self._lease_ms = settings.lease_ms
        self._tiers = {name: TierQueue(bounds) for name, bounds in settings.tiers.items()}
        self._limits = Limits()
        self._credit_nano: dict[str, int] = {}
        self._seeded: set[str] = set()
        self._generations: dict[str, int] = {}
        self._open: dict[str, Record] = {}
        self._settled: dict[str, Record] = {}
        self._settled_order: deque[Record] = deque()
        self._dead_letters = 0
        self._reaped_ms: int | None = None
        self._orders = itertools.count(1)
        self._event_numbers = itertools.count(1)

    def tier(self, name: str) -> TierQueue:
        return self._tiers[name]

    # What submitters ask for.

    def admit(self, admission: Admission) -> Admitted | Refused:
        now_ms = self._clock.now_ms()
        job = admission.job
        needed_nano = _cost(
            Usage(prompt_tokens=job.prompt_tokens, completion_tokens=admission.output_reserved), admission.price
        )
        refused = self._refused(admission, needed_nano, now_ms)
        if refused is not None:
            return refused
        tier = self._tiers[job.tier]
        wait_ms = tier.wait_ms()
        record = new_record(admission, needed_nano, now_ms, next(self._orders))
        self._open[job.request_id] = record
        if needed_nano:
            self._credit_nano[job.organisation] -= needed_nano
        states = self._limits.reserve(admission.rules, record.tokens_reserved, now_ms)
        tier.set_weight(job.organisation, admission.weight)
        tier.push(record)
        return Admitted(job.request_id, now_ms, needed_nano, wait_ms, states)

    def retry(self, request_id: str, attempt: int) -> Standing:
        record = self._find(request_id)
        if record is None or record.state is not RequestState.LOST or record.attempt != attempt:
            return self._standing(record)
        if record.strikes >= STRIKES_MAX:
            self._dead_letters += 1
            self._settle_free(record, Outcome.FAILED, POISON)
        else:
            record.attempt += 1
            self._tiers[record.job.tier].push(record)
        return self._standing(record)

    def cancel(self, request_id: str, completion_tokens_max: int, outcome: Outcome) -> Standing:
        record = self._find(request_id)
        if record is None or record.state is RequestState.SETTLED:
            return self._standing(record)
        if record.state is not RequestState.RUNNING:
            self._settle_free(record, outcome, CANCELLED)
            return self._standing(record)
        if outcome is not Outcome.CANCELLED:
            self._settle_over_worker(record, outcome, CANCELLED)
            return self._standing(record)
        self._tell_worker(record)
        if record.completion_tokens_max is None:
            record.completion_tokens_max = completion_tokens_max
        return self._standing(record)

    def standing(self, request_id: str) -> Standing:
        return self._standing(self._find(request_id))

    # What workers ask for.

    def take(self, slot: WorkerSlot, room: int) -> tuple[list[Job], bool]:
        """The jobs, and whether a cancel calls for a renewal."""
        now_ms = self._clock.now_ms()
        tier = self._tiers[slot.tier]
        worker = tier.workers.get(slot.worker_id)
        if worker is None:
            worker = tier.workers[slot.worker_id] = Worker(slot.worker_id, slot.slots, now_ms + self._lease_ms)
            tier.bell.ring()  # more slots, larger shares
        jobs: list[Job] = []
        while len(jobs) < room and (record := tier.next(worker, now_ms)) is not None:
            if record.expired(now_ms):
                self._settle_free(record, Outcome.TIMEOUT, TOO_LATE)
            else:
                tier.start(record, worker, now_ms)
                jobs.append(replace(record.job, attempt=record.attempt))
        nudged, worker.nudged = worker.nudged, False
        return jobs, nudged

    def renew(self, slot: WorkerSlot) -> Renewal:
        worker = self._tiers[slot.tier].workers.get(slot.worker_id)
        if worker is None:
            return Renewal(held=False)
        worker.lease_until_ms = self._clock.now_ms() + self._lease_ms
        worker.nudged = False
        return Renewal(held=True, cancelled=worker.cancelled())

    def finish(self, finish: Finish) -> Settlement:
        end = finish.end
        for tier in self._tiers.values():
            if finish.worker_id in tier.workers:
                tier.workers[finish.worker_id].told.discard(end.request_id)
        record = self._find(end.request_id)
        held = record is not None and record.state is RequestState.RUNNING and record.worker_id == finish.worker_id
        if record is None or not held or record.attempt != end.attempt:
            return Settlement(accepted=False, end=end)
        self._tiers[record.job.tier].measure(record, end.usage, self._clock.now_ms())
        outcome, billed = who_pays(record, finish.outcome, end.usage)
        settled = replace(end, usage=billed, cost_nano=_cost(billed, record.price))
        self._settle(record, outcome, settled, end.usage.completion_tokens, finish.first_token_ms)
        return Settlement(accepted=True, end=settled)

    def leave(self, slot: WorkerSlot) -> None:
        tier = self._tiers[slot.tier]
        worker = tier.workers.get(slot.worker_id)
        if worker is not None:
            self._lose(tier, worker, strikes=0)

    # Housekeeping.

    def reap(self) -> int:
        now_ms = self._clock.now_ms()
        was_away = self._reaped_ms is None or now_ms - self._reaped_ms > self._lease_ms / 2
        self._reaped_ms = now_ms
        workers = [(tier, worker) for tier in self._tiers.values() for worker in tier.workers.values()]
        if was_away:  # no silence proves a loss: whoever was silent may not have been able to speak
            for _, worker in workers:
                worker.lease_until_ms = now_ms + self._lease_ms
            return 0
        lost = sum(self._lose(tier, worker, strikes=1) for tier, worker in workers if worker.lease_until_ms < now_ms)
        for record in list(self._open.values()):
            if record.state is RequestState.LOST and now_ms > record.lost_ms + DECIDE_MS:
                self._settle_over_worker(record, Outcome.FAILED, WORKER_LOST)
            elif record.expired(now_ms, DEADLINE_GRACE_MS):
                self._settle_over_worker(record, Outcome.TIMEOUT, TOO_LATE)
        return lost

    def seed_credit(self, organisation: str, amount_nano: int) -> None:
        if organisation not in self._seeded:
            self._seeded.add(organisation)
            self._credit_nano[organisation] = amount_nano

    def set_generation(self, organisation: str, generation: int) -> None:
        self._generations[organisation] = max(generation, self._generations.get(organisation, generation))

    def generations(self, organisations: Sequence[str]) -> dict[str, int]:
        return {name: self._generations[name] for name in organisations if name in self._generations}

    def stats(self, tiers: Sequence[str]) -> QueueStats:
        return QueueStats(
            tiers={name: _tier_stats(self._tiers[name], self._clock.now_ms()) for name in tiers},
            reservations_open=len(self._open),
            usage_backlog=len(self.usage),
            dead_letters=self._dead_letters,
        )

    # Steps that several of the above share.

    def _refused(self, admission: Admission, needed_nano: int, now_ms: int) -> Refused | None:
        """The first check that fails, in the order of docs/queue.md; changes nothing."""
        job = admission.job
        generation = self._generations.get(job.organisation)
        if generation is not None and generation > admission.generation:
            return Refused(RefusedBy.STALE, Refusal("generation", "organisation", generation, 0, 0))
        if len(self.usage) > USAGE_BACKLOG_MAX:
            return Refused(RefusedBy.BACKLOG, Refusal("usage_backlog", "cell", USAGE_BACKLOG_MAX, 0, RETRY_MS_MIN))
        refused = self._queue_refused(admission)
        if refused is not None:
            return refused
        tokens = job.prompt_tokens + admission.output_reserved
        broken = self._limits.refusal(admission.rules, tokens, now_ms)
        if broken is not None:
            return Refused(RefusedBy.RULE, broken)
        available = self._credit_nano.get(job.organisation, 0)
        if needed_nano > 0 and available < needed_nano:
            return Refused(RefusedBy.CREDIT, Refusal("credit", "organisation", needed_nano, available, None))
        return None

    def _queue_refused(self, admission: Admission) -> Refused | None:
        tier = self._tiers[admission.job.tier]
        wait_ms = tier.wait_ms()
        retry_ms = max(RETRY_MS_MIN, wait_ms)
        if tier.queued >= tier.bounds.queue_jobs_max:
            return Refused(RefusedBy.QUEUE_FULL, Refusal("queue_jobs", "tier", tier.bounds.queue_jobs_max, 0, retry_ms))
        if wait_ms > admission.queue_wait_ms_max:
            return Refused(
                RefusedBy.QUEUE_SLOW, Refusal("queue_wait_ms", "tier", admission.queue_wait_ms_max, 0, retry_ms)
            )
        return None

    def _settle_over_worker(self, record: Record, outcome: Outcome, error: str) -> None:
        """Whatever a worker still says is refused, and one that holds it is told to abort."""
        self._tell_worker(record)
        record.attempt += 1
        self._settle_free(record, outcome, error)

    def _settle_free(self, record: Record, outcome: Outcome, error: str) -> None:
        """Without a worker's word, and without charge."""
        end = End(record.request_id, record.attempt, finish_reasons=("error",), error=error)
        self._settle(record, outcome, end, decoded_tokens=0, first_token_ms=0)

    def _settle(self, record: Record, outcome: Outcome, end: End, decoded_tokens: int, first_token_ms: int) -> None:
        """Once per request: queue or worker, money, limits, usage event, record."""
        now_ms = self._clock.now_ms()
        tier = self._tiers[record.job.tier]
        if record.state is RequestState.QUEUED:
            tier.remove(record)
        elif record.state is RequestState.RUNNING:
            tier.stop(record)
        if record.cost_reserved_nano or end.cost_nano:
            self._credit_nano[record.job.organisation] += record.cost_reserved_nano - end.cost_nano
        billed_tokens = end.usage.prompt_tokens + end.usage.completion_tokens
        self._limits.settle(record.rules, record.tokens_reserved, billed_tokens, now_ms)
        event = _usage_event(record, outcome, end, decoded_tokens, first_token_ms, now_ms)
        self.usage[str(next(self._event_numbers))] = event
        self.usage_bell.ring()
        record.state, record.end, record.settled_ms = RequestState.SETTLED, end, now_ms
        record.drop_body()
        del self._open[record.request_id]
        self._settled[record.request_id] = record
        self._settled_order.append(record)
        tier.bell.ring()

    def _lose(self, tier: TierQueue, worker: Worker, strikes: int) -> int:
        """The worker is gone: its records are lost, and their submitters decide."""
        records = list(worker.held.values())
        for record in records:
            tier.stop(record)
            record.state, record.lost_ms = RequestState.LOST, self._clock.now_ms()
            record.strikes += strikes
            self.replies.send(record.job.submitter, [Lost(record.request_id, record.attempt)])
        tier.sign_off(worker)
        return len(records)

    def _tell_worker(self, record: Record) -> None:
        """Its next renewal lists the record; a waiting take returns at once."""
        if record.state is RequestState.RUNNING:
            tier = self._tiers[record.job.tier]
            worker = tier.workers[record.worker_id]
            worker.told.add(record.request_id)
            worker.nudged = True
            tier.bell.ring()

    def _find(self, request_id: str) -> Record | None:
        while self._settled_order and self._clock.now_ms() - self._settled_order[0].settled_ms >= RECORD_KEPT_MS:
            del self._settled[self._settled_order.popleft().request_id]
        return self._open.get(request_id) or self._settled.get(request_id)

    def _standing(self, record: Record | None) -> Standing:
        if record is None:
            return Standing(RequestState.UNKNOWN, attempt=0)
        if record.state is not RequestState.QUEUED:
            return Standing(record.state, record.attempt, record.end)
        tier = self._tiers[record.job.tier]
        return Standing(record.state, record.attempt, None, tier.position(record), tier.wait_ms())


def _cost(usage: Usage, price: Price) -> int:
    return cost_nano(
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
        input_nano=price.input_nano,
        cached_nano=price.cached_nano,
        output_nano=price.output_nano,
    )


def _tier_stats(tier: TierQueue, now_ms: int) -> TierStats:
    return TierStats(tier.queued, tier.running, len(tier.workers), tier.oldest_wait_ms(now_ms))


def _usage_event(
    record: Record, outcome: Outcome, end: End, decoded_tokens: int, first_token_ms: int, now_ms: int
) -> UsageEvent:
    job = record.job
    return UsageEvent(
        request_id=job.request_id,
        organisation=job.organisation,
        workspace=job.workspace,
        key_id=record.key_id,
        tier=job.tier,
        kind=job.kind,
        outcome=outcome.value,
        attempt=end.attempt,
        streamed=job.streamed,
        prompt_tokens=end.usage.prompt_tokens,
        completion_tokens=end.usage.completion_tokens,
        cached_tokens=end.usage.cached_tokens,
        decoded_tokens=decoded_tokens,
        cost_nano=end.cost_nano,
        price_version=record.price.version,
        admitted_ms=record.admitted_ms,
        taken_ms=record.taken_ms,
        first_token_ms=first_token_ms,
        settled_ms=now_ms,
    )
