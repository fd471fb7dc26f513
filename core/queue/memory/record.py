"""One request from admission to settlement: queued -> running -> settled, with `lost` between two attempts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.meter.cost import cost_nano
from core.meter.usage import UsageEvent
from core.queue.base import Admission, Claim, Outcome, Price, RequestState
from core.queue.memory.counters import Amount
from core.queue.rules import Rule
from core.wire import CHAT, End, Job, Usage

NOT_BILLED = frozenset({Outcome.FAILED, Outcome.GATEWAY_LOST, Outcome.TIMEOUT})


@dataclass(slots=True)
class Record:
    """`attempt` is the fence; `strikes` counts lost workers; `completion_tokens_max` is set by the first cancel.
    `reserved` is what prompt and `output_covered` come to; `epoch` the one whose credit holds it,
    `first_epoch` the one whose calendar counters do.
    """

    job: Job
    key_id: str
    price: Price
    rules: tuple[Rule, ...]
    claim: Claim | None
    output_covered: int
    reserved: Amount
    admitted_ms: int
    order: int
    epoch: int
    first_epoch: int
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


def new_record(admission: Admission, price: Price, now_ms: int, order: int, epoch: int) -> Record:
    return Record(
        job=admission.job,
        key_id=admission.key_id,
        price=price,
        rules=admission.rules,
        claim=admission.claim,
        output_covered=admission.output_reserved,
        reserved=amount(price, admission.job.prompt_tokens, admission.output_reserved),
        admitted_ms=now_ms,
        order=order,
        epoch=epoch,
        first_epoch=epoch,
    )


def price_at(prices: Sequence[Price], now_ms: int) -> Price | None:
    """The version in force, of those given by start; None if none is."""
    return next((price for price in reversed(prices) if price.start_ms <= now_ms), None)


def amount(price: Price, prompt_tokens: int, output_tokens: int) -> Amount:
    """What a request reserves whose output is covered so far."""
    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=output_tokens)
    return Amount(prompt_tokens + output_tokens, usage_cost_nano(usage, price))


def usage_cost_nano(usage: Usage, price: Price) -> int:
    return cost_nano(
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
        input_nano=price.input_nano,
        cached_nano=price.cached_nano,
        output_nano=price.output_nano,
    )


def who_pays(record: Record, outcome: Outcome, counted: Usage) -> tuple[Outcome, Usage]:
    """The outcome as it is recorded, and the tokens that are billed of those counted."""
    if outcome in NOT_BILLED:
        return outcome, Usage()
    if record.completion_tokens_max is not None:  # the worker may not have seen the cancel yet
        counted = replace(counted, completion_tokens=min(counted.completion_tokens, record.completion_tokens_max))
        return Outcome.CANCELLED, _covered(record, counted)
    if outcome is Outcome.FINISHED and record.job.kind == CHAT and counted.completion_tokens == 0:
        return outcome, Usage()
    return outcome, _covered(record, counted)


def _covered(record: Record, counted: Usage) -> Usage:
    """No more than was reserved, whatever a worker counts."""
    prompt_tokens = min(counted.prompt_tokens, record.job.prompt_tokens)
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=min(counted.completion_tokens, record.output_covered),
        cached_tokens=min(counted.cached_tokens, prompt_tokens),
    )


def usage_event(
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
        epoch=record.epoch,
    )
