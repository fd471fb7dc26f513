"""Everything of one cell in one process: what the Lua scripts do, step by step. One call is one step: nothing waits."""

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from core.clock import Clock
from core.errors import Refusal
from core.meter.usage import UsageEvent
from core.queue.base import (
    DECIDE_MS,
    RECORD_KEPT_MS,
    SOLO_STRIKES,
    STRIKES_MAX,
    USAGE_BACKLOG_MAX,
    Admission,
    Admitted,
    Extended,
    Extension,
    Finish,
    Outcome,
    Price,
    QueueSettings,
    QueueStats,
    Refused,
    RefusedBy,
    Renewal,
    Repeated,
    RequestState,
    Settlement,
    Standing,
    TierStats,
    WorkerSlot,
)
from core.queue.memory.bell import Bell
from core.queue.memory.claims import Claims
from core.queue.memory.counters import Amount
from core.queue.memory.record import Record, new_record, price_at, usage_cost_nano, usage_event, who_pays
from core.queue.memory.replies import ReplyStreams
from core.queue.memory.reservations import Reservations
from core.queue.memory.tier import TierQueue, Worker
from core.wire import End, Job, Lost, Usage

DEADLINE_GRACE_MS = 5_000
FETCHED = "-fetched"  # ends the id of the usage event of a kept answer
RETRY_MS_MIN = 1_000
DEAD_LETTERS_MAX = 1_000
CANCELLED = "The request was cancelled."
TOO_LATE = "The request waited or ran past its deadline."
WORKER_LOST = "The worker was lost."
POISON = "Every worker that took the request was lost."


class MemoryBroker:
    def __init__(self, settings: QueueSettings, clock: Clock) -> None:
        self.replies = ReplyStreams(clock)
        self.usage: dict[str, UsageEvent] = {}  # by event id, until it is acknowledged
        self.usage_bell = Bell()
        self.reservations = Reservations()
        self._clock = clock
        self._lease_ms = settings.lease_ms
        self._tiers = {name: TierQueue(bounds) for name, bounds in settings.tiers.items()}
        self._claims = Claims()
        self._generations: dict[str, int] = {}
        self._open: dict[str, Record] = {}
        self._settled: dict[str, Record] = {}
        self._settled_order: deque[Record] = deque()
        self.letters: dict[str, Record] = {}  # dead ones, with their jobs, by request id
        self._reaped_ms: int | None = None
        self._orders = itertools.count(1)
        self._event_numbers = itertools.count(1)

    def restart(self) -> None:
        """Redis was restarted, and nothing was lost: the same records, in a run on which no epoch is open."""
        self.reservations.credit.restart()

    def tier(self, name: str) -> TierQueue:
        return self._tiers[name]

    # What submitters ask for.

    def admit(self, admission: Admission) -> Admitted | Refused | Repeated:
        now_ms = self._clock.now_ms()
        job, credit = admission.job, self.reservations.credit
        refused = self._stale(admission)
        if refused is not None:
            return refused
        repeated = self._claims.repeated(admission.claim, now_ms)
        if repeated is not None:
            return self._pay_for_kept(repeated, admission, now_ms) or repeated
        price = price_at(admission.prices, now_ms)
        refused = self._epoch_refused() or self._outdated(admission, price, now_ms) or self._queue_refused(admission)
        if refused is not None or price is None:
            assert refused is not None, "without a price it is outdated"
            return refused
        record = new_record(admission, price, now_ms, next(self._orders), credit.number)
        refused = self.reservations.refusal(admission, record.reserved, now_ms)
        if refused is not None:
            return refused
        tier = self._tiers[job.tier]
        wait_ms = tier.wait_ms()
        self._open[job.request_id] = record
        self._claims.make(admission, now_ms)
        states = self.reservations.open(record, now_ms)
        tier.set_weight(job.organisation, admission.weight)
        tier.push(record)
        needed_nano = record.reserved.nano
        left_nano = credit.free(job.organisation) if needed_nano else -1
        return Admitted(job.request_id, now_ms, needed_nano, wait_ms, states, price.version, left_nano)

    def retry(self, request_id: str, attempt: int) -> Standing:
        record = self._find(request_id)
        if record is None or record.state is not RequestState.LOST or record.attempt != attempt:
            return self._standing(record)
        if record.strikes >= STRIKES_MAX:
            self._bury(record)
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
        record = self._held_by(end.request_id, end.attempt, finish.worker_id)
        if record is None:
            return Settlement(accepted=False, end=end)
        self._tiers[record.job.tier].measure(record, end.usage, self._clock.now_ms())
        outcome, billed = who_pays(record, finish.outcome, end.usage)
        settled = replace(end, usage=billed, cost_nano=usage_cost_nano(billed, record.price))
        if outcome is Outcome.GATEWAY_LOST:
            self._keep_unpaid(record, finish)
        self._settle(record, outcome, settled, end.usage.completion_tokens, finish.first_token_ms)
        return Settlement(accepted=True, end=replace(settled, answers=()))

    def extend(self, extension: Extension) -> Extended:
        record = self._held_by(extension.request_id, extension.attempt, extension.worker_id)
        if record is None:
            return Extended(accepted=False, covered_tokens=0)
        refused_by = ""
        if extension.output_tokens > record.output_covered:
            refused_by = self.reservations.extend(record, extension.output_tokens, self._clock.now_ms())
        return Extended(True, record.output_covered, refused_by)

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
                if record.strikes >= STRIKES_MAX:
                    self._bury(record)
                self._settle_over_worker(record, Outcome.FAILED, WORKER_LOST)
            elif record.expired(now_ms, DEADLINE_GRACE_MS):
                self._settle_over_worker(record, Outcome.TIMEOUT, TOO_LATE)
        return lost

    def set_generation(self, organisation: str, generation: int) -> None:
        self._generations[organisation] = max(generation, self._generations.get(organisation, generation))

    def generations(self, organisations: Sequence[str]) -> dict[str, int]:
        return {name: self._generations[name] for name in organisations if name in self._generations}

    def stats(self, tiers: Sequence[str]) -> QueueStats:
        return QueueStats(
            tiers={name: _tier_stats(self._tiers[name], self._clock.now_ms()) for name in tiers},
            reservations_open=len(self._open),
            usage_backlog=len(self.usage),
            dead_letters=len(self.letters),
        )

    # Steps that several of the above share.

    # Checks of admission in the order of docs/queue.md; they change nothing.

    def _stale(self, admission: Admission) -> Refused | None:
        generation = self._generations.get(admission.job.organisation)
        if generation is not None and generation > admission.generation:
            return Refused(RefusedBy.STALE, Refusal("generation", "organisation", generation, 0, 0))
        return None

    def _epoch_refused(self) -> Refused | None:
        credit = self.reservations.credit
        if credit.is_open:
            return None
        return Refused(RefusedBy.EPOCH, Refusal("epoch", "cell", credit.number, 0, RETRY_MS_MIN))

    def _outdated(self, admission: Admission, price: Price | None, now_ms: int) -> Refused | None:
        """Neither a price nor a calendar window may end before the principal that carries it is loaded anew."""
        if price is None:
            return Refused(RefusedBy.STALE, Refusal("price", "tier", 0, 0, 0))
        rule = self.reservations.limits.outdated(admission.rules, now_ms)
        if rule is None:
            return None
        return Refused(RefusedBy.STALE, Refusal(rule.kind.value, rule.scope, rule.limit, 0, 0, rule.tier), rule=rule)

    def _queue_refused(self, admission: Admission) -> Refused | None:
        if len(self.usage) > USAGE_BACKLOG_MAX:
            return Refused(RefusedBy.BACKLOG, Refusal("usage_backlog", "cell", USAGE_BACKLOG_MAX, 0, RETRY_MS_MIN))
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

    def _keep_unpaid(self, record: Record, finish: Finish) -> None:
        """The answer outlived its gateway: whoever fetches it with its Idempotency-Key pays for it."""
        end = finish.end
        if record.claim is None or record.completion_tokens_max is not None or not (end.answers or end.vectors):
            return
        _, billed = who_pays(record, Outcome.FINISHED, end.usage)
        due = replace(end, usage=billed, cost_nano=usage_cost_nano(billed, record.price))
        event = usage_event(record, Outcome.FINISHED, due, end.usage.completion_tokens, finish.first_token_ms, 0)
        self._claims.unpaid[record.request_id] = replace(event, request_id=f"{record.request_id}{FETCHED}")

    def _pay_for_kept(self, repeated: Repeated, admission: Admission, now_ms: int) -> Refused | None:
        """None if there is nothing to pay, or it is paid now."""
        record = self._find(repeated.request_id)
        event = self._claims.unpaid.get(repeated.request_id)
        if event is None or record is None or record.end is None or not repeated.same_body:
            return None
        used = Amount(event.prompt_tokens + event.completion_tokens, event.cost_nano)
        refused = self._epoch_refused() or self.reservations.charge(admission, used, now_ms)
        if refused is not None:
            return refused
        usage = Usage(event.prompt_tokens, event.completion_tokens, event.cached_tokens)
        record.end = replace(record.end, usage=usage, cost_nano=event.cost_nano)
        del self._claims.unpaid[repeated.request_id]
        self._append_usage(replace(event, settled_ms=now_ms, epoch=self.reservations.credit.number))
        return None

    def _bury(self, record: Record) -> None:
        self.letters[record.request_id] = replace(record, lost_ms=self._clock.now_ms())
        if len(self.letters) > DEAD_LETTERS_MAX:
            del self.letters[next(iter(self.letters))]

    def requeue(self, letter_id: str, admission: Admission) -> None:
        now_ms, epoch = self._clock.now_ms(), self.reservations.credit.number
        record = new_record(admission, admission.prices[0], now_ms, next(self._orders), epoch)
        record.strikes = SOLO_STRIKES
        del self.letters[letter_id]
        self._open[record.request_id] = record
        self._tiers[record.job.tier].push(record)

    def _append_usage(self, event: UsageEvent) -> None:
        self.usage[str(next(self._event_numbers))] = event
        self.usage_bell.ring()

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
        self.reservations.close(record, end.usage, end.cost_nano, now_ms)
        self._append_usage(usage_event(record, outcome, end, decoded_tokens, first_token_ms, now_ms))
        if (
            record.claim is not None
            and outcome is not Outcome.FINISHED
            and record.request_id not in self._claims.unpaid
        ):
            self._claims.free(record.claim)
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

    def _held_by(self, request_id: str, attempt: int, worker_id: str) -> Record | None:
        """The record, if it runs there with this attempt."""
        record = self._find(request_id)
        if record is None or record.state is not RequestState.RUNNING or record.attempt != attempt:
            return None
        return record if record.worker_id == worker_id else None

    def open_record(self, request_id: str) -> Record | None:
        return self._open.get(request_id)

    def _find(self, request_id: str) -> Record | None:
        while self._settled_order and self._clock.now_ms() - self._settled_order[0].settled_ms >= RECORD_KEPT_MS:
            forgotten = self._settled_order.popleft().request_id
            del self._settled[forgotten]
            self._claims.unpaid.pop(forgotten, None)
        return self._open.get(request_id) or self._settled.get(request_id)

    def _standing(self, record: Record | None) -> Standing:
        if record is None:
            return Standing(RequestState.UNKNOWN, attempt=0)
        if record.state is not RequestState.QUEUED:
            return Standing(record.state, record.attempt, record.end)
        tier = self._tiers[record.job.tier]
        return Standing(record.state, record.attempt, None, tier.position(record), tier.wait_ms())


def _tier_stats(tier: TierQueue, now_ms: int) -> TierStats:
    return TierStats(tier.queued, tier.running, len(tier.workers), tier.oldest_wait_ms(now_ms))
