"""The seams between who submits a job, who works on it, and who keeps order. Three protocols, one record behind.

A request is one record from admission to settlement: queued -> running(attempt) -> settled, with `lost` between two
attempts. The number of the valid attempt is the fence: whoever comes with another number is refused. Implementations:
`redis.py` over the scripts of `core/meter`, `memory.py` for tests and simulations; one contract suite runs over both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from core.errors import Refusal
from core.queue.rules import Rule, RuleState
from core.wire import End, Event, Job

RECORD_KEPT_MS = 600_000
DECIDE_MS = 5_000
AGEING_MS = 60_000
REPLIES_KEPT_MS = 30_000
CLAIM_KEPT_MS = 86_400_000
STRIKES_MAX = 3
SOLO_STRIKES = 2
USAGE_BACKLOG_MAX = 200_000


@dataclass(frozen=True, slots=True)
class TierBounds:
    """`pool_reserve` is the part of the slots that is not given to a flow above its share."""

    queue_jobs_max: int
    pool_reserve: float


@dataclass(frozen=True, slots=True)
class QueueSettings:
    cell: str
    lease_ms: int
    tiers: Mapping[str, TierBounds]


class Outcome(StrEnum):
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"  # engine error, worker lost for good, poison
    GATEWAY_LOST = "gateway_lost"
    TIMEOUT = "timeout"  # waited or ran past its deadline


@dataclass(frozen=True, slots=True)
class Price:
    """Integer nano-units of the installation's currency per 1 000 tokens, pinned at admission; in force from
    `start_ms` on.
    """

    version: str
    input_nano: int
    cached_nano: int
    output_nano: int
    start_ms: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """An Idempotency-Key as admission sees it: `key` is workspace, route and the caller's key in one digest; `digest`
    is that of the body. Claimed for CLAIM_KEPT_MS, unless the request ends in a way that a repetition may cure.
    """

    key: str
    digest: str


@dataclass(frozen=True, slots=True)
class Admission:
    """Everything the one admission call needs. `output_reserved` is the slice of output tokens that money and
    tokens-per-minute are reserved for; `weight` is the organisation's share in the fair queue; `queue_wait_ms_max`
    is how long the caller would wait at most, so that a hopeless queue refuses at once. `prices` are the version in
    force and the next one, by start: the script's clock picks. `rules` are those that concern the job's tier.
    """

    job: Job
    key_id: str
    generation: int
    prices: tuple[Price, ...]
    rules: tuple[Rule, ...]
    output_reserved: int
    weight: int
    queue_wait_ms_max: int
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """`credit_left_nano` is what the organisation can still reserve before billing gives more; -1 when nobody asked,
    for nothing was reserved.
    """

    request_id: str
    admitted_ms: int
    cost_reserved_nano: int
    queue_wait_ms: int
    rules: tuple[RuleState, ...]
    price_version: str = ""
    credit_left_nano: int = -1


class RefusedBy(StrEnum):
    STALE = "stale"  # the caller's generation is old: reload the principal, try once more
    RULE = "rule"
    CREDIT = "credit"  # limit: needed; remaining: free in Redis; billing may give more
    EPOCH = "epoch"  # Redis is new or was restarted: billing opens the next epoch first
    UNSEEDED = "unseeded"  # a calendar rule that is not counted yet: seed it from SQL, then ask again
    QUEUE_FULL = "queue_full"
    QUEUE_SLOW = "queue_slow"
    BACKLOG = "backlog"  # usage is not being collected: refuse rather than lose it


@dataclass(frozen=True, slots=True)
class Refused:
    """`reserved_nano`, with CREDIT: what open requests of the organisation hold. `rule`, with RULE and UNSEEDED: the
    one that refused, as it was asked.
    """

    by: RefusedBy
    refusal: Refusal
    reserved_nano: int = 0
    rule: Rule | None = None


@dataclass(frozen=True, slots=True)
class Repeated:
    """The claim was made before, by request_id. `same_body` False: for another body."""

    request_id: str
    same_body: bool
    streamed: bool


class RequestState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    LOST = "lost"
    SETTLED = "settled"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a request stands. `end` is present once it is settled, for as long as its record is kept (10 minutes).
    `queue_position` counts the jobs of its workspace before it; -1 when not queued.
    """

    state: RequestState
    attempt: int
    end: End | None = None
    queue_position: int = -1
    queue_wait_ms: int = 0


class SubmitterQueue(Protocol):
    """The side of a gateway process or a batch runner. Its id is new for each process start."""

    async def admit(self, admission: Admission) -> Admitted | Refused | Repeated:
        """One call, all or nothing: check every rule, reserve, and put the job into its tier's queue."""

    async def receive(self, wait_s: float) -> list[Event]:
        """What workers sent since the last call, in order; waits up to wait_s for the first. One caller per process.
        Also keeps the reply stream alive, so call it again and again.
        """

    async def retry(self, request_id: str, attempt: int) -> Standing:
        """After Lost(attempt): run it again, in front of its queue, with the next attempt number. Answers how the
        request then stands: settled (with the kept end) if it is too late, or it was the third loss.
        """

    async def cancel(
        self, request_id: str, completion_tokens_max: int, outcome: Outcome = Outcome.CANCELLED
    ) -> Standing:
        """Stop it. Not started, or lost: settled at once with no charge. Running: its worker aborts and settles with
        at most completion_tokens_max (with outcome FAILED or TIMEOUT: nothing is charged, settled at once).
        """

    async def standing(self, request_id: str) -> Standing: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """One worker as the queue knows it: a process may hold several, one per tier."""

    worker_id: str
    tier: str
    slots: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """`held` False: the lease ran out, everything taken now belongs to others; drop it and register anew."""

    held: bool
    cancelled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finish:
    """A worker's last word on a request. Token counts are what was computed; what is billed is decided inside
    (who pays: outcome, the cancel's bound, nothing generated) and comes back in the Settlement.
    `first_token_ms` counts from the take to the first token; 0 if there was none. `keep_answer`: as the job said.
    """

    end: End
    worker_id: str
    outcome: Outcome
    first_token_ms: int = 0
    keep_answer: bool = False


@dataclass(frozen=True, slots=True)
class Settlement:
    """`accepted` False: the attempt was stale or the record is gone; say nothing to anyone. Otherwise `end` is the
    event to send, with billed usage and cost filled in.
    """

    accepted: bool
    end: End


@dataclass(frozen=True, slots=True)
class Extension:
    """A running request wants `output_tokens` covered in all, over its choices."""

    request_id: str
    attempt: int
    worker_id: str
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Extended:
    """`covered_tokens`: as many may be delivered, to the exact token. `refused_by` names the rule (credit, epoch,
    spend_per_day, spend_per_month, tokens_per_month) when that is fewer than were asked for; ask again, it may have
    been filled. `accepted` False: the attempt is stale, as in a Settlement.
    """

    accepted: bool
    covered_tokens: int
    refused_by: str = ""


class WorkerQueue(Protocol):
    """The side of a worker or the embedding service."""

    async def take(self, slot: WorkerSlot, room: int, wait_s: float) -> list[Job]:
        """Up to `room` jobs in fair order; waits up to wait_s for the first, or until a cancel for this worker calls
        for a renewal. Registers the worker and its lease. room 0 only waits.
        """

    async def renew(self, slot: WorkerSlot) -> Renewal: ...

    async def send(self, replies: Mapping[str, Sequence[Event]]) -> frozenset[str]:
        """Events by submitter, one message each. Answers the submitters that are gone."""

    async def extend(self, extensions: Sequence[Extension]) -> list[Extended]:
        """Reserve the next slice of output: money, spending caps and monthly tokens bound it; tokens per minute only
        go below zero.
        """

    async def finish(self, finishes: Sequence[Finish]) -> list[Settlement]:
        """Settle, once per request: money, limits, usage event, acknowledgement; the end is kept for 10 minutes."""

    async def leave(self, slot: WorkerSlot) -> None:
        """Drained: the lease ends, and what is still held goes back to its submitters as lost, without a strike."""


@dataclass(frozen=True, slots=True)
class TierStats:
    queued: int
    running: int
    workers: int
    oldest_wait_ms: int


@dataclass(frozen=True, slots=True)
class QueueStats:
    tiers: Mapping[str, TierStats]
    reservations_open: int
    usage_backlog: int
    dead_letters: int


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request that is not settled yet, as whoever looks from outside may know it; `taken_ms` 0: no worker has it."""

    request_id: str
    organisation: str
    workspace: str
    key_id: str
    tier: str
    state: RequestState
    attempt: int
    streamed: bool
    prompt_tokens: int
    admitted_ms: int
    taken_ms: int


class QueueKeeper(Protocol):
    """Housekeeping; any process may call it, twice does no harm."""

    async def reap(self) -> int:
        """Mark attempts of expired leases as lost and tell their submitters; settle without charge what nobody
        answered for, and what is past its deadline. Answers how many attempts were lost.
        """

    async def set_generation(self, organisation: str, generation: int) -> None: ...

    async def generations(self, organisations: Sequence[str]) -> Mapping[str, int]: ...

    async def stats(self, tiers: Sequence[str]) -> QueueStats: ...

    async def open_request(self, request_id: str) -> OpenRequest | None:
        """None: it is settled, or there never was one with this id."""
