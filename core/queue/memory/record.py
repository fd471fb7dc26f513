"""One request from admission to settlement: queued -> running -> settled, with `lost` between two attempts."""

from dataclasses import dataclass, replace

from core.queue.base import (
    Admission,
    Outcome,
    Price,
    RequestState,
)
from core.queue.rules import Rule
from core.wire import CHAT, End, Job, Usage

NOT_BILLED = frozenset({Outcome.FAILED, Outcome.GATEWAY_LOST, Outcome.TIMEOUT})


@dataclass(slots=True)
class Record:
    """`attempt` is the fence; `strikes` counts lost workers; `completion_tokens_max` is set by the first cancel."""

    job: Job
    key_id: str
    price: Price
    rules: tuple[Rule, ...]
    cost_reserved_nano: int
    tokens_reserved: int
    admitted_ms: int
    order: int
    state: RequestState = RequestState.QUEUED
    attempt: int = 1
    strikes: int = 0
    worker_id: str = ""
    taken_ms: int = 0
    lost_ms: int = 0
    completion_tokens_max: int | None = None
    end: End | None = None
    settled_ms: int = 0

    @property
    def request_id(self) -> str:
        return self.job.request_id

    def expired(self, now_ms: int, grace_ms: int = 0) -> bool:
        return now_ms > self.job.deadline_ms + grace_ms

    def drop_body(self) -> None:
        """Prompts are kept no longer than they are needed."""
        self.job = replace(self.job, prompt_ids=(), emitted_ids=(), texts=())


def new_record(admission: Admission, cost_reserved_nano: int, now_ms: int, order: int) -> Record:
    return Record(
        job=admission.job,
        key_id=admission.key_id,
        price=admission.price,
        rules=admission.rules,
        cost_reserved_nano=cost_reserved_nano,
        tokens_reserved=admission.job.prompt_tokens + admission.output_reserved,
        admitted_ms=now_ms,
        order=order,
    )


def who_pays(record: Record, outcome: Outcome, counted: Usage) -> tuple[Outcome, Usage]:
    """The outcome as it is recorded, and the tokens that are billed of those counted."""
    if outcome in NOT_BILLED:
        return outcome, Usage()
    if record.completion_tokens_max is not None:  # the worker may not have seen the cancel yet
        completion_tokens = min(counted.completion_tokens, record.completion_tokens_max)
        return Outcome.CANCELLED, replace(counted, completion_tokens=completion_tokens)
    if outcome is Outcome.FINISHED and record.job.kind == CHAT and counted.completion_tokens == 0:
        return outcome, Usage()
    return outcome, counted
